"""Which items an answer leaves out, and how deep an index must look to fill the answer without them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.cancellation import checkpoint
from recsys.indexes import Searcher
from recsys.types import NO_ROW, Float32, Int32, is_among
from twintower.types import Exclusions

OVERFETCH = 20
"""Results that a first search returns beyond k where items may be excluded, or k for answers of more items."""
MARGIN = 3.0
"""Standard deviations that a further search goes deeper than the share of excluded items so far asks for."""


@dataclass(slots=True)  # not frozen, which would make one take four times as long: each query of a call gets one
class Excluded:
    """The items that one answer leaves out. Treat as immutable.

    Attributes:
        rows: their rows, ascending and distinct.
        counts: where they are known from; None where the query excludes nothing.
    """

    rows: Int32
    counts: Exclusions | None = None

    @classmethod
    def of(
        cls, *, release: Int32 | None, request: Int32, events: Int32, excluded_ids: Int32, is_reported: bool
    ) -> Excluded:
        """Put the sources together as one set.

        Args:
            release: rows that the release stores, ascending and distinct; None where it does not know the entity.
            request: rows that the query is about or has in its history; as the next two, distinct in any order.
            events: rows that events report.
            excluded_ids: rows that the query names.
            is_reported: whether the query asks for something to be left out, so that the answer has counts.
        """
        given = [rows for rows in (release, request, events, excluded_ids) if rows is not None and len(rows)]
        if len(given) == 1 and given[0] is release:
            union = release
        else:
            union = np.unique(np.concatenate(given)) if given else NOTHING
        if not is_reported:
            return cls(union)
        released = 0 if release is None else len(release)
        counts = Exclusions(len(union), released, len(request), len(events), len(excluded_ids), release is not None)
        return cls(union, counts)


NOTHING: Int32 = np.zeros(0, np.int32)
NOTHING_EXCLUDED = Excluded(NOTHING)
_NO_SCORES: Float32 = np.zeros(0, np.float32)


def search_excluding(
    searcher: Searcher,
    vectors: Float32,
    k: int,
    excluded: Sequence[Excluded],
    items: int,
    *,
    effort: float = 1.0,
) -> list[tuple[Int32, Float32, int]]:
    """Return the rows and scores of the k best items of each query that are not excluded, and how deep it looked.

    A first search for k items returns some more of those that it scores anyway. Where too many of them are excluded,
    deeper searches follow, at most k and the number of excluded items deep. So the cost depends on how many excluded
    items stand among the best ones, not on how many there are. The depth of a search depends on its own query only,
    never on the batch.

    Args:
        searcher: the index.
        vectors: `[batch, dim]`, float32, finite.
        k: items, >= 1.
        excluded: what each answer leaves out.
        items: rows of the catalog.
        effort: see `Searcher.search`.
    """
    best: list[tuple[Int32, Float32, int]] = [(NOTHING, _NO_SCORES, 0)] * len(excluded)
    searches = {min(k + max(OVERFETCH, k), items): list(range(len(excluded)))}
    effort_k = k
    while searches:
        deeper: dict[int, list[int]] = {}
        for depth, places in searches.items():
            own = vectors if len(places) == len(vectors) else vectors[places]
            found = searcher.search(own, depth, effort=effort, effort_k=effort_k)
            for place, rows, scores in zip(places, found.item_rows, found.scores, strict=True):
                checkpoint()
                kept = (~is_among(rows, excluded[place].rows) & (rows != NO_ROW)).nonzero()[0]
                deepest = min(k + len(excluded[place].rows), items)
                if len(kept) >= k or depth >= deepest:
                    best[place] = rows.take(kept[:k]), scores.take(kept[:k]), depth
                else:
                    deeper.setdefault(min(_deeper(depth, len(kept), k), deepest), []).append(place)
        searches, effort_k = deeper, 0
    return best


def _deeper(depth: int, shown: int, k: int) -> int:
    """Return how deep a search goes whose last one had too few items to show; a power of two, so that calls group."""
    wanted = math.ceil((k + MARGIN * math.sqrt(k)) * depth / (shown + 1))
    return 1 << (max(wanted, 2 * depth) - 1).bit_length()
