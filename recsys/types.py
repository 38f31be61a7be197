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

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from twintower.types import FeedbackKind

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
