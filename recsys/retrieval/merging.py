"""Results of searches: without what may not be shown, and several in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.types import NO_ROW, Bool, Neighbours


def first_kept(found: Neighbours, kept: Bool, k: int) -> Neighbours:
    """Return the first k kept results of each query, in their order; `NO_ROW` where there are fewer.

    Args:
        found: `[batch, depth]`.
        kept: `[batch, depth]`, false at `NO_ROW`.
        k: places, >= 1.
    """
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(kept, order, axis=1)
    rows = np.where(kept, np.take_along_axis(found.item_rows, order, axis=1), NO_ROW)
    scores = np.where(kept, np.take_along_axis(found.scores, order, axis=1), -np.inf)
    missing = ((0, 0), (0, k - rows.shape[1]))
    return Neighbours(
        np.pad(rows, missing, constant_values=NO_ROW).astype(np.int32),
        np.pad(scores, missing, constant_values=-np.inf).astype(np.float32),
    )


def merged(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """Return the k best of several results for the same queries; ties go to the earlier part.

    Args:
        parts: `[batch, any]` each, with no row in two of them.
        k: places, >= 1, at most those of all parts together.
    """
    rows = np.concatenate([part.item_rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))
