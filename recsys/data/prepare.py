"""Turn a source into rows, parts and codes, once; training starts again at once from their memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from recsys import config
from recsys.config import Run
from recsys.data import encoders
from recsys.data.filterable import check_filters
from recsys.data.repeats import is_repeat_consumption
from recsys.errors import DataError
from recsys.features import Encoder
from recsys.files import save_array, stamp, storage
from recsys.progress import task, warn
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, WEIGHT, RawData
from recsys.spelling import Spelling, missing_rows, plain_type
from recsys.splits import TEST, TRAIN, VALIDATION
from recsys.types import HISTORY, TRAINING_COUNT, Int32, Int64, Interactions, RowSets
from twintower.errors import describe, unknown, verbatim

Codes = Mapping[str, np.ndarray]
EXAMPLES = 1000
CONTENTS = "contents.json"
WARNINGS = "warnings.json"
UNEVEN_WEIGHTS = 1e6
"""Ratio of the largest weight to the smallest beyond which weights are warned of."""
UNKNOWN_ID = "unknown id"
LEAK_CORRELATION = 0.9
"""Size of a column's rank correlation with the items' interactions above which it looks counted from them."""
LEAST_DISTINCT = 10
"""Different values and counts below which a rank correlation says nothing."""
LAYOUT = 3
"""Raise it when the files of the folder change: what an older version left is made again."""
PART_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
UNUSED = "unused"
STORED_PARTS = (*PART_NAMES.values(), UNUSED)


@dataclass(frozen=True)
class Prepared:
    """Everything that training, evaluation and release read.

    Attributes:
        items: the catalogue as the source gave it; row = item_row.
        queries: the query entities as the source gave them, row = query_row; for an item-to-item run the catalogue;
            for free features the first rows that have a value, as examples.
        parts: interactions by part name: `train`, `validation`, `test`, and `unused`: those for training that
            `data.training_rate` leaves out.
        item_encoders: fitted features of the item side, by name.
        query_encoders: fitted features of the query side, by name.
        item_codes: codes of the catalogue, `[items, *shape]` each.
        query_codes: codes of the query entities, `[queries, *shape]` each; without history, which depends on time.
        notice: what must be said wherever the data is named.
        warnings: sentences on what looks wrong in the data, though it can be trained on.
        fitted_on: the parts of the split that `train` holds; encoders are fitted on them, and models train on them.
        as_split: the data with one part of the split under each name; None where this is it.
    """

    items: pa.Table
    queries: pa.Table
    parts: Mapping[str, Interactions]
    item_encoders: Mapping[str, Encoder]
    query_encoders: Mapping[str, Encoder]
    item_codes: Codes
    query_codes: Codes
    notice: str
    warnings: tuple[str, ...] = ()
    fitted_on: tuple[str, ...] = ("train",)
    as_split: Prepared | None = None

    @property
    def item_count(self) -> int:
        """Rows of the catalogue."""
        return self.items.num_rows

    @property
    def query_count(self) -> int:
        """Rows of the query side."""
        return max([self.queries.num_rows, *(len(codes) for codes in self.query_codes.values())])

    @property
    def item_counts(self) -> Int64:
        """Training interactions of each item, `[items]`, int64."""
        return np.bincount(self.parts["train"].item_row, minlength=self.item_count).astype(np.int64)

    @property
    def history_length(self) -> int | None:
        """Items of the longest history feature of the query side; 0 means all of them, None that there is none."""
        lengths = [encoder.places for encoder in self.query_encoders.values() if encoders.is_history(encoder)]
        return None if not lengths else 0 if 0 in lengths else max(lengths)

    @property
    def training_digest(self) -> str:
        """A digest of the catalogue's ids and of the training part as split: where it is equal, rows mean the same."""
        train = (self.as_split or self).parts["train"]
        digest = hashlib.sha256("\0".join(self.items[ITEM_ID].to_pylist()).encode())
        for rows in (train.query_row, train.item_row):
            digest.update(np.ascontiguousarray(rows))
        return digest.hexdigest()

    def positives(self, *parts: str) -> RowSets:
        """Return the distinct items of each query row in the given parts."""
        rows = [self.parts[part] for part in parts]
        return RowSets.from_pairs(
            np.concatenate([part.query_row for part in rows]),
            np.concatenate([part.item_row for part in rows]),
            self.query_count,
        )

    def until(self, *parts: str) -> Interactions:
        """Return the interactions of several parts as one, sorted by query row, then time."""
        chosen = [self.parts[part] for part in parts]
        columns = [
            None if getattr(chosen[0], name) is None else np.concatenate([getattr(part, name) for part in chosen])
            for name in ("query_row", "item_row", "timestamp", "weight")
        ]
        return Interactions(*columns).in_order()


