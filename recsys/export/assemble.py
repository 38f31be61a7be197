"""Fill a release folder from a trained model: towers, vectors, catalogue, known queries, index, golden answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import config
from recsys.config import Run
from recsys.data import encoders
from recsys.data.batches import QueryCodes
from recsys.data.dependence import measure_dependence
from recsys.data.history import Past, weighted
from recsys.data.prepare import EXAMPLES, Codes, Prepared
from recsys.export import known_queries, query_side
from recsys.export.known_queries import KnownQueries
from recsys.export.own_items import OWN, Fusion, OwnWeights
from recsys.export.query_side import QuerySide, fit_map
from recsys.export.saved_model import ITEM_TOWER, PLAIN, QUERY_TOWER, Tower, load_tower, save_tower
from recsys.export.seen import SeenItems
from recsys.files import save_array
from recsys.forward import SHORTEST_SQUARED
from recsys.training.model import TwoTowerModel
from recsys.types import AGE_DAYS, HISTORY, ITEM_ID, QUERY_ID, TRAINING_COUNT, Float32, Int32

GOLDEN_K = 10
MAP_QUERIES = 20_000
"""Query entities that a map into their space is learned from, at most."""
BLOCK = 1024
"""Queries that go through the query tower at once."""


def golden_queries(run: Run, prepared: Prepared) -> tuple[pa.Table, Codes]:
    """Return up to 1,000 queries spread over the query side, as a caller would ask them, with their codes.

    Queries by id know their whole past, as at serving time. Their codes are made as in training, from rows; a server
    makes them from the release's raw columns, and the two must agree.
    """
    if run.query.entity == "features":
        return prepared.queries, encoders.encode(prepared.query_encoders, prepared.queries, "query")
    count = min(EXAMPLES, prepared.query_count)
    rows = np.unique(np.linspace(0, prepared.query_count - 1, count).astype(np.int32))
    return prepared.queries.select([QUERY_ID]).take(pa.array(rows)), QueryCodes(prepared, _past(prepared)).now(rows)


def fill(
    folder: Path,
    run: Run,
    prepared: Prepared,
    model: TwoTowerModel,
    item_vectors: Float32,
    fusion: Fusion | None = None,
) -> None:
    """Write every part of a release that training gives; index, evaluation and golden answers are the caller's.

    Args:
        folder: existing.
        run: the resolved run.
        prepared: its data.
        model: the trained model.
        item_vectors: `[items, dim]`, float32, the catalogue through the item tower.
        fusion: how an entity's own items are added to the dense list; None where they are not.
    """
    (folder / "run.toml").write_text(config.dumps(run), encoding="utf-8")
    for name, tower, fitted in (
        (QUERY_TOWER, model.query_tower, prepared.query_encoders),
        (ITEM_TOWER, model.item_tower, prepared.item_encoders),
    ):
        save_tower(tower, fitted, folder / name)
        if (plain := tower.plain()) is not None:
            plain.save(folder / f"{PLAIN}{name}")
    encoders.save(prepared.query_encoders, folder / "encoders" / "query")
    encoders.save(prepared.item_encoders, folder / "encoders" / "item")
    save_array(folder / "item_embeddings.npy", item_vectors)
    rows = np.arange(prepared.item_count, dtype=np.int32)
    save_array(folder / "log_q.npy", model.main_task.frequency.log_probability(rows).numpy())
    measure_dependence(prepared.item_encoders, prepared.item_codes).save(folder / "dependence.arrow")
    pq.write_table(_items(run, prepared), folder / "items.parquet", compression="zstd")
    if run.query.entity != "features":
        pq.write_table(_queries(run, prepared), folder / "queries.parquet", compression="zstd")
        SeenItems(prepared.positives(*prepared.parts)).save(folder / "seen")
    if fusion is not None:
        # Every pair that was seen, in the order of `SeenItems`.
        own = weighted(prepared.until(*prepared.parts), prepared.query_count, prepared.item_count, fusion)
        own.sort_indices()
        OwnWeights(fusion, own.data).save(folder / OWN)
    queries, codes = golden_queries(run, prepared)
    tower = load_tower(folder, QUERY_TOWER)
    side = measure_query_side(tower, run, prepared, codes, item_vectors)
    side.save(folder / query_side.FOLDER)
    if run.query.entity != "features":
        encode_known(tower, prepared, side).save(folder / known_queries.FOLDER)
    (folder / "golden").mkdir()
    pq.write_table(queries, folder / "golden" / "queries.parquet")
    save_array(folder / "golden" / "vectors.npy", model.encode_queries(codes))


def encode_known(tower: Tower, prepared: Prepared, side: QuerySide) -> KnownQueries:
    """Return the vectors of all query entities, each with all that it has met.

    Args:
        tower: the query tower.
        prepared: the run's data.
        side: of the same tower.
    """
    codes_of = QueryCodes(prepared, _past(prepared))

    def encode(rows: Int32) -> Float32:
        codes = codes_of.now(rows)
        vectors, raw = tower.encode(codes)
        lengths = side.lengths(encoders.evidence(prepared.query_encoders, codes, raw))
        return np.concatenate([vectors, lengths[:, None]], axis=1)

    encoded = _in_blocks(encode, prepared.query_count)
    return KnownQueries(encoded[:, :-1], encoded[:, -1])


def measure_query_side(tower: Tower, run: Run, prepared: Prepared, typical: Codes, item_vectors: Float32) -> QuerySide:
    """Return what having met each item means for a query, by what the query tower reads.

    Where it reads a history: by how much a history of the item alone moves the tower's vector away from that of no
    history, before either is brought to unit length. For a tower that sums, this is the item's row of the history's
    table. Where items are the query entities: the item's own query. Elsewhere: a map of the item's found vector,
    learned from what the training queries met; it starts from the identity, that is from one space for both sides.

    Args:
        tower: the query tower.
        run: the resolved run.
        prepared: its data.
        typical: codes of typical queries.
        item_vectors: `[items, dim]`, float32, the catalog through the item tower.
    """
    dim = item_vectors.shape[1]
    identity = np.eye(dim, dtype=np.float32)
    if run.query.entity == "item":
        of_items = QueryCodes(prepared, _past(prepared))
        vectors = _in_blocks(lambda rows: tower(of_items.now(rows)), prepared.item_count)
        return QuerySide(vectors, fit_map(item_vectors, vectors, identity, run.seed), 0.0)
    if prepared.history_length is None:
        rows = np.flatnonzero(prepared.positives("train").sizes).astype(np.int32)
        rows = np.sort(np.random.default_rng([run.seed, 19]).permutation(rows)[:MAP_QUERIES])
        met, codes = prepared.positives("train").take(rows), QueryCodes(prepared, _past(prepared))
        means = np.zeros((len(rows), dim), np.float32)
        np.add.at(means, met.owners, item_vectors[met.rows])
        means /= np.maximum(met.sizes, 1)[:, None]
        queries = _in_blocks(lambda places: tower(codes.now(rows[places])), len(rows)).reshape(-1, dim)
        learned = fit_map(means, queries, identity, run.seed)
        return QuerySide(item_vectors @ learned, learned, 0.0)
    raw = encoders.evidence(prepared.query_encoders, typical, tower.encode(typical)[1])
    some = raw[raw > 2 * SHORTEST_SQUARED**0.5]  # queries that say something
    length = float(np.median(some)) if len(some) else 1.0
    without = _raw(tower, encoders.only_histories(prepared.query_encoders, [[]]))
    item_ids = prepared.items[ITEM_ID].to_pylist()

    def alone(rows: Int32) -> Float32:
        codes = encoders.only_histories(prepared.query_encoders, [[item_ids[row]] for row in rows])
        return (_raw(tower, codes) - without) / np.float32(length)

    vectors = _in_blocks(alone, prepared.item_count)
    own = encoders.in_histories(prepared.query_encoders, item_ids)
    learned = fit_map(item_vectors[own], vectors[own], np.zeros_like(identity), run.seed)
    vectors[~own] = item_vectors[~own] @ learned
    return QuerySide(vectors, learned, length)


def _raw(tower: Tower, codes: Codes) -> Float32:
    vectors, lengths = tower.encode(codes)
    return vectors * lengths[:, None]


def _in_blocks(compute: Callable[[Int32], Float32], count: int) -> Float32:
    """Return `[count, columns]` from a function of some of the rows."""
    rows = np.arange(count, dtype=np.int32)
    return np.concatenate([compute(rows[start : start + BLOCK]) for start in range(0, count, BLOCK)])


def write_golden_answers(folder: Path, item_vectors: Float32, index: Any) -> None:
    """Write what the index in a folder answers to the golden vectors there; done again whenever the index changes."""
    vectors = np.load(folder / "golden" / "vectors.npy")
    found = index.load(folder / "index", item_vectors).search(vectors, GOLDEN_K)
    save_array(folder / "golden" / "item_rows.npy", found.item_rows)


def query_columns(run: Run) -> tuple[tuple[str, ...], bool]:
    """Return the raw columns that a query by features may carry, the id left out, and whether it reads a history."""
    features = run.query_features
    read = [
        encoders.raw_column(feature, name, "query")
        for name, feature in features.items()
        if not encoders.is_history_feature(feature)
    ]
    columns = tuple(name for name in dict.fromkeys(read) if name != QUERY_ID)
    return columns, any(encoders.is_history_feature(feature) for feature in features.values())


def _past(prepared: Prepared) -> Past:
    """Return everything that the query entities have met."""
    return Past(prepared.until("train", "validation", "test"), prepared.query_count)


def _items(run: Run, prepared: Prepared) -> pa.Table:
    """Return the catalogue with its training counts: feature columns, those for display and those to filter by."""
    features = [encoders.raw_column(feature, name, "item") for name, feature in run.item.features.items()]
    shown = run.item.metadata or tuple(prepared.items.column_names)
    wanted = dict.fromkeys([ITEM_ID, *shown, *run.item.filters, *features])
    return prepared.items.select(list(wanted)).append_column(TRAINING_COUNT, pa.array(prepared.item_counts))


def _queries(run: Run, prepared: Prepared) -> pa.Table:
    """Return the query entities with their raw feature columns and what they met, newest first, with its age."""
    columns, _ = query_columns(run)
    table = prepared.queries.select([QUERY_ID, *columns])
    if prepared.history_length is None:
        return table
    item_ids = prepared.items[ITEM_ID].combine_chunks()
    met = _past(prepared).until_end(np.arange(prepared.query_count), prepared.history_length)
    meetings = pa.StructArray.from_arrays([item_ids.take(pa.array(met.item_row)), met.age_days], [ITEM_ID, AGE_DAYS])
    offsets = np.concatenate([[0], np.cumsum(met.lengths)]).astype(np.int32)
    return table.append_column(HISTORY, pa.ListArray.from_arrays(pa.array(offsets), meetings))
