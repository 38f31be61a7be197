"""Search where not every item may be shown, or not every one beside the others."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from recsys.cancellation import checkpoint
from recsys.export.own_items import OwnItems
from recsys.indexes import ExactSearcher, Searcher
from recsys.registry import settings
from recsys.retrieval.diversity import choose
from recsys.retrieval.filtering import Allowed, FiltersOfParts, ItemFilters
from recsys.types import NO_ROW, Bool, Float32, Int32, Int64, is_among
from twintower.errors import RequestError
from twintower.types import Diversity, SearchPlan

CANDIDATE_NUMBERS = 2000
CALL_CANDIDATES = 80
"""What the index costs: one candidate as much as multiplying so many numbers exactly, and a call by itself as much as
so many candidates. Measured (`make bench-filters`); where both cost alike exact search is taken, which no filter that
goes against the query can make twice as dear."""
POOL_MOST = 2000
POOL_GROWTH = 8
"""Most candidates of a diverse answer at first, and how much deeper to look where too few of them can stand beside each
other."""


@settings()
class Planner:
    """How deep a search goes that may not show everything it finds.

    Attributes:
        margin: standard deviations that an over-fetch goes deeper than what holds k allowed items on average.
        pool: candidates for one place of a diverse answer.
    """

    margin: float = Field(default=3.0, ge=0, le=20)
    pool: int = Field(default=10, ge=2, le=100)

    def pool_k(self, k: int) -> int:
        """Return how many candidates an answer of k diverse items is chosen from at first."""
        return max(2 * k, min(self.pool * k, POOL_MOST))


PLANNER = Planner()


@dataclass(frozen=True)
class Narrow:
    """What the answer to one query may hold.

    Attributes:
        allowed: items that may be shown.
        banned: item rows that may not, although they are allowed, ascending and distinct.
        own: the query entity's own items, whose scores are added; see `fused`.
    """

    allowed: Allowed
    banned: Int32
    own: OwnItems | None = None

    @property
    def shown(self) -> int:
        """How many items may be shown."""
        return self.allowed.count - len(self.banned)

    def passes(self, rows: Int32) -> Bool:
        """Return which rows may be shown; `NO_ROW` may not."""
        kept = (rows != NO_ROW) & self.allowed.mask[rows]
        return kept & ~is_among(rows, self.banned) if len(self.banned) else kept

    @classmethod
    def of(cls, allowed: Allowed, banned: Int32, own: OwnItems | None = None) -> Narrow:
        """Return it from what may be shown, any rows that may not, ascending and distinct, and own items."""
        return cls(allowed, banned[allowed.mask[banned]], own)


@dataclass(frozen=True)
class Found:
    """Items for one query, best first.

    Attributes:
        rows: at most k item rows.
        scores: `[len(rows)]`, float32.
        plan: how they were searched; None where nothing was.
        candidate_count: items that were looked at: results of the index, or items of the subset.
        exhausted: no further item may be shown.
        own_scores: `[len(rows)]`, float32: what the entity's own items added to each score; None where nothing could.
    """

    rows: Int32
    scores: Float32
    plan: SearchPlan | None
    candidate_count: int
    exhausted: bool
    own_scores: Float32 | None = None


def fused(found: Found, own: OwnItems, vector: Float32, vectors: Float32, k: int) -> Found:
    """Return the k items with the largest sums of inner product and own score.

    Own scores are not negative, so that an item which is not the entity's own and is among the k largest sums is among
    the k largest inner products, too: no deeper search is needed.

    Args:
        found: the k items with the largest inner products that may be shown.
        own: the entity's own items that may be shown.
        vector: `[dim]`, float32, the query's.
        vectors: `[items, dim]`, float32.
        k: places, >= 1.
    """
    is_other = ~is_among(found.rows, own.rows)
    rows = np.concatenate([own.rows, found.rows[is_other]])
    scores = np.concatenate([vectors.take(own.rows, axis=0) @ vector + own.scores, found.scores[is_other]])
    own_scores = np.concatenate([own.scores, np.zeros(len(rows) - len(own.rows), np.float32)])
    order = np.lexsort((rows, -scores))[:k]
    # Exact search has looked at the own items, too.
    looked_at = found.candidate_count + (
        len(own.rows) if found.plan in (SearchPlan.INDEX, SearchPlan.OVER_FETCH) else 0
    )
    return Found(rows[order], scores[order], found.plan, looked_at, found.exhausted, own_scores[order])


def over_fetch_depth(k: int, allowed: int, items: int, margin: float = PLANNER.margin) -> int:
    """Return how many results of an index hold k allowed items in all likelihood, where chance alone allows items.

    `(k + margin sqrt(k)) items / allowed`, up to the next power of two, so that calls of like depth go together.

    Args:
        k: places, >= 1.
        allowed: how many of the items are allowed, >= 1.
        items: how many there are.
        margin: see `Planner`.
    """
    if allowed == items:
        return min(k, items)
    depth = math.ceil((k + margin * math.sqrt(k)) * items / allowed)
    return min(1 << (depth - 1).bit_length(), items)


def is_few(allowed: int, depth: int, dim: int) -> bool:
    """Return whether exact search over the allowed items costs less than an index search of this depth."""
    return allowed * dim <= CANDIDATE_NUMBERS * (CALL_CANDIDATES + depth)


class NarrowedSearch:
    """Search with one plan for each query. Safe for calls from several threads.

    Args:
        searcher: the index.
        vectors: `[items, dim]`, float32, what it searches.
        filters: the columns for crowding.
        planner: how deep to look.
    """

    def __init__(
        self,
        searcher: Searcher,
        vectors: Float32,
        filters: ItemFilters | FiltersOfParts,
        planner: Planner = PLANNER,
    ) -> None:
        self._searcher, self._vectors, self._filters, self._planner = searcher, vectors, filters, planner

    def check(self, diversity: Diversity) -> None:
        """Refuse a diversity that cannot be had.

        Raises:
            RequestError: an unknown column, or a number out of its range.
        """
        if diversity.crowding_field:
            self._filters.check_column(diversity.crowding_field, "diversity.crowding_field")
            if diversity.max_per_value is None or diversity.max_per_value < 1:
                raise RequestError("diversity.max_per_value", f"got {diversity.max_per_value}, expected >= 1")
        elif diversity.max_per_value is not None:
            got = diversity.max_per_value
            raise RequestError("diversity.max_per_value", f"got {got} without crowding_field, expected a column there")
        weight = diversity.mmr_weight
        if not isinstance(weight, numbers.Real) or not 0 <= weight <= 1:
            raise RequestError("diversity.mmr_weight", f"got {weight!r}, expected 0 to 1")

    def search(self, vectors: Float32, k: int, narrow: Sequence[Narrow], diversity: Diversity) -> list[Found]:
        """Return the k best items of each query that may be shown, and beside each other.

        Args:
            vectors: `[batch, dim]`, float32, finite.
            k: places, >= 1.
            narrow: what each answer may hold.
            diversity: as checked.
        """
        if diversity.changes_nothing:
            return self._searched(vectors, k, narrow)
        found: list[Found | None] = [None] * len(narrow)
        waiting, pool_k = list(range(len(narrow))), self._planner.pool_k(k)
        while waiting:
            pools = self._searched(vectors[waiting], pool_k, [narrow[place] for place in waiting])
            for place, pool in zip(waiting, pools, strict=True):
                # Own items may add to the inner products, which are at most the length.
                largest = max(float(np.linalg.norm(vectors[place])), float(pool.scores.max(initial=0)), 1e-12)
                chosen = self._diverse(pool, pool.scores / largest, k, diversity)
                if len(chosen.rows) == k or pool.exhausted:
                    found[place] = chosen
            waiting = [place for place in waiting if found[place] is None]
            pool_k *= POOL_GROWTH
        return [each for each in found if each is not None]

    def popular(self, rows: Int64, shares: Float32, k: int, narrow: Narrow, diversity: Diversity) -> Found:
        """Return the k most popular items that may be shown, and beside each other.

        Args:
            rows: `[items]`, most popular first.
            shares: `[items]`, of the interactions, 0..1.
            k: places, >= 1.
            narrow: what the answer may hold.
            diversity: as checked.
        """
        checkpoint()
        kept = narrow.passes(rows)
        rows, shares = rows[kept], shares[kept]
        if diversity.changes_nothing:
            return _best(rows, shares, k, narrow, None, narrow.shown)
        pool_k = self._planner.pool_k(k)
        while True:
            checkpoint()
            pool = _best(rows, shares, pool_k, narrow, None, narrow.shown)
            relevance = pool.scores / max(float(pool.scores.max(initial=0)), 1e-12)
            chosen = self._diverse(pool, relevance, k, diversity)
            if len(chosen.rows) == k or pool.exhausted:
                return chosen
            pool_k *= POOL_GROWTH

    def _diverse(self, pool: Found, relevance: Float32, k: int, diversity: Diversity) -> Found:
        values = None
        if diversity.crowding_field:
            values = self._filters.values(diversity.crowding_field, pool.rows)
        listed = np.arange(len(pool.rows))
        if values is not None and diversity.mmr_weight and len(listed) > self._planner.pool_k(k):
            # Distances within a whole catalogue would take seconds: only the best that can stand together are compared.
            listed = choose(relevance, self._planner.pool_k(k), values=values, max_per_value=diversity.max_per_value)
            values = values.take(listed)
        chosen = listed[
            choose(
                relevance[listed],
                k,
                mmr_weight=diversity.mmr_weight,
                vectors=self._vectors.take(pool.rows[listed], axis=0) if diversity.mmr_weight else None,
                values=values,
                max_per_value=diversity.max_per_value,
            )
        ]
        all_shown = len(chosen) == len(pool.rows) or len(chosen) < k
        return replace(
            pool,
            rows=pool.rows[chosen],
            scores=pool.scores[chosen],
            exhausted=pool.exhausted and all_shown,
            own_scores=None if pool.own_scores is None else pool.own_scores[chosen],
        )

    def _searched(self, vectors: Float32, k: int, narrow: Sequence[Narrow]) -> list[Found]:
        dim = self._vectors.shape[1]
        found: list[Found | None] = [None] * len(narrow)
        exact, indexed = [], {}
        for place, each in enumerate(narrow):
            checkpoint()
            depth = self._depth(k, each) if each.shown else 0
            if each.shown == 0 or is_few(each.allowed.count, depth, dim):
                exact.append(place)
            else:
                indexed.setdefault(depth, []).append(place)
        for depth, places in indexed.items():
            effort = math.sqrt(max(1.0, depth / k))
            results = self._searcher.search(vectors[places], depth, effort=effort)
            for place, rows, scores in zip(places, results.item_rows, results.scores, strict=True):
                checkpoint()
                kept = narrow[place].passes(rows)
                if np.count_nonzero(kept) < min(k, narrow[place].shown):
                    continue
                looked_at = int(np.count_nonzero(rows != NO_ROW))
                found[place] = _best(rows[kept], scores[kept], k, narrow[place], SearchPlan.OVER_FETCH, looked_at)
        escalated = [place for places in indexed.values() for place in places if found[place] is None]
        for places, plan in ((exact, SearchPlan.EXACT_SUBSET), (escalated, SearchPlan.ESCALATED)):
            self._exactly(vectors, k, narrow, places, plan, found)
        return [
            each if own.own is None else fused(each, own.own.where(own.passes(own.own.rows)), vector, self._vectors, k)
            for each, own, vector in zip(found, narrow, vectors, strict=True)
        ]

    def _depth(self, k: int, narrow: Narrow) -> int:
        count = narrow.allowed.count
        return over_fetch_depth(min(k + len(narrow.banned), count), count, len(self._vectors), self._planner.margin)

    def _exactly(
        self,
        vectors: Float32,
        k: int,
        narrow: Sequence[Narrow],
        places: Sequence[int],
        plan: SearchPlan,
        found: list[Found | None],
    ) -> None:
        """Fill in what exact search over the allowed items finds, queries with the same items together."""
        together: dict[int, list[int]] = {}
        for place in places:
            together.setdefault(id(narrow[place].allowed), []).append(place)
        for group in together.values():
            allowed = narrow[group[0]].allowed
            rows = None if allowed.count == len(self._vectors) else allowed.rows
            deepest = min(k + max(len(narrow[place].banned) for place in group), max(allowed.count, 1))
            results = ExactSearcher(self._vectors, rows).search(vectors[group], deepest)
            for place, item_rows, scores in zip(group, results.item_rows, results.scores, strict=True):
                checkpoint()
                kept = narrow[place].passes(item_rows)
                found[place] = _best(item_rows[kept], scores[kept], k, narrow[place], plan, allowed.count)


def _best(rows: Int32, scores: Float32, k: int, narrow: Narrow, plan: SearchPlan | None, candidate_count: int) -> Found:
    return Found(rows[:k], scores[:k], plan, candidate_count, narrow.shown <= k)
