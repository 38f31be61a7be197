"""Items that were added, replaced or removed since a release was written, searched beside it."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys import registry
from recsys.data import encoders
from recsys.data.filterable import filter_type
from recsys.errors import DataError
from recsys.export.own_items import OwnItems
from recsys.export.run_file import read_served
from recsys.indexes import ExactSearcher, Searcher
from recsys.retrieval.filtering import FiltersOfParts, ItemFilters
from recsys.retrieval.merging import first_kept, merged
from recsys.retrieval.plain_rows import plain_rows
from recsys.retrieval.retriever import Retriever
from recsys.spelling import Spelling, is_list, plain_type, read_time, read_time_of_day
from recsys.types import ITEM_ID, NO_ROW, TRAINING_COUNT, Bool, Float32, Int32, ItemRoles, Neighbours
from twintower.errors import RequestError, unknown
from twintower.spelling import DIGITS, Number, exact, is_column_number
from twintower.types import FilterType, Query

SPARE = 8
"""Results that are fetched besides where some of them may be hidden."""
FEW = 1024
"""Rows of side items that are made at once, and that may be out of date before they are written together anew."""
SPELLING = Spelling("metadata")
"""Of values in columns of text."""
TABLES = 64
"""Tables of side items, one for each change, that become one when there are more."""


@dataclass(frozen=True)
class Change:
    """What becomes of one item.

    Attributes:
        item_id: of the item.
        vector: `[dim]`, float32, finite; None removes the item.
        metadata: its columns by name; values that do not fit the release's column count as missing.
        features: raw values that `vector` was made from; None where it was given.
        forgotten: undo all changes of the item: it is what the release says of it.
    """

    item_id: str
    vector: Float32 | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None
    forgotten: bool = False


class LiveItems:
    """A release's items with changes. `retriever` answers from all that was applied.

    The release's vectors and index stay as they are. A changed item gets a row after them, in a side segment that is
    searched exactly until it is large; the row that it had before is hidden. A retriever is never changed: each
    `apply` makes the next one, which shares all that is large, so that a call keeps the state that it began with.

    One thread applies at a time; any number may read `retriever`.

    Args:
        retriever: over the release.
        index_above: side items that are searched exactly; more get an index, built in the background.
    """

    def __init__(self, retriever: Retriever, *, index_above: int = 10_000) -> None:
        self.retriever = self._base = retriever
        self._index_above = index_above
        self._first = len(retriever._item_ids)
        self._rows: Mapping[str, int | None] = {}
        self._asked: Mapping[str, Query] = {}
        self._hidden = np.zeros(self._first, bool)
        self._side = _Side.empty(retriever)
        self._index: tuple[Searcher, int] | None = None
        self._building: threading.Thread | None = None
        self._swapping = threading.Lock()

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.retriever._row_of_item

    def __len__(self) -> int:
        return self._first - int(self._hidden.sum()) + self.upserted_count

    @property
    def upserted_count(self) -> int:
        """Items that were added or replaced and not removed again."""
        return sum(row is not None for row in self._rows.values())

    @property
    def deleted_count(self) -> int:
        """Items of the release that were removed."""
        return sum(row is None and item_id in self._base._row_of_item for item_id, row in self._rows.items())

    def check(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Compare metadata of changes with the columns of the release's items.

        Args:
            metadata: of each item.

        Raises:
            RequestError: no such column, or a value that it cannot hold; `field` begins with `items[i].`.
        """
        made = (ITEM_ID, TRAINING_COUNT)
        types = {column.name: column.type for column in self._base._items.schema if column.name not in made}
        values: dict[str, list[tuple[int, Any]]] = {}
        for place, each in enumerate(metadata):
            for name, value in each.items():
                if name not in types:
                    raise RequestError(f"items[{place}].metadata.{name}", unknown("item column", name, types))
                if value is not None:
                    values.setdefault(name, []).append((place, value))
        for name, given in values.items():
            lost = typed([value for _, value in given], types[name]).is_null().to_numpy(zero_copy_only=False)
            for (place, value), missing in zip(given, lost, strict=True):
                if missing:
                    raise RequestError(f"items[{place}].metadata.{name}", f"got {value!r}, expected {types[name]}")

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the next `retriever`, which knows of these changes, later ones over earlier ones."""
        changes = list({change.item_id: change for change in changes}.values())
        with self._swapping:
            rows, hidden, side = dict(self._rows), self._hidden.copy(), self._side.copy()
            asked = dict(self._asked)
            for change in changes:
                own = self._base._row_of_item.get(change.item_id)
                before = rows.pop(change.item_id, None)
                if before is not None:
                    side.hidden[before - self._first] = True
                if own is not None:
                    hidden[own] = not change.forgotten
                asked.pop(change.item_id, None)
                if not change.forgotten:
                    rows[change.item_id] = None
            added = [change for change in changes if change.vector is not None and not change.forgotten]
            counts = [self._count(change.item_id) for change in added]
            described = {change.item_id: self._as_query(change) for change in added if change.features is not None}
            query_side = self._query_side(added, described)
            for change, row in zip(added, side.append(added, query_side, counts), strict=True):
                rows[change.item_id] = self._first + row
            asked.update(described)
            self._rows, self._hidden, self._side, self._asked = rows, hidden, side, asked
            if side.hidden.sum() > max(FEW, side.count // 2):
                self._tidy()
            self._renew()
        self._index_if_large()

    def wait(self) -> None:
        """Wait until an index that is being built stands."""
        if self._building is not None:
            self._building.join()

    def _renew(self) -> None:
        base, side = self._base, self._side
        segments = [Segment(base._searcher, self._hidden)]
        indexed = 0
        if self._index is not None:
            searcher, indexed = self._index
            segments.append(Segment(searcher, side.hidden[:indexed], self._first))
        if side.count > indexed:
            tail = ExactSearcher(side.vectors[indexed : side.count])
            segments.append(Segment(tail, side.hidden[indexed:], self._first + indexed))
        self.retriever = ChangedRetriever(base, self._rows, self._asked, self._hidden, side, segments)

    def _tidy(self) -> None:
        """Write the side segment anew without hidden rows."""
        self._side, places = self._side.without_hidden()
        new = np.full(len(places) and int(places.max()) + 1, NO_ROW)
        new[places] = np.arange(len(places))
        self._rows = {
            item_id: None if row is None else self._first + int(new[row - self._first])
            for item_id, row in self._rows.items()
        }
        self._index = None

    def _index_if_large(self) -> None:
        tail = self._side.count - (self._index[1] if self._index else 0)
        if tail > self._index_above and (self._building is None or not self._building.is_alive()):
            self._building = threading.Thread(target=self._build, name="index-live-items", daemon=True)
            self._building.start()

    def _build(self) -> None:
        side = self._side
        count = side.count
        with tempfile.TemporaryDirectory() as folder:
            vectors = side.vectors[:count]
            index = registry.build("indexes", _index_table(self._base), "index")
            index.build(vectors, Path(folder))
            searcher = index.load(Path(folder), vectors)
        with self._swapping:
            # Rows that were written anew meanwhile are not those that were indexed.
            if self._side.generation == side.generation:
                self._index = (searcher, count)
                self._renew()

    def _count(self, item_id: str) -> int:
        row = self._base._row_of_item.get(item_id)
        return 0 if row is None else self._base._items[TRAINING_COUNT][row].as_py()

    def _query_side(self, changes: Sequence[Change], described: Mapping[str, Query]) -> Float32:
        """Return what having met each changed item means for a query, `[changes, dim]`.

        Where items are query entities: their own queries, as far as features describe them. An item that the query
        tower has a history vector for keeps it. The others get what the release's map makes of their vectors.
        """
        base = self._base
        if not changes:
            return np.zeros((0, base._vectors.shape[1]), np.float32)
        vectors = np.stack([change.vector for change in changes]).astype(np.float32) @ base._query_side.map
        for place, change in enumerate(changes):
            row = base._row_of_item.get(change.item_id)
            if base._entity == "item" and change.item_id in described:
                vectors[place] = base.encode([described[change.item_id]]).vectors[0]
            elif base._reads_items and row is not None and row not in base._never_met:
                vectors[place] = base._roles.query_side[row]
        return vectors

    def _as_query(self, change: Change) -> Query:
        known = self._base.release.facts.query_columns
        features = {name: value for name, value in (change.features or {}).items() if name in known}
        return Query(entity_id=change.item_id, features=features)


class Segment:
    """Some of the items, with a searcher of their own, and some of them hidden.

    Args:
        searcher: over the segment's items.
        hidden: `[items]` of the segment; not changed afterwards.
        first: the row of its first item.
    """

    def __init__(self, searcher: Searcher, hidden: Bool, first: int = 0) -> None:
        self._searcher, self._hidden, self._first = searcher, hidden, first
        self._hidden_count = int(hidden.sum())

    def search(self, queries: Float32, k: int, *, effort: float = 1.0, effort_k: int = 0) -> Neighbours:
        """Return the k best items of each query that are not hidden; `NO_ROW` where there are fewer.

        Where hidden ones stand in the way, deeper searches follow until there are k.
        """
        items = len(self._hidden)
        enough = min(k, items - self._hidden_count)
        most = min(k + self._hidden_count, items)
        depth = k + (SPARE + math.ceil(2 * k * self._hidden_count / items) if self._hidden_count else 0)
        while True:
            depth = min(depth, most)
            found = self._searcher.search(queries, max(depth, 1), effort=effort, effort_k=effort_k)
            kept = (found.item_rows != NO_ROW) & ~self._hidden[found.item_rows]
            if depth == most or (kept.sum(axis=1) >= enough).all():
                break
            depth *= 2
        best = first_kept(found, kept, k) if self._hidden_count or found.item_rows.shape[1] != k else found
        if self._first == 0:
            return best
        return Neighbours(np.where(best.item_rows == NO_ROW, NO_ROW, best.item_rows + self._first), best.scores)

    def tuned(self, settings: Mapping[str, Any]) -> Segment:
        """Return the same items searched with other settings, as every `Searcher` does."""
        return Segment(self._searcher.tuned(settings), self._hidden, self._first)


class Segments:
    """Several segments as one searcher.

    Args:
        parts: at least one, the first one's rows first.
    """

    def __init__(self, parts: Sequence[Segment]) -> None:
        self._parts = parts

    def search(self, queries: Float32, k: int, *, effort: float = 1.0, effort_k: int = 0) -> Neighbours:
        """Return the k best items of each query, as every `Searcher` does."""
        found = [part.search(queries, k, effort=effort, effort_k=effort_k) for part in self._parts]
        return found[0] if len(found) == 1 else merged(found, k)

    def tuned(self, settings: Mapping[str, Any]) -> Segments:
        """Return the same with other settings of the first segment's searcher: the others are small."""
        first, *others = self._parts
        return Segments([first.tuned(settings), *others])