def prepare(run: Run, folder: Path) -> Prepared:
    """Read the source of a run, or what an earlier call for the same settings and files left in the folder.

    Args:
        run: the run; its source, data, query, item, split and seed decide the result.
        folder: where the arrays go; made, and made again when it belongs to other settings or data, or is damaged.

    Raises:
        DataError: no usable interactions, a missing or reserved column, one that cannot be filtered by, more broken
            rows than `data.max_rejected_rate`, or a split that leaves nothing to train on.
        StorageError: the folder cannot be written.
    """
    digest = version(run)
    if not _is_whole(folder, digest):
        prepared = _read(run)
        with storage(folder.parent):
            _save(prepared, folder, digest)
    prepared = _load(folder)
    check_filters(run.item.filters, prepared.items)
    for warning in prepared.warnings:
        warn(warning)
    return prepared


def version(run: Run) -> str:
    """Return a digest of everything that decides what `prepare` returns: settings, and the files' sizes and times."""
    tables = config.plain_tables(run)
    deciding = {name: tables[name] for name in ("source", "data", "query", "split", "seed")}
    deciding["item"] = tables["item"]["features"]
    deciding["share_tables"] = run.training.share_tables
    deciding["layout"] = LAYOUT
    settled = json.dumps(deciding, sort_keys=True) + stamp(run.source.paths())
    return hashlib.sha256(settled.encode()).hexdigest()


def training_version(run: Run) -> str:
    """Return a digest of all data that decides the weights: that of `version`, and what the objective reads."""
    besides = () if run.objective is None else run.objective.paths()
    return version(run) + (stamp(besides) if besides else "")


def _read(run: Run) -> Prepared:
    raw = run.source.read()
    check_columns(run, raw)
    usable = read_interactions(run, raw)
    raw.rejects.check(usable.rows_read, run.data.max_rejected_rate)
    parts = split(run, usable.interactions)
    return encode(run, raw, usable, parts)


@dataclass(frozen=True)
class Usable:
    """What a pass over the interactions of a source found.

    Attributes:
        interactions: those that can train, with known ids.
        queries: the query entities, row = query_row; for free features those that the run reads.
        columns: of the interactions, as the source gives them.
        rows_read: all rows of all tables that were broken, and of the interactions also the others.
        warnings: sentences on tables that do not match, and on times and weights that look wrong.
    """

    interactions: Interactions
    queries: pa.Table
    columns: tuple[str, ...]
    rows_read: int
    warnings: tuple[str, ...]


def split(run: Run, interactions: Interactions) -> dict[str, Interactions]:
    """Return the interactions of each part.

    Raises:
        DataError: the split cannot be made, or leaves fewer than two training interactions.
    """
    if len(interactions) == 0:
        raise DataError(describe("source", verbatim("no usable interaction"), "at least one with known ids"))
    assigned = run.split.assign(interactions, run.seed)
    parts = {name: interactions.take(assigned == part) for part, name in PART_NAMES.items()}
    parts["train"], parts[UNUSED] = _thinned(parts["train"], run.data.training_rate, run.seed)
    if len(parts["train"]) < 2:
        got = verbatim(f"{len(parts['train'])} training interactions")
        raise DataError(describe("split", got, "at least 2", "Give more data, or hold out less of it."))
    return parts


