"""Exact search: every inner product, in blocks that fit the cache and bound the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.cancellation import checkpoint
from recsys.indexes._checks import checked_queries
from recsys.stages import stage
from recsys.types import NO_ROW, Float32, Int32, Int64, Neighbours
from twintower.errors import SettingError, unknown

BLOCK_QUERIES = 128
BLOCK_SCORES = 2**22
"""Scores held at once: 16 MiB of float32."""
UNTHREADED = 2**18
"""Multiplications that OpenBLAS does on the calling thread. One query is done in such pieces: memory bounds it, and
threads that wait for one another on busy cores cost more than they bring (measured: 15 ms in place of 0.7)."""
UNINTERRUPTED = 2**25
"""Multiplications between two checkpoints where several queries are done at once: a few milliseconds."""
DENSE_RATE = 0.25
"""From this share of the rows on, one query is multiplied with all of them: reading in order is faster than picking out
(100,000 x 64: all 1.1 ms; 20,000 of them 0.6, 50,000 of them 1.8)."""
GROUP = 64


class ExactSearcher:
    """Search by computing every inner product, with all items or some; the yardstick of every other index.

    Ties of the computed float32 scores go to the lower item_row. Time is bound by reading the item vectors once for
    each query (or block of queries); memory by `BLOCK_SCORES` besides the answer. Safe for calls from several threads.
    """

    def __init__(self, vectors: Float32, rows: NDArray[np.integer] | None = None) -> None:
        """Hold the item vectors.

        Args:
            vectors: `[items, dim]`, float32, finite; may be a memory map.
            rows: the only item rows that are looked at, ascending and distinct; None for all.
        """
        self.vectors, self.rows = vectors, rows

    @stage("search")
    def search(self, queries: Float32, k: int, *, effort: float = 1.0, effort_k: int = 0) -> Neighbours:
        """Return the k largest inner products for each query.

        Args:
            queries: `[batch, dim]`, float32, finite, C-contiguous.
            k: places, >= 1; more than there are items gives `NO_ROW` at the end.
            effort: changes nothing: everything is looked at already.
            effort_k: changes nothing.

        Raises:
            RequestError: wrong dimension, NaN or infinity in a query, or k < 1.
        """
        queries = checked_queries(queries, k, self.vectors.shape[1])
        rows = np.full((len(queries), k), NO_ROW, np.int32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        found = min(k, len(self))
        for start in range(0, len(queries) if found else 0, BLOCK_QUERIES):
            block = slice(start, start + BLOCK_QUERIES)
            self._fill(queries[block], rows[block, :found], scores[block, :found])
        if self.rows is not None:
            rows[:, :found] = self.rows[rows[:, :found]]
        return Neighbours(rows, scores)

    def tuned(self, settings: Mapping[str, Any]) -> ExactSearcher:
        """Return itself: there is nothing to tune.

        Raises:
            SettingError: any setting.
        """
        for name in settings:
            raise SettingError(f"index.{name}: {unknown('setting of exact search', name, ())}")
        return self

    def __len__(self) -> int:
        return len(self.vectors) if self.rows is None else len(self.rows)

    def _block(self, start: int, stop: int) -> Float32:
        if self.rows is None:
            return self.vectors[start:stop]
        return self.vectors.take(self.rows[start:stop], axis=0)

    def _fill(self, queries: Float32, best_rows: Int32, best_scores: Float32) -> None:
        k = best_rows.shape[1]
        step = BLOCK_SCORES // len(queries)
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            if len(queries) == 1:
                scores = self._inner_products(queries[0], start, stop)[None]
            else:
                scores = self._scores(queries, start, stop)
            for query, row in enumerate(scores):
                checkpoint()
                places = largest(row, min(k, len(row)))
                if start == 0:
                    best_rows[query, : len(places)], best_scores[query, : len(places)] = places, row[places]
                    continue
                rows = np.concatenate([best_rows[query], (places + start).astype(np.int32)])
                kept = np.concatenate([best_scores[query], row[places]])
                order = np.argsort(-kept, kind="stable")[:k]
                best_rows[query], best_scores[query] = rows[order], kept[order]

    def _scores(self, queries: Float32, start: int, stop: int) -> Float32:
        scores = np.empty((len(queries), stop - start), np.float32)
        step = max(1, UNINTERRUPTED // queries.size)
        for first in range(start, stop, step):
            checkpoint()
            last = min(first + step, stop)
            np.matmul(queries, self._block(first, last).T, out=scores[:, first - start : last - start])
        return scores

    def _inner_products(self, query: Float32, start: int, stop: int) -> Float32:
        if self.rows is None:
            return _inner_products(self.vectors[start:stop], query)
        rows = self.rows[start:stop]
        low, high = rows[0], rows[-1] + 1
        if len(rows) >= DENSE_RATE * (high - low):
            return _inner_products(self.vectors[low:high], query)[rows - low]
        scores = np.empty(len(rows), np.float32)
        step = max(1, UNTHREADED // len(query))
        for place in range(0, len(rows), step):
            checkpoint()
            part = slice(place, place + step)
            np.dot(self.vectors.take(rows[part], axis=0), query, out=scores[part])
        return scores


def _inner_products(vectors: Float32, query: Float32) -> Float32:
    scores = np.empty(len(vectors), np.float32)
    step = max(1, UNTHREADED // len(query))
    for start in range(0, len(vectors), step):
        checkpoint()
        np.dot(vectors[start : start + step], query, out=scores[start : start + step])
    return scores


def largest(scores: Float32, k: int) -> Int64:
    """Return the places of the k largest scores, best first; ties go to the lower place.

    Args:
        scores: `[items]`, float32, no NaN.
        k: 1..items.
    """
    # The k-th largest of the maxima of disjoint groups is reached by at least k scores: nothing below it is needed.
    groups = len(scores) // GROUP
    maxima = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0) if groups >= 4 * k else scores
    bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    places = np.flatnonzero(scores >= bound)
    return places[np.argsort(-scores[places], kind="stable")[:k]]
