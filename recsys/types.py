"""The nouns that travel between stages, in NumPy only.

Axes have fixed names everywhere:

    batch       examples of one training step, or queries of one call
    items       rows of the catalogue; `item_row` is a place on this axis, `item_id` is what the catalogue calls it
    queries     rows of the query side (users, items or free features)
    candidates  items that one example is compared with
    dim         length of a tower's output vector
    width       length of one feature's vector
    k           places in a ranked list
    cases       evaluation cases: one query with its relevant items
    steps       optimiser updates
    views       augmented copies of one batch
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

ITEM_ID = "item_id"
QUERY_ID = "query_id"
TIMESTAMP = "timestamp"
WEIGHT = "weight"
"""Columns that every source gives under the same names."""

HISTORY = "history"
AGE_DAYS = "age_days"
TRAINING_COUNT = "training_count"
"""Columns that a release adds to its query entities and items."""

UNKNOWN_AGE = -1.0
"""The age in days of a meeting of which no time is known; it counts as one of now."""

DAY_US = 86_400_000_000
"""Microseconds of a day."""

NO_ROW = -1
"""The row that stands for 'no item here': padding of short histories and of short result lists."""


@dataclass(frozen=True)
class Neighbours:
    """The best items for a batch of queries, best first.

    Attributes:
        item_rows: `[batch, k]`, int32; `NO_ROW` where fewer than k items were found, always at the end.
        scores: `[batch, k]`, float32, inner products, not increasing; `-inf` beside `NO_ROW`.
    """

    item_rows: Int32
    scores: Float32


@dataclass(frozen=True)
class Interactions:
    """Who met what, sorted by query row, then time, then the source's order.

    Attributes:
        query_row: `[interactions]`, int32, not decreasing.
        item_row: `[interactions]`, int32.
        timestamp: `[interactions]`, int64, microseconds since 1970 UTC; None where the source has no times.
        weight: `[interactions]`, float32, > 0; None means 1 each.
    """

    query_row: Int32
    item_row: Int32
    timestamp: Int64 | None = None
    weight: Float32 | None = None

    def __len__(self) -> int:
        return len(self.query_row)

    def take(self, places: NDArray[np.integer] | Bool) -> Interactions:
        """Return the interactions at the given places (or where a mask is true); the order must stay sorted."""
        return Interactions(
            self.query_row[places],
            self.item_row[places],
            None if self.timestamp is None else self.timestamp[places],
            None if self.weight is None else self.weight[places],
        )

    def in_order(self) -> Interactions:
        """Return the same interactions sorted by query row, then time; equal ones stay as they stood."""
        keys = (self.query_row,) if self.timestamp is None else (self.timestamp, self.query_row)
        return self.take(np.lexsort(keys))


@dataclass(frozen=True)
class RowSets:
    """One set of item rows for each of n owners, in compressed sparse row form.

    Attributes:
        offsets: `[n + 1]`, int64, not decreasing, starts at 0.
        rows: `[offsets[-1]]`, int32, item rows; those of owner i are `rows[offsets[i]:offsets[i + 1]]`.
    """

    offsets: Int64
    rows: Int32

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, owner: int) -> Int32:
        return self.rows[self.offsets[owner] : self.offsets[owner + 1]]

    @property
    def sizes(self) -> Int64:
        """How many rows each owner has, `[n]`, int64."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64:
        """The owner of each entry of `rows`, `[offsets[-1]]`, int64."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, owners: NDArray[np.integer]) -> RowSets:
        """Return the sets of the given owners, in that order."""
        starts, sizes = self.offsets[:-1][owners], self.sizes[owners]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return RowSets(offsets, self.rows[places])

    def contains(self, owners: NDArray[np.integer], rows: NDArray[np.integer]) -> Bool:
        """Return whether each row is in the set of its owner; `NO_ROW` is in none.

        Args:
            owners: integers that broadcast with `rows`.
            rows: item rows or `NO_ROW`, of any shape.
        """
        stride = int(max(self.rows.max(initial=NO_ROW), rows.max(initial=NO_ROW))) + 1
        keys = np.asarray(owners, np.int64) * stride + rows
        return np.isin(keys, self.owners * stride + self.rows) & (rows != NO_ROW)

    def union(self, others: RowSets) -> RowSets:
        """Return each owner's rows with those that it has in `others`, distinct and ascending."""
        owners = np.concatenate([self.owners, others.owners])
        return RowSets.from_pairs(owners, np.concatenate([self.rows, others.rows]), len(self))

    def without(self, others: RowSets) -> RowSets:
        """Return each owner's set without the rows that it has in `others`, distinct and ascending."""
        kept = ~others.contains(self.owners, self.rows)
        return RowSets.from_pairs(self.owners[kept], self.rows[kept], len(self))

    @staticmethod
    def empty(count: int) -> RowSets:
        """Return `count` owners without any rows."""
        return RowSets(np.zeros(count + 1, np.int64), np.zeros(0, np.int32))

    @staticmethod
    def from_pairs(owners: NDArray[np.integer], rows: NDArray[np.integer], count: int) -> RowSets:
        """Return the distinct rows of each owner, ascending.

        Args:
            owners: `[pairs]`, in 0..count-1.
            rows: `[pairs]`, item rows, >= 0.
            count: the number of owners n.
        """
        if len(rows) == 0:
            return RowSets.empty(count)
        stride = int(rows.max()) + 1
        keys = np.unique(owners.astype(np.int64) * stride + rows)
        owner_of, row_of = np.divmod(keys, stride)
        offsets = np.searchsorted(owner_of, np.arange(count + 1)).astype(np.int64)
        return RowSets(offsets, row_of.astype(np.int32))