def encode(run: Run, raw: RawData, usable: Usable, parts: Mapping[str, Interactions]) -> Prepared:
    """Fit the features and return everything that training reads.

    Raises:
        DataError: a column is missing, of a wrong type, or cannot be filtered by.
    """
    items, queries = raw.items, usable.queries
    check_filters(run.item.filters, items)
    for column in _context_columns(run):
        if column not in usable.columns:
            raise DataError(f"query.features: {unknown('column', column, usable.columns)}")
    for name, feature in run.query_features.items():
        if encoders.reads_order(feature) and parts["train"].timestamp is None:
            advice = "Name the column of times (source.timestamp_column), or pool by 'sum' or 'mean'."
            raise DataError(describe(f"query.features.{name}.pooling", feature.pooling, "a source with times", advice))
    if run.query.entity == "item":
        queries = items.rename_columns([QUERY_ID if name == ITEM_ID else name for name in items.column_names])
    item_encoders, query_encoders = _fit_encoders(run, items, queries, parts["train"])
    interactions = sum(np.bincount(part.item_row, minlength=items.num_rows) for part in parts.values())
    return Prepared(
        items=items,
        queries=_examples(queries) if run.query.entity == "features" else queries,
        parts=parts,
        item_encoders=item_encoders,
        query_encoders=query_encoders,
        item_codes=encoders.encode(item_encoders, items, "item"),
        query_codes=encoders.encode(query_encoders, queries, "query"),
        notice=raw.notice,
        warnings=(*usable.warnings, *count_leaks(items, interactions)),
    )


def refitted(run: Run, prepared: Prepared, *parts: str) -> Prepared:
    """Return the data with some parts of the split as training interactions, and encoders fitted on them.

    For `train` alone that is the data as split. Where the query entities are free features, the encoders of the query
    side stay as they are.

    Args:
        run: names the features.
        prepared: the data as split.
        parts: `train` and perhaps others; those are empty in the data returned.
    """
    if parts == prepared.fitted_on:
        return prepared
    nothing = prepared.parts["train"].take(np.zeros(0, np.int64))
    merged = {**prepared.parts, **dict.fromkeys(parts, nothing), "train": prepared.until(*parts)}
    if run.query.entity == "features":
        frequency = np.bincount(merged["train"].item_row, minlength=prepared.item_count)
        item_encoders = encoders.fit_items(run, prepared.items, frequency)
        query_encoders, query_codes = prepared.query_encoders, prepared.query_codes
    else:
        item_encoders, query_encoders = _fit_encoders(run, prepared.items, prepared.queries, merged["train"])
        query_codes = encoders.encode(query_encoders, prepared.queries, "query")
    return replace(
        prepared,
        parts=merged,
        item_encoders=item_encoders,
        query_encoders=query_encoders,
        item_codes=encoders.encode(item_encoders, prepared.items, "item"),
        query_codes=query_codes,
        fitted_on=parts,
        as_split=prepared,
    )


def reencoded(run: Run, prepared: Prepared) -> Prepared:
    """Return the same rows with the features of another run, whose encoders are fitted anew on the training part.

    Args:
        run: reads the same source and splits it alike; its query entities are no free features.
        prepared: the data as split.
    """
    item_encoders, query_encoders = _fit_encoders(run, prepared.items, prepared.queries, prepared.parts["train"])
    return replace(
        prepared,
        item_encoders=item_encoders,
        query_encoders=query_encoders,
        item_codes=encoders.encode(item_encoders, prepared.items, "item"),
        query_codes=encoders.encode(query_encoders, prepared.queries, "query"),
    )


def count_leaks(items: pa.Table, item_counts: Int64) -> Iterator[str]:
    """Yield a sentence for each numeric item column that orders the items nearly as their interactions do.

    Args:
        items: the catalog, raw.
        item_counts: `[items]`, int64, interactions of each item, those of all parts.
    """
    for name in items.column_names:
        correlation = 0.0 if name == ITEM_ID else count_correlation(name, items[name], item_counts)
        if abs(correlation) > LEAK_CORRELATION:
            yield (
                f"The item column {name!r} orders the items as their number of interactions does (rank "
                f"correlation {correlation:.3f}): was it counted from this data, its test part included?"
            )


