"""The data report: what a run's source holds, what is wrong with it, and what looks like a leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys import registry
from recsys.baselines import obstacle
from recsys.config import Run
from recsys.data import encoders
from recsys.data.decisions import decide
from recsys.data.encoders import raw_column
from recsys.data.hard_negatives import HardNegatives
from recsys.data.prepare import (
    UNKNOWN_ID,
    UNUSED,
    Usable,
    check_cases,
    check_columns,
    count_leaks,
    encode,
    iso,
    read_interactions,
    split,
)
from recsys.data.repeats import is_repeat_consumption, repeat_rate
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, WEIGHT, RawData
from recsys.spelling import Spelled, Spelling, is_list, missing_rows, plain_type, value_kind
from recsys.splits import history_at_evaluation
from recsys.types import Int32, Int64, Interactions
from twintower.errors import TwintowerError

MAX_DISTINCT = 1_000_000
SAMPLED_ROWS = 200_000
PIECE_ROWS = 65_536
EXAMPLES = 5
# Of two interactions with one value of a column, so many must agree in the item (by chance: at most half) to warn.
DETERMINED_RATE = 0.9
LEAST_EVIDENCE = 20

Side = Literal["item", "query"]


@dataclass(frozen=True)
class Column:
    """One column beside the ids.

    Attributes:
        side: whose column.
        name: as the source gives it.
        type: its Arrow type.
        read_by: the features of the run that read it.
        missing_count: rows without a value: null, NaN, or a list without any other value.
        missing_rate: their share (0..1) of the rows.
        distinct_count: different values, those inside lists counted one by one; None for vectors and nested values.
        is_at_least: more different values may exist than were counted.
        top_value: the most frequent value, as text.
        top_value_rate: its share (0..1) of all values.
    """

    side: Side
    name: str
    type: str
    read_by: tuple[str, ...]
    missing_count: int
    missing_rate: float
    distinct_count: int | None
    is_at_least: bool
    top_value: str | None
    top_value_rate: float


@dataclass(frozen=True)
class UnknownIds:
    """Ids that interactions name and the table of that side does not have.

    Attributes:
        side: the table.
        id_count: different unknown ids.
        interaction_count: interactions that name one.
        interaction_rate: their share (0..1).
        examples: some of the ids.
    """

    side: Side
    id_count: int
    interaction_count: int
    interaction_rate: float
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Concentration:
    """How unevenly the interactions fall on the items of the catalogue (power-law shape).

    Attributes:
        top_1_percent_rate: share (0..1) of the interactions that fall on the 1 % most frequent items, rounded up.
        top_10_percent_rate: the same for 10 %.
        gini: `sum_i (2 i - n - 1) x_i / (n sum_i x_i)` with counts x ascending, i from 1; 0 where all are equal, near 1
            where one item has all.
        max_per_item: interactions of the most frequent item.
        max_per_query: interactions of the most active query entity; None for free features.
        items_never_met: items of the catalogue without an interaction.
    """

    top_1_percent_rate: float
    top_10_percent_rate: float
    gini: float
    max_per_item: int
    max_per_query: int | None
    items_never_met: int


@dataclass(frozen=True)
class Rejected:
    """Rows set aside for one reason.

    Attributes:
        reason: what was wrong.
        count: rows.
        examples: some of them, as `file:line: value`.
    """

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `recsys data describe` reports; `dataclasses.asdict` of it is plain JSON.

    Attributes:
        run: the run's name.
        source: the kind of its source.
        entity: who asks: `user`, `item` or `features`.
        notice: what must be said wherever the data is named.
        query_count: query entities, of the table and of the interactions; None for free features.
        item_count: items of the catalogue.
        interaction_count: usable rows, those with unknown ids among them.
        distinct_pair_count: different pairs of query entity and item; None for free features.
        duplicate_count: interactions beyond the first of each pair; None for free features.
        repeat_rate: share (0..1) of the interactions whose entity has met the item earlier; None for free features.
        repeats: in words, whether entities come back to items, and what follows; empty for free features.
        decisions: sentences on what the run file leaves to the data; empty where training would stop.
        first_time: earliest time, ISO 8601 in UTC; None without times.
        last_time: latest time.
        concentration: how unevenly items are met.
        unknown_ids: by side, where there are any.
        columns: every column beside the ids.
        part_counts: interactions of each part under the run's split; empty where it cannot be made.
        history: in words, what the history of a query holds at evaluation; empty for free features.
        rejected: broken rows by reason, most frequent first; those with unknown ids stand in `unknown_ids`.
        problems: what stops training, as the errors with which `recsys train` would end.
        warnings: sentences on what looks wrong, though it can be trained on.
        baselines: the run's baselines: for each kind why it will be left out of the evaluation, or nothing.
    """

    run: str
    source: str
    entity: str
    notice: str
    query_count: int | None
    item_count: int
    interaction_count: int
    distinct_pair_count: int | None
    duplicate_count: int | None
    repeat_rate: float | None
    repeats: str
    decisions: tuple[str, ...]
    first_time: str | None
    last_time: str | None
    concentration: Concentration
    unknown_ids: tuple[UnknownIds, ...]
    columns: tuple[Column, ...]
    part_counts: dict[str, int]
    history: str
    rejected: tuple[Rejected, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    baselines: dict[str, str]


def describe_data(run: Run) -> Report:
    """Read a run's source once, make every check that training makes of its data, and report.

    Features are fitted and encoded as for training, so that this takes as much time and memory as preparing the data.

    Raises:
        DataError: the source cannot be read, or has not one item or interaction.
    """
    raw = run.source.read()
    met = _Met(run, raw)
    usable = read_interactions(run, raw, met.add)
    free = run.query.entity == "features"
    trial = _trial(run, raw, usable)
    parts = trial.parts
    interactions = met.interactions()
    columns = tuple(_columns(run, raw, met))
    counts = np.bincount(interactions.item_row, minlength=raw.items.num_rows)[: raw.items.num_rows]
    pairs = None if free else _distinct_pairs(interactions)
    times = interactions.timestamp
    return Report(
        run=run.name,
        source=registry.kind_of(run.source),
        entity=run.query.entity,
        notice=raw.notice,
        query_count=None if free else len(met.query_codes.ids),
        item_count=raw.items.num_rows,
        interaction_count=len(interactions),
        distinct_pair_count=pairs,
        duplicate_count=None if free else len(interactions) - pairs,
        repeat_rate=None if free else repeat_rate(interactions),
        repeats="" if free else _repeats(interactions),
        decisions=trial.decisions,
        first_time=None if times is None else iso(times.min()),
        last_time=None if times is None else iso(times.max()),
        concentration=_concentration(counts, None if free else int(np.bincount(interactions.query_row).max())),
        unknown_ids=tuple(met.unknown_ids()),
        columns=columns,
        part_counts={name: len(part) for name, part in parts.items() if len(part) or name != UNUSED},
        history="" if free else history_at_evaluation(run.split),
        rejected=tuple(
            Rejected(reason, count, tuple(raw.rejects.examples[reason]))
            for reason, count in sorted(raw.rejects.counts.items(), key=lambda entry: -entry[1])
            if reason != UNKNOWN_ID
        ),
        problems=trial.problems,
        warnings=(
            *usable.warnings,
            *_row_warnings(met),
            *_column_warnings(raw, columns),
            *_order_warnings(parts),
            *_length_warnings(run, interactions),
            *_leak_warnings(run, raw, met, interactions, counts),
        ),
        baselines={
            registry.kind_of(each): obstacle(
                each, not free, trial.shows_met, len(met.query_codes.ids), raw.items.num_rows
            )
            for each in run.evaluation.baselines
        },
    )


def render(report: Report, console: Console) -> None:
    """Print a report as tables."""
    console.print(f"[bold]{report.run}[/bold]: source {report.source}, query entity {report.entity}")
    if report.notice:
        console.print(escape(report.notice))
    shape = report.concentration
    overview = Table("what", "value", title="Counts")
    overview.columns[1].justify = "right"
    for what, value in (
        ("items", report.item_count),
        ("items never met", shape.items_never_met),
        ("query entities", report.query_count),
        ("interactions", report.interaction_count),
        ("distinct pairs", report.distinct_pair_count),
        ("repeated pairs", report.duplicate_count),
        ("most interactions of an item", shape.max_per_item),
        ("most interactions of a query entity", shape.max_per_query),
        *((f"interactions for {part}", count) for part, count in report.part_counts.items()),
    ):
        if value is not None:
            overview.add_row(what, f"{value:,}")
    overview.add_row("interactions of the top 1 % items", f"{shape.top_1_percent_rate:.1%}")
    overview.add_row("interactions of the top 10 % items", f"{shape.top_10_percent_rate:.1%}")
    overview.add_row("Gini coefficient of the items", f"{shape.gini:.3f}")
    if report.first_time:
        overview.add_row("first time", report.first_time)
        overview.add_row("last time", report.last_time)
    console.print(overview)
    if report.repeats:
        console.print(report.repeats)
    for sentence in report.decisions:
        console.print(f"Left to the data: {sentence}", markup=False, highlight=False)
    if report.history:
        console.print(f"History of a query at evaluation: {report.history}.")
    will_run = [kind for kind, reason in report.baselines.items() if not reason]
    console.print(f"Baselines of the evaluation: {', '.join(will_run) or 'none'}.")
    for kind, reason in report.baselines.items():
        if reason:
            console.print(f"The baseline {kind} will be left out: {reason}", markup=False, highlight=False)
    _render_columns(report, console)
    if report.unknown_ids:
        table = Table("side", "ids", "interactions", "share", "examples", title="Unknown ids")
        for found in report.unknown_ids:
            share, examples = f"{found.interaction_rate:.2%}", escape(", ".join(found.examples))
            table.add_row(found.side, f"{found.id_count:,}", f"{found.interaction_count:,}", share, examples)
        console.print(table)
    if report.rejected:
        table = Table("reason", "rows", "examples", title="Broken rows")
        for rejected in report.rejected:
            table.add_row(escape(rejected.reason), f"{rejected.count:,}", escape("\n".join(rejected.examples)))
        console.print(table)
    for problem in report.problems:
        console.print(f"[red]stops training[/red] {escape(problem)}", highlight=False)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", highlight=False)
    if not report.warnings and not report.problems:
        console.print("No warnings.")


def _render_columns(report: Report, console: Console) -> None:
    table = Table("side", "column", "type", "read by", "missing", "distinct", "most frequent", title="Columns")
    for column in report.columns:
        distinct = "" if column.distinct_count is None else f"{column.distinct_count:,}{'+' * column.is_at_least}"
        top = "" if column.top_value is None else f"{escape(column.top_value[:30])} ({column.top_value_rate:.1%})"
        missing, read_by = f"{column.missing_rate:.1%}", ", ".join(column.read_by)
        table.add_row(column.side, escape(column.name), escape(column.type), read_by, missing, distinct, top)
    console.print(table)


class _Codes:
    """Ids by the order in which they were met, those of a table first."""

    def __init__(self, known: Iterable[str]) -> None:
        self.ids = {value: row for row, value in enumerate(known)}
        self.known_count = len(self.ids)

    def of(self, values: pa.Array) -> Int32:
        """Return the codes, `[rows]`; new ids get the next ones."""
        encoded = values.dictionary_encode()
        of_distinct = np.fromiter(
            (self.ids.setdefault(value, len(self.ids)) for value in encoded.dictionary.to_pylist()),
            np.int32,
            len(encoded.dictionary),
        )
        return of_distinct[encoded.indices.to_numpy(zero_copy_only=False)]


class _ColumnCounts:
    """Missing and frequent values of one column, added up piece by piece."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.type = str(kind)
        self.rows = 0
        self.missing = 0
        self.is_at_least = False
        self.counts: Counter[str] | None = Counter() if _is_counted(kind) else None
        self._spelling = Spelling(name)

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        """Count some rows."""
        self.rows += len(values)
        self.missing += int(missing_rows(values).sum())
        if self.counts is None or self.missing == self.rows:
            return
        for start in range(0, len(values), PIECE_ROWS):
            _, spelled = self._spelling.spell_lists(values.slice(start, PIECE_ROWS))
            found = dict(
                zip(spelled.texts, np.bincount(spelled.rows, minlength=len(spelled.texts)).tolist(), strict=True)
            )
            if len(self.counts) + len(found) > MAX_DISTINCT:
                self.is_at_least = True
                found = {text: count for text, count in found.items() if text in self.counts}
            self.counts.update(found)


def _is_counted(kind: pa.DataType) -> bool:
    """Return whether a column's values can be compared: single ones, or those of lists that are no vectors."""
    lists = plain_type(kind)
    if not is_list(lists):
        return value_kind(lists) is not None
    is_vector = pa.types.is_fixed_size_list(lists) or pa.types.is_floating(lists.value_type)
    return not is_vector and value_kind(lists.value_type) is not None


class _Met:
    """The interactions as integer codes, with what only a pass over all rows can tell."""

    def __init__(self, run: Run, raw: RawData) -> None:
        self.entity = run.query.entity
        self.has_query_table = raw.queries is not None or self.entity == "item"
        item_ids = raw.items[ITEM_ID].to_pylist()
        self.item_codes = _Codes(item_ids)
        self.query_codes = _Codes(
            item_ids if self.entity == "item" else () if raw.queries is None else raw.queries[QUERY_ID].to_pylist()
        )
        self.context: dict[str, _ColumnCounts] = {}
        self.sample: list[pa.RecordBatch] = []
        self.count = 0
        self._sample_rate = 1.0
        self._sample_rows = 0
        self._random = np.random.default_rng(run.seed)
        self._columns: dict[str, list[np.ndarray]] = {"query": [], "item": [], TIMESTAMP: [], WEIGHT: []}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch."""
        self._columns["item"].append(self.item_codes.of(batch[ITEM_ID]))
        if self.entity == "features":
            rows = np.arange(self.count, self.count + batch.num_rows, dtype=np.int32)
            self._columns["query"].append(rows)
            self._add_context(batch)
        else:
            self._columns["query"].append(self.query_codes.of(batch[QUERY_ID]))
        for name, kind in ((TIMESTAMP, pa.int64()), (WEIGHT, pa.float32())):
            if name in batch.schema.names:
                self._columns[name].append(batch[name].cast(kind).to_numpy(zero_copy_only=False))
        self.count += batch.num_rows

    def interactions(self) -> Interactions:
        """Return all interactions, those with unknown ids among them, sorted by query and time."""
        return Interactions(
            *(np.concatenate(arrays) if arrays else None for arrays in self._columns.values())
        ).in_order()

    def unknown_ids(self) -> Iterable[UnknownIds]:
        """Yield what the tables lack."""
        sides = [("item", self.item_codes)]
        if self.has_query_table:
            sides.append(("query", self.query_codes))
        for side, codes in sides:
            number = sum(int((array >= codes.known_count).sum()) for array in self._columns[side])
            if number:
                ids = list(codes.ids)[codes.known_count :]
                yield UnknownIds(side, len(ids), number, number / self.count, tuple(ids[:EXAMPLES]))

    def _add_context(self, batch: pa.RecordBatch) -> None:
        names = [name for name in batch.schema.names if name not in (ITEM_ID, TIMESTAMP, WEIGHT, QUERY_ID)]
        for name in names:
            self.context.setdefault(name, _ColumnCounts(name, batch[name].type)).add(batch[name])
        self.sample.append(batch.select([ITEM_ID, *names]).filter(self._draw(batch.num_rows, self._sample_rate)))
        self._sample_rows += self.sample[-1].num_rows
        if self._sample_rows > 2 * SAMPLED_ROWS:
            self.sample = [each.filter(self._draw(each.num_rows, 0.5)) for each in self.sample]
            self._sample_rows = sum(each.num_rows for each in self.sample)
            self._sample_rate /= 2

    def _draw(self, rows: int, rate: float) -> pa.Array:
        return pa.array(self._random.random(rows) < rate)


def agreement(values: NDArray[np.integer], items: NDArray[np.integer]) -> tuple[float, float, int]:
    """Return how surely one value of a column goes with one item.

    `mean over rows of (c(value, item) - 1) / (c(value) - 1)`, over rows whose value occurs twice or more: the chance
    that another row with the same value has the same item. 1 exactly where the value determines the item; unlike an
    estimate of the conditional entropy it is not lowered by values that occur only a few times.

    Args:
        values: `[rows]`, codes of the column's values.
        items: `[rows]`, codes of the items.

    Returns:
        That chance (0..1), the same for two rows picked at random from all, and the number of rows counted.
    """
    stride = int(items.max(initial=0)) + 1
    pairs, pair_counts = np.unique(values.astype(np.int64) * stride + items, return_counts=True)
    value_counts = np.bincount(values)
    repeated = value_counts[pairs // stride]
    counted = repeated > 1
    rows = int(pair_counts[counted].sum())
    same = pair_counts[counted] * (pair_counts[counted] - 1) / (repeated[counted] - 1)
    item_counts = np.bincount(items).astype(np.float64)
    total = max(len(items), 2)
    chance = float((item_counts * (item_counts - 1)).sum() / (total * (total - 1)))
    return (float(same.sum() / rows) if rows else 0.0), chance, rows


def _columns(run: Run, raw: RawData, met: _Met) -> Iterable[Column]:
    tables: list[tuple[Side, Mapping[str, _ColumnCounts]]] = [("item", _counted(raw.items, ITEM_ID))]
    if run.query.entity == "features":
        tables.append(("query", met.context))
    elif raw.queries is not None:
        tables.append(("query", _counted(raw.queries, QUERY_ID)))
    for side, counted in tables:
        for name, counts in counted.items():
            top, top_count = (counts.counts.most_common(1) or [(None, 0)])[0] if counts.counts else (None, 0)
            yield Column(
                side=side,
                name=name,
                type=counts.type,
                read_by=_readers(run, side, name),
                missing_count=counts.missing,
                missing_rate=counts.missing / max(counts.rows, 1),
                distinct_count=None if counts.counts is None else len(counts.counts),
                is_at_least=counts.is_at_least,
                top_value=top,
                top_value_rate=top_count / max(counts.counts.total(), 1) if counts.counts else 0.0,
            )


def _counted(table: pa.Table, id_column: str) -> dict[str, _ColumnCounts]:
    found = {}
    for name in table.column_names:
        if name != id_column:
            found[name] = _ColumnCounts(name, table.schema.field(name).type)
            found[name].add(table[name])
    return found


def _readers(run: Run, side: Side, column: str) -> tuple[str, ...]:
    features = run.item.features if side == "item" else run.query_features
    return tuple(name for name, feature in features.items() if raw_column(feature, name, side) == column)


def _distinct_pairs(interactions: Interactions) -> int:
    keys = interactions.query_row.astype(np.int64) << 32 | interactions.item_row
    keys.sort()
    return 1 + int((keys[1:] != keys[:-1]).sum())


def _repeats(interactions: Interactions) -> str:
    """Return a sentence on repeat consumption, and on what it means for answers."""
    share = f"{repeat_rate(interactions):.1%} of the interactions come back to an item that the entity has met earlier"
    if is_repeat_consumption(interactions):
        counted = "how often" if interactions.timestamp is None else "how often and how lately"
        return f"Repeat consumption: {share}. Answers hold such items, and their scores count {counted} they were met."
    return f"No repeat consumption: {share}. Set exclude_seen in requests."


def _concentration(counts: Int64, max_per_query: int | None) -> Concentration:
    ascending = np.sort(counts)
    total, items = max(int(ascending.sum()), 1), len(ascending)
    one_percent, ten_percent = -(-items // 100), -(-items // 10)
    weights = 2 * np.arange(1, items + 1) - items - 1
    return Concentration(
        top_1_percent_rate=float(ascending[-one_percent:].sum() / total),
        top_10_percent_rate=float(ascending[-ten_percent:].sum() / total),
        gini=float(weights @ ascending / (items * total)),
        max_per_item=int(ascending[-1]),
        max_per_query=max_per_query,
        items_never_met=int((ascending == 0).sum()),
    )


class _Trial(NamedTuple):
    """What training does with the data before its first step.

    Attributes:
        parts: the parts of the split; empty where it fails.
        decisions: sentences on what the data decide.
        problems: errors that would stop training.
        shows_met: whether rankings may hold what an entity has met.
    """

    parts: dict[str, Interactions]
    decisions: tuple[str, ...]
    problems: tuple[str, ...]
    shows_met: bool


def _trial(run: Run, raw: RawData, usable: Usable) -> _Trial:
    """Do what training does with the data before its first step."""
    decisions: tuple[str, ...] = ()
    problems: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except TwintowerError as error:
            problems.append(str(error))

    parts: dict[str, Interactions] = {}
    with noted():
        check_columns(run, raw)
    with noted():
        raw.rejects.check(usable.rows_read, run.data.max_rejected_rate)
    with noted():
        parts = split(run, usable.interactions)
    with noted():
        prepared = encode(run, raw, usable, parts or {"train": usable.interactions})
        if parts:
            run, decisions = decide(run, prepared)
            check_cases(run, prepared)
            if run.objective.reads == "pairs" and (hard := run.objective.hard_negatives):
                HardNegatives.read(Path(hard.file), prepared, hard.per_query)
    shows_met = run.query.entity == "user" and not run.evaluation.exclude_seen
    return _Trial(parts, decisions, tuple(problems), shows_met)


def _row_warnings(met: _Met) -> Iterable[str]:
    for found in met.unknown_ids():
        if found.side == "item" or met.entity == "item":
            share = f"{found.interaction_rate:.1%} of the interactions"
            yield f"{share} name an item that the items lack; they cannot train."


def _column_warnings(raw: RawData, columns: tuple[Column, ...]) -> Iterable[str]:
    for column in columns:
        where = f"The {column.side} column {column.name!r}"
        if column.missing_rate == 1:
            yield f"{where} has no value at all."
        elif column.distinct_count == 1 and column.missing_count == 0:
            yield f"{where} has the same value everywhere."
    read = [column.name for column in columns if column.side == "item" and column.read_by]
    if read:
        bare = int(np.all([missing_rows(raw.items[name]) for name in read], axis=0).sum())
        if 0 < bare < raw.items.num_rows:
            yield f"{bare:,} items ({bare / raw.items.num_rows:.1%}) have no value in any column that the run reads."


def _order_warnings(parts: Mapping[str, Interactions]) -> Iterable[str]:
    if not parts or parts["train"].timestamp is None or not len(parts["test"]):
        return
    rate = float((parts["test"].timestamp < parts["train"].timestamp.max()).mean())
    if rate > 0:
        yield (
            f"{rate:.1%} of the test interactions happened before the latest training interaction: training sees "
            "their future. Split by_time for figures that hold in service."
        )


def _length_warnings(run: Run, interactions: Interactions) -> Iterable[str]:
    counts = np.bincount(interactions.query_row)
    entities = np.count_nonzero(counts)
    for name, feature in run.query_features.items():
        if encoders.reads_order(feature) and (longer := int((counts > feature.places).sum())):
            yield (
                f"query.features.{name}: {longer:,} of {entities:,} query entities have more interactions than the "
                f"{feature.places:,} newest ones that the transformer reads (transformer.positions)."
            )


def _leak_warnings(run: Run, raw: RawData, met: _Met, interactions: Interactions, item_counts: Int64) -> Iterable[str]:
    if run.query.entity == "item":
        same = float((interactions.query_row == interactions.item_row).mean())
        if same > 0:
            yield f"{same:.1%} of the interactions lead from an item to itself."
    else:
        sample = _sample(raw, met, interactions)
        for name in sample.column_names:
            if name != ITEM_ID and value_kind(sample[name].type) is not None:
                values, items = (Spelling(each).spell_column(sample[each]) for each in (name, ITEM_ID))
                yield from _determined(name, values, items, bool(_readers(run, "query", name)))
    yield from count_leaks(raw.items, item_counts)


def _sample(raw: RawData, met: _Met, interactions: Interactions) -> pa.Table:
    """Return sampled interactions with the query side's columns and the item id."""
    if met.sample:
        return pa.Table.from_batches(met.sample)
    if raw.queries is None or raw.queries.num_columns < 2:
        return pa.table({})
    usable = np.flatnonzero(interactions.query_row < raw.queries.num_rows)
    chosen = np.random.default_rng(0).choice(usable, min(SAMPLED_ROWS, len(usable)), replace=False)
    rows = raw.queries.drop_columns(QUERY_ID).take(pa.array(interactions.query_row[chosen]))
    ids = np.array(list(met.item_codes.ids), object)[interactions.item_row[chosen]]
    return rows.append_column(ITEM_ID, pa.array(ids.tolist(), pa.string()))


def _determined(name: str, values: Spelled, items: Spelled, is_read: bool) -> Iterable[str]:
    use = "" if is_read else " No feature of the run reads it."
    present = ~values.is_missing
    item_of_value = np.array([*map({text: row for row, text in enumerate(items.texts)}.get, values.texts), None], float)
    equal = float((item_of_value[values.rows] == items.rows).mean()) if len(items.rows) else 0.0
    if name.lower().replace("_", "") in ("itemid", "item"):
        yield f"The query column {name!r} is named like the item's id, which is the answer.{use}"
    if equal >= 0.5:
        yield f"The query column {name!r} equals the item id in {equal:.1%} of the interactions: it is the answer.{use}"
        return
    found, chance, rows = agreement(values.rows[present], items.rows[present])
    if rows >= LEAST_EVIDENCE and found >= DETERMINED_RATE and chance <= 0.5:
        yield (
            f"The query column {name!r} determines the item: of two interactions with the same value, {found:.1%} have "
            f"the same item (by chance {chance:.1%}).{use}"
        )