def is_among(rows: NDArray[np.integer], ascending: NDArray[np.integer]) -> Bool:
    """Return which rows are among others, of the shape of `rows`.

    Args:
        rows: integers of any shape.
        ascending: `[others]`, distinct.
    """
    if len(ascending) == 0:
        return np.zeros(rows.shape, bool)
    return ascending.take(ascending.searchsorted(rows), mode="clip") == rows


class Origin(enum.StrEnum):
    """What a query's vector was made from."""

    KNOWN_ENTITY = "known_entity"
    """Features and history that the release holds for the entity."""
    FEATURES = "features"
    """The request's own features and history; the entity is unknown or anonymous."""
    ITEMS = "items"
    """The mean of the named items' vectors; in an item-to-item release, of their query vectors."""
    VECTOR = "vector"
    """The request's vector, as it is."""
    POPULARITY = "popularity"
    """Nothing was known of the query: the items most frequent in training."""


class FilterType(enum.Enum):
    """What a column of the items holds that can be filtered by."""

    STRING = "string"
    """One string."""
    STRINGS = "strings"
    """Several strings."""
    NUMBER = "number"
    """A number."""
    BOOL = "bool"
    """A truth value."""
    TIME = "time"
    """A date or a time."""


FilterValue = str | bool | int | float | Decimal
"""What a condition compares a column with: a string, a truth value, a number, or a time: ISO 8601 text with up to nine
decimals of a second, UTC unless it names a zone."""


@dataclass(frozen=True)
class Condition:
    """What one column of an item must hold: exactly one of `any_of`, `none_of`, or bounds.

    An item without a value in the column passes `none_of` and nothing else; one with several values passes `any_of`
    where one of them is named, and `none_of` where none is.

    Numbers are compared exactly, whatever type holds them: 2**53 + 1 is more than 2.0**53. Floats and decimals meet at
    the shortest spelling: the float 0.1 finds the decimal 0.1, and both find 0.1 in a float32 column.

    Attributes:
        field: the column.
        any_of: at least one value, of the kind that the column holds.
        none_of: as `any_of`.
        minimum: a number or a time; it passes itself.
        exclusive_minimum: only larger values pass; not together with `minimum`.
        maximum: a number or a time; it passes itself.
        exclusive_maximum: only smaller values pass; not together with `maximum`.
    """

    field: str
    any_of: tuple[FilterValue, ...] | None = None
    none_of: tuple[FilterValue, ...] | None = None
    minimum: FilterValue | None = None
    exclusive_minimum: FilterValue | None = None
    maximum: FilterValue | None = None
    exclusive_maximum: FilterValue | None = None