def count_correlation(name: str, values: pa.ChunkedArray, counts: Int64) -> float:
    """Return Spearman's rank correlation of a numeric column with counts, -1..1; 0 for others and few distinct values.

    Args:
        name: of the column, for messages.
        values: `[rows]`.
        counts: `[rows]`, int64.
    """
    kind = plain_type(values.type)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return 0.0
    numbers = Spelling.of(name, kind).numbers(values)
    frame = pl.DataFrame({"value": numbers, "count": counts}).filter(pl.col("value").is_not_nan())
    if min(frame["value"].n_unique(), frame["count"].n_unique()) < LEAST_DISTINCT:
        return 0.0
    return float(frame.select(pl.corr("value", "count", method="spearman")).item())


def parts_to_judge(run: Run, prepared: Prepared) -> tuple[str, ...]:
    """Return the parts of the split that a model is fitted on before its test, as `training.refit` says."""
    if run.training.refit == "none" or not len(prepared.parts["validation"]):
        return ("train",)
    return ("train", "validation")


def parts_in_words(parts: Sequence[str]) -> str:
    """Return the names of parts of the split as an adjective of rows, such as `training and validation`."""
    words = ["training" if part == "train" else part for part in parts]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _fit_encoders(
    run: Run, items: pa.Table, queries: pa.Table, train: Interactions
) -> tuple[dict[str, Encoder], dict[str, Encoder]]:
    """Return the fitted features of the item side and of the query side."""
    item_frequency = np.bincount(train.item_row, minlength=items.num_rows)
    query_frequency = np.bincount(train.query_row, minlength=queries.num_rows)
    if run.query.entity == "item" and run.training.share_tables:
        # One table serves both sides, so an id that was met on either has a vector of its own.
        item_frequency = query_frequency = item_frequency + query_frequency
    item_encoders = encoders.fit_items(run, items, item_frequency)
    return item_encoders, encoders.fit_queries(run, queries, query_frequency, items, item_frequency)


def _examples(queries: pa.Table) -> pa.Table:
    """Return the first rows that have a value: a query without any is answered by popularity.

    Raises:
        DataError: none has.
    """
    nothing = np.all([missing_rows(column) for column in queries.columns], axis=0)
    if nothing.all():
        got = verbatim(f"no value in {', '.join(queries.column_names)}")
        raise DataError(describe("query.features", got, "interactions with at least one"))
    return queries.take(pa.array(np.flatnonzero(~nothing)[:EXAMPLES]))


def rows_before_cut(prepared: Prepared) -> Interactions:
    """Return the training part of the split as a whole, whatever `data.training_rate` leaves of it."""
    return (prepared.as_split or prepared).until("train", UNUSED)


def excludes_seen(run: Run, prepared: Prepared) -> bool:
    """Return whether rankings leave out what a query entity has met: `evaluation.exclude_seen`, or what the data say.

    Where the run leaves it to the data, the training part of the split decides. Queries of free features are no
    entities that come back.
    """
    if run.evaluation.exclude_seen is not None:
        return run.evaluation.exclude_seen
    return run.query.entity != "features" and not is_repeat_consumption(rows_before_cut(prepared))


def check_cases(run: Run, prepared: Prepared) -> None:
    """Refuse data whose test part asks for nothing that may be shown.

    Raises:
        DataError: it is empty, or holds only what may not be shown.
    """
    asked = prepared.positives("test")
    if excludes_seen(run, prepared):
        asked = asked.without(prepared.positives("train", "validation"))
    own = asked.owners == asked.rows if run.query.entity == "item" else np.zeros(len(asked.rows), bool)
    if own.all():
        advice = "Give more data, or hold out more of it."
        raise DataError(describe("split", verbatim("no test case"), "at least one", advice))


