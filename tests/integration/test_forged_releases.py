"""A release whose parts were changed together with its fingerprint works, or is refused as a release; nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ReleaseError
from recsys.retrieval import Retriever
from recsys.retrieval.item_encoder import ItemEncoder
from serving import codecs
from tests.unit.export.test_release import ODD, fingerprint_of, places, put
from twintower.types import FilterType, Query

TEXTS = ("run.toml", "index/index.json", "plain_query_tower/tower.json", "plain_item_tower/tower.json")
ARRAYS = ("item_embeddings.npy", "golden/vectors.npy", "golden/item_rows.npy", "plain_item_tower/kernel_0.npy")
ARRAYS += ("plain_item_tower/table_0.npy", "plain_query_tower/bias_1.npy", "seen/offsets.npy", "seen/rows.npy")
ARRAYS += ("known_queries/vectors.npy", "known_queries/lengths.npy")
TABLES = ("items.parquet", "queries.parquet", "golden/queries.parquet")
ENCODED = {"item": 6, "query": 3}
TABLES += tuple(f"encoders/{side}/{n:04}.arrow" for side, count in ENCODED.items() for n in range(count))


def forge(folder: Path) -> None:
    """Write a manifest that fits the files in a folder."""
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    parts = (part for part in sorted(folder.rglob("*")) if part.is_file() and part != path)
    table["parts"] = {
        part.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            "size_bytes": part.stat().st_size,
        }
        for part in parts
    }
    table["fingerprint"] = fingerprint_of(table)
    path.write_text(json.dumps(table))


def used(folder: Path) -> None:
    """Open a release and use all of it that a server uses before it is ready, and what it then answers first."""
    retriever = Retriever.load(folder)
    retriever.warm()
    ItemEncoder(retriever.release)
    assert all(isinstance(kind, FilterType) for kind in retriever.filter_fields.values())
    codecs.release_to_proto(retriever).SerializeToString()
    retriever.nearest([Query(vector=np.ones(8, np.float32))], 3)
    retriever.nearest([Query(entity_id="user 1", exclude_seen=True)], 3)


def texts_changed(data: st.DataObject, path: Path) -> None:
    read, write = (tomllib.loads, tomli_w.dumps) if path.suffix == ".toml" else (json.loads, json.dumps)
    table = read(path.read_text())
    value, remove = data.draw(st.sampled_from(ODD)), data.draw(st.booleans())
    with suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
        place = data.draw(st.sampled_from([place for place in places(table) if place]))
        path.write_text(write(put(table, place, copy.deepcopy(value), remove=remove)))


def array_changed(data: st.DataObject, path: Path) -> None:
    array = np.load(path)
    change = data.draw(st.sampled_from(["type", "flat", "shorter", "wider", "empty", "objects", "huge", "cut"]))
    if change == "cut":
        path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1))])
        return
    changed = {
        "type": array.astype(np.float64),
        "flat": array.ravel(),
        "shorter": array[:-1],
        "wider": np.concatenate([array, array], axis=-1),
        "empty": array[:0],
        "objects": array.astype(object),
        "huge": np.full_like(array, np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max),
    }[change]
    np.save(path, changed, allow_pickle=True)


def table_changed(data: st.DataObject, path: Path) -> None:
    arrow = path.suffix == ".arrow"
    table = feather.read_table(path, memory_map=False) if arrow else pq.read_table(path)
    change = data.draw(st.sampled_from(["drop", "rename", "type", "null", "shorter", "settings", "cut"]))
    if change == "cut":
        path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1))])
        return
    column = data.draw(st.sampled_from(range(max(table.num_columns, 1))))
    if table.num_columns:
        name, metadata = table.column_names[column], table.schema.metadata
        if change == "drop":
            table = table.drop_columns([name])
        elif change == "rename":
            table = table.rename_columns(["other" if each == name else each for each in table.column_names])
        elif change == "type":
            table = table.set_column(column, name, pa.array([{"a": 1}] * table.num_rows))
        elif change == "null":
            table = table.set_column(column, name, pa.nulls(table.num_rows, table.schema.field(column).type))
        elif change == "shorter":
            table = table.slice(0, table.num_rows // 2)
        table = table.replace_schema_metadata(metadata)
    if change == "settings" and arrow:
        told = data.draw(st.sampled_from(["", "[]", "{}", '{"kind": "os"}', '{"kind": 1}', "[" * 100_000]))
        name = data.draw(st.sampled_from(["", "taste", "../x", b"\xff"]))
        table = table.replace_schema_metadata({"name": name, "settings": told})
    if arrow:
        feather.write_feather(table, path)
    else:
        pq.write_table(table, path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_forged_part_is_used_or_refused_as_part_of_a_release(block_release, data):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / block_release.name
        shutil.copytree(block_release.folder, folder)
        part = data.draw(st.sampled_from([*TEXTS, *ARRAYS, *TABLES]))
        change = texts_changed if part in TEXTS else array_changed if part in ARRAYS else table_changed
        change(data, folder / part)
        forge(folder)
        with suppress(ReleaseError):
            used(folder)


def test_a_release_is_served_in_numpy_whatever_its_graphs_hold(block_release, tmp_path):
    folder = tmp_path / block_release.name
    shutil.copytree(block_release.folder, folder)
    for tower in ("query_tower", "item_tower"):
        (folder / tower / "saved_model.pb").write_bytes(b"no graph")
    forge(folder)
    used(folder)


@pytest.mark.parametrize("side", ["query", "item"])
def test_a_graph_that_has_to_be_loaded_is_checked_first(block_release, tmp_path, side):
    folder = tmp_path / block_release.name
    shutil.copytree(block_release.folder, folder)
    shutil.rmtree(folder / f"plain_{side}_tower")
    forge(folder)
    used(folder)
    graph = folder / f"{side}_tower" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"MatMul", b"PyFunc"))
    forge(folder)
    with pytest.raises(ReleaseError, match=r"got the op PyFunc in .*expected ops that only compute"):
        used(folder)