@dataclass(frozen=True)
class Filter:
    """Which items an answer may hold: those that meet all conditions; without any, every item passes.

    Attributes:
        all_of: the conditions.
    """

    all_of: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Diversity:
    """How alike the items of one answer may be; by default as alike as they come.

    Attributes:
        crowding_field: the column whose values are to be mixed; empty means none. Items without a value do not count.
        max_per_value: most items of one value of that column in an answer: >= 1 where there is a column.
        mmr_weight: 0..1, unitless: 0 ranks by score alone, 1 by distance to the items above alone.
    """

    crowding_field: str = ""
    max_per_value: int = 0
    mmr_weight: float = 0.0

    @property
    def changes_nothing(self) -> bool:
        """Whether the items may be as alike as they come."""
        return not self.crowding_field and not self.max_per_value and self.mmr_weight == 0


EVERY_ITEM = Filter()
ALIKE = Diversity()
"""What changes nothing."""


class Plan(enum.StrEnum):
    """How the items of an answer were searched."""

    INDEX = "index"
    """The index, without a condition."""
    EXACT_SUBSET = "exact_subset"
    """Every item that may be shown, exactly: there are few."""
    OVER_FETCH = "over_fetch"
    """The index, deeper than asked, without what may not be shown."""
    ESCALATED = "escalated"
    """The index found too few that may be shown, and every item that may was searched."""


class Repeats(enum.StrEnum):
    """Whether an answer holds items that the query entity has met before."""

    ALLOW = "allow"
    """They stand beside the others; where the release adds an entity's own items to the dense list, by that score."""
    ONLY = "only"
    """Nothing else."""
    EXCLUDE = "exclude"
    """None of them: the same as `Query.exclude_seen`."""


@dataclass(slots=True)  # not frozen, which would make one take four times as long: each query of a call is one
class Query:
    """What a caller wants neighbours of: exactly one of the four forms. Not to be changed.

    Attributes:
        entity_id: a query entity (user, or item in an item-to-item release) that the release knows by name.
        features: raw values by feature name; missing ones count as unknown. Used where `entity_id` is unknown, too.
        history: item ids the entity met, oldest first, an item as often as it was met; goes with `features`.
        history_age_days: for each item of `history`, how many days ago that was, >= 0; empty where that is not known,
            which counts as now.
        item_ids: items that somebody has met, such as a basket: the answer is what goes with them.
        similar: whether the answer is instead what is like `item_ids`: what is found by nearly the same vectors,
            by exact search.
        vector: `[dim]`, float32, finite; searched as it is.
        excluded_ids: items that must not be in the answer.
        filter: which items the answer may hold besides.
        exclude_seen: also leave out what the entity is known to have met: all that the release stores for it, `history`
            and `reported_ids`.
        repeats: whether the answer holds items that the entity has met; `EXCLUDE` sets `exclude_seen`.
        reported_ids: items that the entity has met since the release was written, as events report. A server fills
            them in; they do not travel over the wire.
    """

    entity_id: str | None = None
    features: Mapping[str, Any] | None = None
    history: Sequence[str] = ()
    history_age_days: Sequence[float] = ()
    item_ids: Sequence[str] = ()
    similar: bool = False
    vector: Float32 | None = None
    excluded_ids: Sequence[str] = ()
    filter: Filter = EVERY_ITEM
    exclude_seen: bool = False
    repeats: Repeats = Repeats.ALLOW
    reported_ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.repeats == Repeats.EXCLUDE:
            self.exclude_seen = True


@dataclass(slots=True)  # not frozen, as `Answer`
class Exclusions:
    """How many items of the catalog an answer leaves out, and where they are known from. Treat as immutable.

    An item that is known from several sources counts in each of them, and once in `total_count`.

    Attributes:
        total_count: distinct items that are left out.
        release_count: items that the release stores for the entity.
        request_count: items that the query is about, those of the feedback on it, and with `exclude_seen` those of its
            history.
        event_count: items that events report.
        excluded_id_count: items that `excluded_ids` names.
        release_knows_entity: whether the release stores what the entity has met; without it nothing is left out that
            only the training data knows.
    """

    total_count: int
    release_count: int
    request_count: int
    event_count: int
    excluded_id_count: int
    release_knows_entity: bool


@dataclass(frozen=True)
class Unit:
    """Who is asking: what experiments assign to an arm, and what the exposure log names.

    Attributes:
        user_id: empty where nobody is known; then no experiment on users takes the request.
        session_id: empty where there is none; then no experiment on sessions takes the request.
    """

    user_id: str = ""
    session_id: str = ""


NOBODY = Unit()