def _thinned(train: Interactions, rate: float, seed: int) -> tuple[Interactions, Interactions]:
    """Return a share (0..1) of the training interactions, drawn at random, and the others."""
    is_kept = np.ones(len(train), bool)
    if rate < 1:
        kept = round(rate * len(train))
        is_kept[:] = False
        is_kept[np.random.default_rng([seed, 7]).choice(len(train), kept, replace=False, shuffle=False)] = True
    return train.take(is_kept), train.take(~is_kept)


def check_columns(run: Run, raw: RawData) -> None:
    """Refuse columns that the release would give a second meaning, and metadata that the items lack.

    Raises:
        DataError: there is such a column, or no such one.
    """
    tables = (("items", raw.items, TRAINING_COUNT), ("users", raw.queries, HISTORY))
    for name, table, reserved in tables:
        if table is not None and reserved in table.column_names:
            advice = "Rename the column."
            raise DataError(describe(f"source.{name}", reserved, "no such column: a release has its own", advice))
    for column in run.item.metadata:
        if column not in raw.items.column_names:
            raise DataError(f"item.metadata: {unknown('column', column, raw.items.column_names)}")


def read_interactions(run: Run, raw: RawData, watch: Callable[[pa.RecordBatch], None] = lambda batch: None) -> Usable:
    """Return the interactions of a source whose ids are known; the others count as broken rows.

    Args:
        run: says what queries are.
        raw: the source.
        watch: sees every batch as the source gives it.

    Raises:
        DataError: the source has not one item or interaction, or its files are damaged.
    """
    item_ids = raw.items[ITEM_ID].combine_chunks()
    if len(item_ids) == 0:
        raise DataError(describe("source.items", verbatim("no usable item"), "at least one", raw.rejects.summary))
    free = run.query.entity == "features"
    known = item_ids if run.query.entity == "item" else None if raw.queries is None else raw.queries[QUERY_ID]
    rows_of: dict[str, int] = {} if known is None else {value: row for row, value in enumerate(known.to_pylist())}
    table_rows = len(rows_of)
    wanted = _context_columns(run)
    columns: dict[str, list[np.ndarray]] = {"query_row": [], "item_row": [], "timestamp": [], "weight": []}
    contexts: list[pa.RecordBatch] = []
    total, names = 0, []
    item_join, query_join = _Join("items", item_ids[0].as_py()), _Join("items", item_ids[0].as_py())
    with task("read interactions", unit="rows") as running:
        for batch in raw.interactions():
            if not free and QUERY_ID not in batch.schema.names:
                rule = "'features' where the interactions name no query"
                raise DataError(describe("query.entity", run.query.entity, rule, "Or set source.query_column."))
            watch(batch)
            total, names = total + batch.num_rows, batch.schema.names
            item_row = pc.index_in(batch[ITEM_ID], value_set=item_ids)
            kept = item_row.is_valid()
            item_join.add(batch[ITEM_ID], kept)
            if run.query.entity == "item":
                is_item = pc.is_in(batch[QUERY_ID], value_set=item_ids)
                query_join.add(batch[QUERY_ID], is_item)
                kept = pc.and_(kept, is_item)
            if missing := batch.num_rows - pc.sum(kept, min_count=0).as_py():
                ids = batch.select([name for name in (QUERY_ID, ITEM_ID) if name in batch.schema.names])
                strange = ids.filter(pc.invert(kept)).slice(0, raw.rejects.kept_examples).to_pylist()
                places = (f"interaction {row}; the items have {item_ids[0].as_py()!r}" for row in strange)
                raw.rejects.add_all(UNKNOWN_ID, missing, places)
                batch, item_row = batch.filter(kept), item_row.filter(kept)
            columns["item_row"].append(item_row.cast(pa.int32()).to_numpy(zero_copy_only=False))
            if free:
                contexts.append(_context(batch, wanted))
            else:
                columns["query_row"].append(_rows(batch[QUERY_ID], rows_of))
            for name, kind in ((TIMESTAMP, pa.int64()), (WEIGHT, pa.float32())):
                if name in batch.schema.names:
                    columns[name].append(batch[name].cast(kind).to_numpy(zero_copy_only=False))
            running.advance(batch.num_rows)
    if total == 0:
        raise DataError(describe("source", verbatim("no usable interaction"), "at least one", raw.rejects.summary))
    rows_read = total + raw.rejects.total - raw.rejects.counts.get(UNKNOWN_ID, 0)
    arrays = {name: np.concatenate(chunks) if chunks else None for name, chunks in columns.items()}
    if free:
        arrays["query_row"] = np.arange(len(arrays["item_row"]), dtype=np.int32)
        queries = pa.Table.from_batches(contexts)
    else:
        queries = _all_queries(raw.queries, list(rows_of))
        if run.query.entity == "user" and raw.queries is not None:
            query_join = _Join.of_users(list(rows_of), table_rows, arrays["query_row"])
    interactions = Interactions(**arrays).in_order()
    warnings = (
        *item_join.warnings(),
        *query_join.warnings(),
        *_time_warnings(raw, interactions),
        *_weight_warnings(interactions),
    )
    return Usable(interactions, queries, tuple(names), rows_read, warnings)


