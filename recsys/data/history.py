"""What a query entity met before: in training, strictly before each example; at a cut, before the cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.types import NO_ROW, Int32, Int64, Interactions


class Past:
    """The interactions that histories are drawn from.

    Args:
        interactions: sorted by query row, then time.
        queries: rows of the query side.
    """

    def __init__(self, interactions: Interactions, queries: int) -> None:
        self._rows = np.asarray(interactions.item_row)
        self._timed = interactions.timestamp is not None
        self._starts = np.searchsorted(interactions.query_row, np.arange(queries + 1)).astype(np.int64)
        self._query_row = np.asarray(interactions.query_row)
        if self._timed:
            self._instant_starts = _instant_starts(self._query_row, np.asarray(interactions.timestamp))
        else:
            order = np.lexsort((np.random.default_rng(0).random(len(interactions)), self._query_row))
            self._shuffled = self._rows[order]

    def before(self, places: Int64, length: int, random: np.random.Generator) -> Int32:
        """Return the items met strictly before each interaction, newest first, `[batch, length]`, padded with -1.

        Interactions of the same instant (one basket) do not count. Without times, a random draw of the entity's other
        interactions, never of the example's own item.

        Args:
            places: `[batch]`, places of the examples among the interactions.
            length: items that count; 0 means all, as many as the longest history of the batch has.
            random: draws, where the source has no times.
        """
        starts = self._starts[self._query_row[places]]
        if self._timed:
            return self._last(starts, self._instant_starts[places], length)
        ends = self._starts[self._query_row[places] + 1]
        offset = random.integers(0, np.maximum(ends - starts, 1))
        drawn = self._window(starts, ends, length, offset)
        drawn[drawn == self._rows[places][:, None]] = NO_ROW
        return _packed(drawn)

    def until_end(self, query_rows: NDArray[np.integer], length: int) -> Int32:
        """Return the last items of each query entity, newest first, `[batch, length]`, padded with -1.

        Without times, always the same ones of an entity's items, whoever else is asked for.
        """
        starts, ends = self._starts[query_rows], self._starts[np.asarray(query_rows) + 1]
        if self._timed:
            return self._last(starts, ends, length)
        return self._window(starts, ends, length, np.zeros(len(starts), np.int64))

    def _last(self, starts: Int64, ends: Int64, length: int) -> Int32:
        length = length or max(1, int((ends - starts).max(initial=0)))
        places = ends[:, None] - 1 - np.arange(length)
        return np.where(places >= starts[:, None], self._rows[np.maximum(places, 0)], NO_ROW).astype(np.int32)

    def _window(self, starts: Int64, ends: Int64, length: int, offset: Int64) -> Int32:
        """Return up to `length` of each entity's shuffled interactions, from its offset on and around."""
        sizes = (ends - starts)[:, None]
        steps = np.arange(length or max(1, int(sizes.max(initial=0))))
        places = starts[:, None] + (offset[:, None] + steps) % np.maximum(sizes, 1)
        inside = steps < sizes
        return np.where(inside, self._shuffled[np.minimum(places, len(self._shuffled) - 1)], NO_ROW).astype(np.int32)


def _instant_starts(query_row: Int32, timestamp: Int64) -> Int64:
    """Return for each interaction the place of the first one of the same entity and instant."""
    places = np.arange(len(query_row))
    fresh = np.ones(len(query_row), bool)
    fresh[1:] = (query_row[1:] != query_row[:-1]) | (timestamp[1:] != timestamp[:-1])
    return np.maximum.accumulate(np.where(fresh, places, 0)).astype(np.int64)


def _packed(rows: Int32) -> Int32:
    """Move the padding of each row to its end, keeping the order of the rest."""
    return np.take_along_axis(rows, np.argsort(rows == NO_ROW, axis=1, kind="stable"), axis=1)
