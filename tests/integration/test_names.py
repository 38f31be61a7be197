"""Any column name works as a feature: in training, in a release, over gRPC, in upserts, filters and the explorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config, pipeline
from recsys.export.release import Release
from recsys.export.saved_model import QUERY_TOWER, GraphTower, load_tower
from recsys.retrieval import Retriever
from serving.explore.catalogue import Known
from tests.e2e.test_releases import serving
from tests.worlds import ITEMS, USERS, block_run, write_block_world
from twintower.types import Query, Upsert

NAMES = (
    "class", "self", "name", "training", "inputs", "codes", "dtype", "seed", "f000", "x.y", "x_y", "x y", "", " ",
    ".", "..", "../x", "/x", "a/b", "Case", "case", "CASE", 'quo"te', "apo'strophe", "back\\slash", "ünï-🎈", "[bold]",
    "{x}", "%s", "a=b", "a,b", "line\nfeed", "con", "*", "$HOME", "-rf", "long" * 100, "kind", "column", "features",
    "item",
)  # fmt: skip
"""Python's words, names of arguments, of files and of folders, marks of other languages, nearly equal names."""
MASKS = {"objective": {"kind": "contrastive"}, "augmentations": [{"kind": "random_mask"}], "side": "both"}


def write_odd_world(folder: Path) -> None:
    """Write the block world with one more column of each name on both sides."""
    write_block_world(folder)
    for file, rows in (("items", ITEMS), ("users", USERS)):
        table = pq.read_table(folder / f"{file}.parquet")
        for place, name in enumerate(NAMES):
            table = table.append_column(name, pa.array([f"{place} {(row + place) % 3}" for row in range(rows)]))
        pq.write_table(table, folder / f"{file}.parquet")


def odd_run(folder: Path, **changes) -> dict:
    features = {name: {"kind": "categorical", "width": 2} for name in NAMES}
    return block_run(
        folder, name="odd", query={"features": {**features, "who": {"kind": "id"}}},
        item={"features": {**features, "id": {"kind": "id"}}, "filters": list(NAMES)},
        training={"epochs": 1, "batch_size": 64, "refit": "none"}, self_supervision=MASKS, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("odd")
    write_odd_world(folder)
    return pipeline.train(config.from_tables(odd_run(folder)), folder / "work", folder / "releases")


def test_a_feature_of_any_name_is_asked_for_over_grpc_and_upserted(release, tmp_path):
    offline = Retriever(release)
    features = {name: f"{place} {place % 3}" for place, name in enumerate(NAMES)}
    with serving(release.folder, catalogue={"folder": tmp_path / "log"}) as (client, _):
        plain = client.encode_query(Query(features=features)).vector
        np.testing.assert_allclose(plain, offline.encode([Query(features=features)]).vectors[0], atol=1e-5)
        for name in NAMES:
            changed = client.encode_query(Query(features=features | {name: None})).vector
            assert not np.allclose(changed, plain), f"{name!r} changes nothing"
        client.upsert_items([Upsert("new", features=features, metadata=features)])
        found = client.nearest_items(Query(features=features), ITEMS + 1, include_metadata=True)
        assert dict(zip(found.item_ids, found.metadata, strict=True))["new"].items() >= features.items()


def test_items_are_filtered_by_a_column_of_any_name(release):
    with serving(release.folder) as (client, _):
        for place, name in enumerate(NAMES):
            if not name.strip():  # a filter names its column
                continue
            where = {name: f"{place} 0"}
            found = client.nearest_items(Query(entity_id="user 0"), ITEMS, filter=where).item_ids
            assert len(found) == len([row for row in range(ITEMS) if (row + place) % 3 == 0]), name


def test_the_towers_of_tensorflow_take_features_of_any_name_and_agree_with_the_numpy_form(release):
    codes = {name: np.array([place % 3 + 2], np.int32) for place, name in enumerate([*NAMES, "who"])}
    tower = GraphTower(release.folder / QUERY_TOWER)
    np.testing.assert_allclose(tower(codes), load_tower(release.folder, QUERY_TOWER)(codes), atol=1e-5)


def test_the_explorer_shows_a_release_of_any_names(release):
    known = Known.read(release)
    assert set(NAMES) < set(known.items.row("item-ü3"))
    assert set(NAMES) < set(known.entities.row("user 1"))


def test_prepared_data_of_any_names_is_read_again_as_it_was_written(release, tmp_path):
    from recsys.data.prepare import prepare

    run = config.load(release.folder / "run.toml")
    made, again = (prepare(run, tmp_path / "prepared") for _ in range(2))
    assert set(made.item_codes) == set(again.item_codes) == {*NAMES, "id"}
    for name in NAMES:
        np.testing.assert_array_equal(made.item_codes[name], again.item_codes[name])