@dataclass
class _Join:
    """How many of the ids that interactions name are in a table.

    Attributes:
        table: its name.
        known: one of its ids; None where it has none.
        count: ids looked up.
        missing_count: those that it lacks.
        stranger: the first of them.
    """

    table: str
    known: str | None
    count: int = 0
    missing_count: int = 0
    stranger: str | None = None

    @classmethod
    def of_users(cls, ids: list[str], table_rows: int, query_row: Int32) -> _Join:
        """Return the join of the users' table, whose ids come first, with the entities that were met."""
        met = np.bincount(query_row, minlength=len(ids)) > 0
        known, stranger = (next(iter(each), None) for each in (ids[:table_rows], ids[table_rows:]))
        return cls("users", known, int(met.sum()), int(met[table_rows:].sum()), stranger)

    def add(self, ids: pa.Array, known: pa.Array) -> None:
        """Count some interactions."""
        self.count += len(ids)
        missing = ids.filter(pc.invert(known))
        self.missing_count += len(missing)
        if self.stranger is None and len(missing):
            self.stranger = missing[0].as_py()

    def warnings(self) -> Iterator[str]:
        """Yield a sentence where less than half was found."""
        if self.missing_count > self.count / 2:
            what = "query entities" if self.table == "users" else "interactions"
            has = "it has no row" if self.known is None else f"it has {self.known!r}"
            yield (
                f"The {self.table} table lacks the ids of {self.missing_count:,} of {self.count:,} {what}: they name "
                f"{self.stranger!r}, {has}. Are the ids written alike in both files?"
            )


def _weight_warnings(interactions: Interactions) -> Iterator[str]:
    weight = interactions.weight
    if weight is not None and len(weight) and weight.max() > UNEVEN_WEIGHTS * weight.min():
        yield (
            f"The interactions' weights lie between {weight.min():.3g} and {weight.max():.3g}: training will follow "
            "the heaviest interactions alone. Look for outliers in the weight column, or take its logarithm."
        )


def _time_warnings(raw: RawData, interactions: Interactions) -> Iterator[str]:
    suspects = raw.rejects.suspects
    for reason, count in suspects.counts.items():
        example = suspects.examples[reason][0]
        yield (
            f"{count:,} times are {reason}, such as {example}. Numbers count from 1970; write dates as 2026-01-31, all "
            "times of a column in one unit, and leave missing ones empty."
        )
    times = interactions.timestamp
    if times is not None and len(times) > 1 and times.min() == times.max():
        yield (
            f"All interactions have the same time ({iso(times[0])}), which tells no earlier from a later one. Use "
            "split.kind = 'random' and no source.timestamp_column."
        )