class FeedbackKind(enum.IntEnum):
    """How an item came to be feedback."""

    PSEUDO = 0
    """It stands at the top of the first search: taken as relevant without anybody's word."""
    LIKED = 1
    """Somebody said yes."""
    DISLIKED = 2
    """Somebody said no."""
    CLICKED = 3
    """It was shown and chosen."""
    SKIPPED = 4
    """It was shown and passed over."""

    @property
    def positive(self) -> bool:
        """Whether it speaks for the item."""
        return self in (FeedbackKind.PSEUDO, FeedbackKind.LIKED, FeedbackKind.CLICKED)


CENTER_ITEMS = 10_000
"""Items that the mean of a catalog is taken of, at most."""


@dataclass(frozen=True)
class ItemRoles:
    """The two vectors of each item of a catalog.

    Attributes:
        found: `[items, dim]`, float32, unit length: what an item is found by.
        query_side: `[items, dim]`, float32, any length: what having met an item adds to a query's vector, where the
            vector of a typical query has length 1.
    """

    found: Float32
    query_side: Float32

    @cached_property
    def center(self) -> Float32:
        """What all items share: the mean of the found vectors, `[dim]`; of 10,000 items of a larger catalog."""
        rows = np.unique(np.linspace(0, len(self.found) - 1, CENTER_ITEMS).astype(np.int64))
        return np.asarray(self.found[rows]).mean(axis=0)

    @classmethod
    def shared(cls, vectors: Float32) -> ItemRoles:
        """Return items in a space that queries and items share by construction: an item's vector has both roles."""
        return cls(vectors, vectors)


@dataclass(frozen=True)
class Feedback:
    """Items that say what the askers of a batch want or do not want; more important ones first.

    Attributes:
        vectors: `[batch, k, dim]`, float32, unit length: the directions in which having met each item moves a query
            (see `ItemRoles`); zeros where there is no item.
        lengths: `[batch, k]`, float32, > 0: how far having met each item once moves its query, where the query's own
            vector has length 1.
        away: `[batch, k, dim]`, float32: what a query moves away along: the vectors that the items are found by
            without what all items share (`ItemRoles.center`); zeros where there is no item.
        kinds: `[batch, k]`, int32, values of `FeedbackKind`.
        ranks: `[batch, k]`, int32, place in the list that was shown or searched, 0 = best; `NO_ROW` where unknown.
        scores: `[batch, k]`, float32, inner products of the vectors that the items are found by with the query's vector
            brought to unit length.
        present: `[batch, k]`, bool, where there is an item; in each row all true ones come first.
        extended: `[batch, dim]`, float32, unit length: each query encoded again with the items that somebody liked or
            chose in its history; the query itself where there are none. None where no tower was called.
    """

    vectors: Float32
    lengths: Float32
    away: Float32
    kinds: Int32
    ranks: Int32
    scores: Float32
    present: Bool
    extended: Float32 | None = None

    @property
    def counts(self) -> Int64:
        """How many items each query has, `[batch]`, int64."""
        return self.present.sum(axis=1)

    @property
    def positive(self) -> Bool:
        """Where an item speaks for itself, `[batch, k]`."""
        return self.present & _POSITIVE[self.kinds]

    def first(self, depth: int | Int64) -> Feedback:
        """Return only the first items of each query: the same depth for all, or `[batch]`; nothing is encoded again."""
        deep = np.broadcast_to(np.asarray(depth), (len(self.present),))[:, None]
        present = self.present & (np.arange(self.present.shape[1]) < deep)
        vectors, away = self.vectors * present[..., None], self.away * present[..., None]
        return replace(self, vectors=vectors, away=away, present=present, extended=None)


_POSITIVE = np.array([kind.positive for kind in FeedbackKind])


@dataclass(frozen=True)
class Reformulated:
    """Query vectors moved by feedback.

    Attributes:
        vectors: `[batch, dim]`, float32, of unit length; a query without feedback comes back as it is.
        item_weights: `[batch, k]`, float32, unitless: how much of each item was added to the query's vector of unit
            length, before the sum was brought to unit length: > 0 of `Feedback.vectors`, < 0 of `Feedback.away`; 0
            where there is no item.
    """

    vectors: Float32
    item_weights: Float32


@dataclass(frozen=True)
class Mention:
    """One item of feedback, by its id.

    Attributes:
        item_id: as the catalogue calls it.
        kind: what was said of it.
        position: place in the list that was shown, 0 = best; None where unknown.
    """

    item_id: str
    kind: FeedbackKind
    position: int | None = None
