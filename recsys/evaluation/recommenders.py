"""Rank the whole catalogue for each case, a block of cases at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix

from recsys.errors import ShapeError
from recsys.types import NO_ROW, Float32, Int64, Neighbours, RowSets
from twintower.errors import describe, verbatim

BLOCK_SCORES = 2**24
"""Scores that are held in memory at once: 64 MB, beside a sorted copy of the same size."""


class Recommender(Protocol):
    """Anything that can be judged: it ranks items for evaluation cases."""

    def recommend(self, case_rows: Int64, k: int) -> Neighbours:
        """Return the best items of the full catalogue for some cases.

        Args:
            case_rows: `[batch]`, int64, places on the cases axis.
            k: places, >= 1.
        """

    def without(self, excluded: RowSets) -> Recommender:
        """Return the same recommender with other items, one set a case, that may not be shown."""


@dataclass(frozen=True)
class ScoreRecommender:
    """Recommends the items with the highest scores of a function; equal scores by lower row.

    Attributes:
        score: case rows `[batch]` to scores `[batch, items]`, float32, no NaN; a fresh array at each call.
        items: rows of the catalogue, the length of the items axis.
        excluded: items that may not be shown, one set a case; None where every item may.
    """

    score: Callable[[Int64], Float32]
    items: int
    excluded: RowSets | None = None

    def recommend(self, case_rows: Int64, k: int) -> Neighbours:
        """Return the k items with the highest scores; `NO_ROW` where fewer may be shown."""
        blocks = [self._best(block, k) for block in blocks_of(case_rows, max(1, BLOCK_SCORES // self.items))]
        return Neighbours(
            np.concatenate([block.item_rows for block in blocks]), np.concatenate([block.scores for block in blocks])
        )

    def without(self, excluded: RowSets) -> ScoreRecommender:
        """Return the same with other excluded items."""
        return replace(self, excluded=excluded)

    def _best(self, case_rows: Int64, k: int) -> Neighbours:
        scores = self.score(case_rows)
        if self.excluded is not None:
            excluded = self.excluded.take(case_rows)
            scores[excluded.owners, excluded.rows] = -np.inf
        return largest_scores(scores, k)


@dataclass(frozen=True)
class VectorRecommender:
    """Recommends by exact search for the largest inner products, the yardstick of every index.

    Attributes:
        query_vectors: `[cases, dim]`, float32, finite.
        item_vectors: `[items, dim]`, float32, finite.
        excluded: items that may not be shown, one set a case; None where every item may.
        own_scores: `[cases, items]`, float32, >= 0, what is added to inner products; None adds nothing.

    Raises:
        ShapeError: the vectors differ in dim, hold NaN or infinity, or `excluded` is of another number of cases.
    """

    query_vectors: Float32
    item_vectors: Float32
    excluded: RowSets | None = None
    own_scores: csr_matrix | None = None

    def __post_init__(self) -> None:
        for name in ("query_vectors", "item_vectors"):
            if not np.isfinite(getattr(self, name)).all():
                raise ShapeError(describe(name, verbatim("NaN or infinity"), "finite values"))
        if self.query_vectors.shape[1] != self.item_vectors.shape[1]:
            raise ShapeError(describe("query_vectors", self.query_vectors.shape, f"dim {self.item_vectors.shape[1]}"))
        if self.excluded is not None and len(self.excluded) != len(self.query_vectors):
            raise ShapeError(describe("excluded", len(self.excluded), f"{len(self.query_vectors)} cases"))

    def recommend(self, case_rows: Int64, k: int) -> Neighbours:
        """Return the k items with the largest inner products; `NO_ROW` where fewer may be shown."""
        return ScoreRecommender(self._score, len(self.item_vectors), self.excluded).recommend(case_rows, k)

    def without(self, excluded: RowSets) -> VectorRecommender:
        """Return the same with other excluded items."""
        return replace(self, excluded=excluded)

    def _score(self, case_rows: Int64) -> Float32:
        scores = self.query_vectors[case_rows] @ self.item_vectors.T
        if self.own_scores is not None:
            own = self.own_scores[case_rows].tocoo()
            scores[own.row, own.col] += own.data
        return scores


def blocks_of(case_rows: Int64, size: int) -> Iterator[Int64]:
    """Yield the rows in blocks of at most `size`; one empty block where there are none."""
    for start in range(0, max(1, len(case_rows)), size):
        yield case_rows[start : start + size]


def largest_scores(scores: Float32, k: int) -> Neighbours:
    """Return the k largest scores of each row, best first, equal ones by lower item row.

    Args:
        scores: `[batch, items]`, float32, no NaN; `-inf` is never returned.
        k: places, >= 1.

    Returns:
        `[batch, k]`; `NO_ROW` and `-inf` where a row has fewer than k scores above `-inf`.
    """
    batch, items = scores.shape
    rank = max(items - k, 0)
    threshold = np.partition(scores, rank, axis=1)[:, rank]
    candidates = (scores >= threshold[:, None]) & (scores > -np.inf)
    rows, columns = np.nonzero(candidates)
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    places = np.arange(len(rows)) - np.searchsorted(rows, np.arange(batch))[rows]
    kept = places < k
    best = Neighbours(np.full((batch, k), NO_ROW, np.int32), np.full((batch, k), -np.inf, np.float32))
    best.item_rows[rows[kept], places[kept]] = columns[kept]
    best.scores[rows[kept], places[kept]] = scores[rows[kept], columns[kept]]
    return best