def iso(microseconds: np.int64) -> str:
    """Return a time in ISO 8601, UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))).isoformat()


def _rows(ids: pa.Array, rows_of: dict[str, int]) -> Int32:
    encoded = ids.dictionary_encode()
    of_distinct = np.fromiter(
        (rows_of.setdefault(value, len(rows_of)) for value in encoded.dictionary.to_pylist()),
        np.int32,
        len(encoded.dictionary),
    )
    return of_distinct[encoded.indices.to_numpy(zero_copy_only=False)]


def _context_columns(run: Run) -> list[str]:
    """Return the columns of the interactions that the run's query features read."""
    if run.query.entity != "features":
        return []
    return [encoders.raw_column(feature, name, "query") for name, feature in run.query_features.items()]


def _context(batch: pa.RecordBatch, wanted: list[str]) -> pa.RecordBatch:
    names = [name for name in dict.fromkeys(wanted) if name in batch.schema.names]
    columns = [batch[name] for name in names]
    encoded = [column.dictionary_encode() if pa.types.is_string(column.type) else column for column in columns]
    return pa.RecordBatch.from_arrays(encoded, names=names)


def _all_queries(queries: pa.Table | None, ids: list[str]) -> pa.Table:
    """Return the query table with a row, all null, for each entity that only the interactions know."""
    met = pa.table({QUERY_ID: pa.array(ids, pa.string())})
    if queries is None:
        return met
    extra = met.slice(queries.num_rows)
    return pa.concat_tables([queries, extra], promote_options="default")


def _is_whole(folder: Path, digest: str) -> bool:
    """Tell whether the folder holds every file of these settings and data, at its full size."""
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        has_parts = all(f"{part}.item_row.npy" in contents["sizes"] for part in STORED_PARTS)
        return contents["digest"] == digest and has_parts and contents["sizes"] == _sizes(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CONTENTS)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _save(prepared: Prepared, folder: Path, digest: str) -> None:
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    feather.write_feather(prepared.items, building / "items.arrow", compression="zstd")
    feather.write_feather(prepared.queries, building / "queries.arrow", compression="zstd")
    for part, interactions in prepared.parts.items():
        for name, values in vars(interactions).items():
            if values is not None:
                save_array(building / f"{part}.{name}.npy", values)
    for side, fitted, codes in (
        ("item", prepared.item_encoders, prepared.item_codes),
        ("query", prepared.query_encoders, prepared.query_codes),
    ):
        encoders.save(fitted, building / side)
        for position, name in enumerate(sorted(fitted)):
            if name in codes:
                save_array(building / side / f"{position:04}.npy", codes[name])
    (building / "notice").write_text(prepared.notice, encoding="utf-8")
    (building / WARNINGS).write_text(json.dumps(prepared.warnings), encoding="utf-8")
    contents = {"digest": digest, "sizes": _sizes(building)}
    (building / CONTENTS).write_text(json.dumps(contents, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(building, folder)


def _load(folder: Path) -> Prepared:
    def array(path: Path) -> np.ndarray | None:
        return np.load(path, mmap_mode="r") if path.exists() else None

    def codes(side: str, fitted: Mapping[str, Encoder]) -> Codes:
        found = {name: array(folder / side / f"{position:04}.npy") for position, name in enumerate(sorted(fitted))}
        return {name: values for name, values in found.items() if values is not None}

    fields = ("query_row", "item_row", "timestamp", "weight")
    item_encoders, query_encoders = (encoders.load(folder / side) for side in ("item", "query"))
    return Prepared(
        items=feather.read_table(folder / "items.arrow"),
        queries=feather.read_table(folder / "queries.arrow"),
        parts={part: Interactions(*(array(folder / f"{part}.{name}.npy") for name in fields)) for part in STORED_PARTS},
        item_encoders=item_encoders,
        query_encoders=query_encoders,
        item_codes=codes("item", item_encoders),
        query_codes=codes("query", query_encoders),
        notice=(folder / "notice").read_text(encoding="utf-8"),
        warnings=tuple(json.loads((folder / WARNINGS).read_text(encoding="utf-8"))),
    )