class ChangedRetriever(Retriever):
    """Answers from a release with changes; made by `LiveItems`."""

    def __init__(
        self,
        base: Retriever,
        rows: Mapping[str, int | None],
        asked: Mapping[str, Query],
        hidden: Bool,
        side: _Side,
        segments: Sequence[Segment],
    ) -> None:
        vars(self).update(vars(base))
        for computed in ("_items", "_shown", "_popular", "_shown_count", "_filters", "_narrowed", "_exactly"):
            vars(self).pop(computed, None)
        self._tuned = {}
        self._base, self._hidden, self._side = base, hidden, side
        self._side_count = side.count
        self._row_of_item = Overlaid(base._row_of_item, rows)
        self._item_ids = side.ids[: len(hidden) + side.count]
        self._vectors = TwoParts(base._vectors, side.vectors[: side.count])
        self._roles = ItemRoles(self._vectors, TwoParts(base._roles.query_side, side.query_side[: side.count]))
        self._searcher = Segments(segments)
        if self._entity == "item":
            self._row_of_query = Overlaid(base._row_of_query, asked)

    @property
    def metadata_bytes(self) -> float:
        """The mean size of the display columns of an item of the release, in bytes."""
        return self._base.metadata_bytes

    def metadata(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the display columns of items; an empty dictionary for an unknown id."""
        first = len(self._hidden)
        rows = {item_id: self._row_of_item.get(item_id, NO_ROW) for item_id in item_ids}
        own = [item_id for item_id, row in rows.items() if NO_ROW < row < first]
        shown = dict(zip(own, self._base.metadata(own), strict=True))
        shown |= {item_id: self._side.shown[row - first] for item_id, row in rows.items() if row >= first}
        return [shown.get(item_id, {}) for item_id in item_ids]

    @cached_property
    def _items(self) -> pa.Table:
        """The catalogue with one row for each item row, hidden ones too."""
        return pa.concat_tables([self._base._items, *self._side.tables])

    def _current(self, rows: Int32) -> Int32:
        """Return the rows that items of the release have now, ascending; none for items that were removed."""
        is_changed = self._hidden[rows]
        if not is_changed.any():
            return rows
        # Rows of the side segment come after all rows of the release.
        return np.concatenate([rows[~is_changed], np.sort(self._rows(self._item_ids[rows[is_changed]].tolist()))])

    def _current_own(self, own: OwnItems) -> OwnItems:
        if not self._hidden[own.rows].any():
            return own
        rows = np.array([self._row_of_item.get(item_id, NO_ROW) for item_id in self._item_ids[own.rows]], np.int32)
        order = np.argsort(rows)
        return OwnItems(rows[order], own.scores[order]).where(rows[order] != NO_ROW)

    def _outside_history(self, rows: Sequence[int]) -> Set[int]:
        first = len(self._hidden)
        added = [row for row in rows if row >= first]
        if not added:
            return super()._outside_history(rows)
        is_met = encoders.in_histories(self._encoders, self._item_ids[added].tolist())
        outside = {row for row, each in zip(added, is_met.tolist(), strict=True) if not each}
        return outside | super()._outside_history(rows)

    @cached_property
    def _all_hidden(self) -> Bool:
        """Rows that are out of date or removed, `[items]`."""
        return np.concatenate([self._hidden, self._side.hidden[: self._side_count]])

    @cached_property
    def _shown_count(self) -> int:
        return int(np.count_nonzero(~self._all_hidden))

    @cached_property
    def _filters(self) -> FiltersOfParts:
        return FiltersOfParts([self._base._filters, *self._side.filters], self._all_hidden)

    @cached_property
    def _exactly(self) -> Retriever:
        side = ExactSearcher(self._side.vectors[: self._side_count])
        hidden = self._all_hidden[len(self._hidden) :]
        parts = [Segment(ExactSearcher(self._base._vectors), self._hidden)]
        parts += [Segment(side, hidden, len(self._hidden))] if self._side_count else []
        return self._twin(Segments(parts))

    @cached_property
    def _popular(self) -> tuple[np.ndarray, Float32]:
        counts = self._items[TRAINING_COUNT].to_numpy()
        # Nearly in order, which the stable sort is quick with.
        order = np.concatenate([self._base._popular[0], np.arange(len(self._hidden), len(counts))])
        order = order[~self._all_hidden[order]]
        order = order[np.argsort(-counts[order], kind="stable")]
        total = int(self._base._items[TRAINING_COUNT].to_numpy().sum())
        return order, (counts[order] / max(total, 1)).astype(np.float32)


class Overlaid(Mapping):
    """A mapping with changes over it; None removes a key.

    Args:
        below: stays as it is.
        changes: over it.
    """

    def __init__(self, below: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        self._below, self._changes = below, changes

    def __getitem__(self, key: str) -> Any:
        value = self._changes[key] if key in self._changes else self._below[key]
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._below if key not in self._changes)
        yield from (key for key, value in self._changes.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class TwoParts:
    """Rows of two matrices as those of one.

    Args:
        first: `[items, dim]`.
        second: `[more, dim]`.
    """

    def __init__(self, first: Float32, second: Float32) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), first.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray, axis: int = 0) -> Float32:
        """Return some of the rows, as the method of an array does."""
        del axis
        return self[rows]

    def __getitem__(self, rows: Any) -> Float32:
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        later = rows >= len(self._first)
        found = np.asarray(self._first[np.where(later, 0, rows)])
        if later.any():
            found = np.array(found)
            found[later] = self._second[rows[later] - len(self._first)]
        return found


class _Side:
    """The rows of changed items, in arrays with room for more: what stands there never changes.

    Attributes:
        ids: ids of all item rows, those of the release first.
        vectors: `[room, dim]`, float32.
        query_side: `[room, dim]`, float32; see `ItemRoles`.
        count: rows that are taken.
        hidden: `[count]`, rows that are out of date.
        shown: display columns of each row.
        tables: all columns, `count` rows together.
        filters: of each table.
        generation: another one after the rows were numbered anew.
    """

    def __init__(
        self, base: Retriever, ids: np.ndarray, vectors: Float32, query_side: Float32, generation: int
    ) -> None:
        self._base = base
        self.ids, self.vectors, self.query_side, self.generation = ids, vectors, query_side, generation
        self.count = 0
        self.hidden = np.zeros(0, bool)
        self.shown: list[dict[str, Any]] = []
        self.tables: tuple[pa.Table, ...] = ()
        self.filters: tuple[ItemFilters, ...] = ()

    @classmethod
    def empty(cls, base: Retriever, generation: int = 0) -> _Side:
        nothing = np.zeros((0, base._vectors.shape[1]), np.float32)
        return cls(base, base._item_ids, nothing, nothing, generation)

    def copy(self) -> _Side:
        """Return one that may be appended to: it shares what stands there."""
        other = _Side(self._base, self.ids, self.vectors, self.query_side, self.generation)
        other.count, other.hidden = self.count, self.hidden.copy()
        other.shown, other.tables, other.filters = self.shown, self.tables, self.filters
        return other

    def append(self, changes: Sequence[Change], query_side: Float32, counts: Sequence[int]) -> range:
        """Take new rows for changed items and return them."""
        if not changes:
            return range(0)
        vectors = np.array([change.vector for change in changes], np.float32)
        ids = [each.item_id for each in changes]
        return self._take(ids, vectors, query_side, _columns(self._base, changes, counts))

    def without_hidden(self) -> tuple[_Side, np.ndarray]:
        """Return one with only the rows that count, and which they were."""
        places = np.flatnonzero(~self.hidden)
        other = _Side.empty(self._base, self.generation + 1)
        first = len(self._base._item_ids)
        table = pa.concat_tables(self.tables).take(pa.array(places))
        other._take(self.ids[first + places], self.vectors[places], self.query_side[places], table)
        return other, places

    def _take(self, ids: Sequence[str], vectors: Float32, query_side: Float32, table: pa.Table) -> range:
        start, count, first = self.count, self.count + len(ids), len(self._base._item_ids)
        if count > len(self.vectors):
            room = max(FEW, 2 * count)
            shape = (room, self.vectors.shape[1])
            grown_ids, *grown = np.empty(first + room, object), np.empty(shape, np.float32), np.empty(shape, np.float32)
            grown_ids[: first + start] = self.ids[: first + start]
            for new, old in zip(grown, (self.vectors, self.query_side), strict=True):
                new[:start] = old[:start]
            self.ids, (self.vectors, self.query_side) = grown_ids, grown
        self.ids[first + start : first + count] = ids
        self.vectors[start:count], self.query_side[start:count] = vectors, query_side
        self.shown = self.shown if len(self.shown) == start else self.shown[:start]
        self.shown.extend(plain_rows(table.select(self._base._shown.column_names)))
        if len(self.tables) >= TABLES:
            table = pa.concat_tables([*self.tables, table]).combine_chunks()
            self.tables = self.filters = ()
        self.tables = (*self.tables, table)
        self.filters = (*self.filters, ItemFilters(table, tuple(self._base.filter_fields)))
        self.hidden = np.concatenate([self.hidden, np.zeros(len(ids), bool)])
        self.count = count
        return range(start, count)


def _columns(base: Retriever, changes: Sequence[Change], counts: Sequence[int]) -> pa.Table:
    """Return the columns of changed items as the release types them."""
    schema = base._items.schema
    columns = []
    for column in schema:
        if column.name == ITEM_ID:
            columns.append(pa.array([change.item_id for change in changes], column.type))
        elif column.name == TRAINING_COUNT:
            columns.append(pa.array(counts, column.type))
        else:
            columns.append(typed([change.metadata.get(column.name) for change in changes], column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def typed(values: Sequence[Any], wanted: pa.DataType) -> pa.Array:
    """Return values as a column of a type; those that the type does not hold are missing.

    Whole numbers are held exactly or not at all; a fraction is rounded to a column of floats, but not to one of
    decimals. Numbers are no times; texts are, as `read_time` and `read_time_of_day` read them. In columns of text,
    values are spelled as in training.
    """
    kind = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
    if pa.types.is_string(plain_type(kind)):
        values = [_text(value) for value in values]
    elif is_list(kind) and pa.types.is_string(plain_type(kind.value_type)):
        values = [[_text(each) for each in value] if isinstance(value, list) else value for value in values]
    try:
        if filter_type(kind) is FilterType.NUMBER:
            return pa.array([None if value is None else _number(value, kind) for value in values], wanted)
        if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
            ticks = pa.array([None if value is None else _ticks(value, kind) for value in values], pa.int64())
            return ticks.cast(f"int{kind.bit_width}").cast(kind).cast(wanted)
        if pa.types.is_temporal(kind) and any(isinstance(value, (int, float, Decimal)) for value in values):
            raise TypeError("a number is no time")
        return pa.array(values).cast(wanted)
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
        if len(values) == 1:
            return pa.nulls(1, wanted)
        return pa.concat_arrays([typed([value], wanted) for value in values])


def _ticks(value: Any, kind: pa.DataType) -> int:
    """Return the time that a text spells in the units of its column, without a zone UTC."""
    seconds = read_time_of_day(value) if pa.types.is_time(kind) else read_time(value)
    ticks = seconds.scaleb(DIGITS[kind.unit])
    if ticks % 1:
        raise ValueError(f"finer than {kind}: {value!r}")
    return int(ticks)


def _number(value: Any, kind: pa.DataType) -> Number:
    """Return a number, or the number that a text spells, as a column of this type takes it."""
    number = Decimal(value) if isinstance(value, str) else value
    if not is_column_number(number):
        raise TypeError(f"no number: {value!r}")
    number = exact(number)
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_integer(kind):
        if not isinstance(number, int):
            raise ValueError(f"not whole: {value!r}")
        return number
    with np.errstate(over="ignore"):
        held = float(kind.to_pandas_dtype()(number))
    if isinstance(number, int) and held != number:
        raise ValueError(f"not exact: {value!r}")
    return held


def _text(value: Any) -> str | None:
    try:
        return SPELLING.spell(value)
    except DataError:
        return None


def _index_table(base: Retriever) -> Mapping[str, Any]:
    return read_served(base.release.folder).index
