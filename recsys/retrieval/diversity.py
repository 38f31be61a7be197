"""Choose few items of many that are not too alike: crowding and maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.cancellation import checkpoint
from recsys.types import Float32, Int64, RowSets


def choose(
    relevance: Float32,
    k: int,
    *,
    mmr_weight: float = 0.0,
    vectors: Float32 | None = None,
    values: RowSets | None = None,
    max_per_value: int = 0,
) -> Int64:
    """Return the places of at most k candidates, best first: each the best that still may follow those above it.

    `argmax_i( (1 - mmr_weight) relevance_i - mmr_weight max_j cosine( vectors_i, vectors_j ) )`, j the chosen ones; the
    first has the largest relevance.

    Reference:
        Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking", Sec. 2 (lambda = 1 - mmr_weight).

    Args:
        relevance: `[candidates]`, not increasing; comparable with cosines where mmr_weight is not 0.
        k: >= 1.
        mmr_weight: 0..1, unitless.
        vectors: `[candidates, dim]`, float32; read where mmr_weight is not 0.
        values: the values of each candidate, `[candidates]`, of which an answer may hold only so many; None for none.
        max_per_value: most chosen candidates of one value, >= 1.
    """
    waiting = np.ones(len(relevance), bool)
    nearest = np.full(len(relevance), -np.inf, np.float32)
    units = None if vectors is None or mmr_weight == 0 else _units(vectors)
    owners = None if values is None else values.owners
    counts: dict[int, int] = {}
    chosen: list[int] = []
    while len(chosen) < k and waiting.any():
        checkpoint()
        if units is None or not chosen:
            place = int(waiting.argmax())  # the first that waits has the largest relevance
        else:
            marginal = (1 - mmr_weight) * relevance - mmr_weight * nearest
            place = int(np.where(waiting, marginal, -np.inf).argmax())
        chosen.append(place)
        waiting[place] = False
        if units is not None:
            np.maximum(nearest, units @ units[place], out=nearest)
        if values is not None:
            for value in values[place].tolist():
                counts[value] = counts.get(value, 0) + 1
                if counts[value] == max_per_value:
                    waiting[owners[values.rows == value]] = False
    return np.array(chosen, np.int64)


def _units(vectors: Float32) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
