"""What a query entity met before: in training, strictly before each example; at a cut, before the cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.features._history_encoder import Weighing, entries_of
from recsys.types import DAY_US, UNKNOWN_AGE, Float32, Int32, Int64, Interactions


class Met(NamedTuple):
    """The items that several owners met, newest first, those of the first owner, then those of the second, and so on.

    Attributes:
        lengths: `[owners]`, int64, interactions of each.
        item_row: `[sum(lengths)]`, int32; an item stands as often as it was met.
        age_days: `[sum(lengths)]`, float32, >= 0; `UNKNOWN_AGE` where the source has no times.
    """

    lengths: Int64
    item_row: Int32
    age_days: Float32

    @property
    def owners(self) -> Int64:
        """The owner of each interaction, `[sum(lengths)]`, int64, ascending."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class Past:
    """The interactions that histories are drawn from.

    Args:
        interactions: sorted by query row, then time.
        queries: rows of the query side.
        now: the instant, in microseconds since 1970 UTC, that ages at the end are counted to; None means the last
            interaction's.
    """

    def __init__(self, interactions: Interactions, queries: int, now: int | None = None) -> None:
        self._rows = np.asarray(interactions.item_row)
        self._times = None if interactions.timestamp is None else np.asarray(interactions.timestamp)
        self._starts = np.searchsorted(interactions.query_row, np.arange(queries + 1)).astype(np.int64)
        self._query_row = np.asarray(interactions.query_row)
        if self._times is not None:
            self._instant_starts = _instant_starts(self._query_row, self._times)
            self._now = int(self._times.max(initial=0)) if now is None else now
        else:
            order = np.lexsort((np.random.default_rng(0).random(len(interactions)), self._query_row))
            self._shuffled = self._rows[order]

    @property
    def starts(self) -> Int64:
        """Place of the first interaction of each owner, and their number at the end, `[queries + 1]`, int64."""
        return self._starts

    @property
    def instant_starts(self) -> Int64:
        """Place of the first interaction of the same owner and instant, `[interactions]`; of sources with times."""
        return self._instant_starts

    def before(self, places: Int64, length: int, random: np.random.Generator) -> Met:
        """Return the items met strictly before each interaction; ages are counted to that interaction.

        Interactions of the same instant (one basket) do not count. Without times, a random draw of the entity's other
        interactions, never of the example's own item.

        Args:
            places: `[batch]`, places of the examples among the interactions.
            length: interactions that count; 0 means all.
            random: draws, where the source has no times.
        """
        starts = self._starts[self._query_row[places]]
        if self._times is not None:
            return self._last(starts, self._instant_starts[places], length, self._times[places])
        ends = self._starts[self._query_row[places] + 1]
        offset = random.integers(0, np.maximum(ends - starts, 1))
        drawn = self._window(starts, ends, length, offset)
        others = drawn.item_row != self._rows[places][drawn.owners]
        lengths = np.bincount(drawn.owners[others], minlength=len(places))
        return Met(lengths, drawn.item_row[others], drawn.age_days[others])

    def until_end(self, query_rows: NDArray[np.integer], length: int) -> Met:
        """Return the last items of each query entity; `length` as for `before`.

        Without times, always the same ones of an entity's items, whoever else is asked for.
        """
        starts, ends = self._starts[query_rows], self._starts[np.asarray(query_rows) + 1]
        if self._times is not None:
            return self._last(starts, ends, length, np.full(len(starts), self._now))
        return self._window(starts, ends, length, np.zeros(len(starts), np.int64))

    def _last(self, starts: Int64, ends: Int64, length: int, now: Int64) -> Met:
        lengths, owners, steps = _steps(ends - starts, length)
        places = ends[owners] - 1 - steps
        ages = (now[owners] - self._times[places]) / DAY_US
        return Met(lengths, self._rows[places], np.maximum(ages, 0).astype(np.float32))

    def _window(self, starts: Int64, ends: Int64, length: int, offset: Int64) -> Met:
        """Return up to `length` of each entity's shuffled interactions, from its offset on and around."""
        sizes = ends - starts
        lengths, owners, steps = _steps(sizes, length)
        places = starts[owners] + (offset[owners] + steps) % sizes[owners]
        return Met(lengths, self._shuffled[places], np.full(len(places), UNKNOWN_AGE, np.float32))


def weighted(interactions: Interactions, queries: int, items: int, weighing: Weighing) -> csr_array:
    """Return how much each query entity met each item, `[queries, items]`, float32.

    Args:
        interactions: sorted by query row, then time.
        queries: rows of the query side.
        items: rows of the catalog.
        weighing: how much its interactions count.
    """
    met = Past(interactions, queries).until_end(np.arange(queries), 0)
    found = entries_of(weighing, met.owners, met.item_row, met.age_days)
    return csr_array((found.weight, (found.owner, found.value)), (queries, items))


def _steps(sizes: Int64, length: int) -> tuple[Int64, Int64, Int64]:
    """Return how many of some things each owner has, at most `length`, and owner and number (from 0) of each one."""
    lengths = np.minimum(sizes, length) if length else sizes
    owners = np.repeat(np.arange(len(lengths)), lengths)
    return lengths, owners, np.arange(len(owners)) - (np.cumsum(lengths) - lengths)[owners]


def _instant_starts(query_row: Int32, timestamp: Int64) -> Int64:
    """Return for each interaction the place of the first one of the same entity and instant."""
    places = np.arange(len(query_row))
    fresh = np.ones(len(query_row), bool)
    fresh[1:] = (query_row[1:] != query_row[:-1]) | (timestamp[1:] != timestamp[:-1])
    return np.maximum.accumulate(np.where(fresh, places, 0)).astype(np.int64)
