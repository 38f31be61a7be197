"""Whether query entities come back to the items that they have met: groceries and songs, not films and articles."""

from __future__ import annotations

import numpy as np

from recsys.types import Interactions

MIN_REPEAT_RATE = 0.1
"""Share of repeats from which on data are repeat consumption."""


def repeat_rate(interactions: Interactions) -> float:
    """Return the share (0..1) of interactions whose query entity has met the item at an earlier instant.

    Without times, every interaction beyond the first of a pair counts.

    Args:
        interactions: in any order.
    """
    if len(interactions) == 0:
        return 0.0
    keys = np.asarray(interactions.query_row, np.int64) << 32 | np.asarray(interactions.item_row)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = keys[1:] != keys[:-1]
    if interactions.timestamp is None:
        return float((~is_first).mean())
    times, starts = np.asarray(interactions.timestamp)[order], np.flatnonzero(is_first)
    first_times = np.repeat(np.minimum.reduceat(times, starts), np.diff(starts, append=len(keys)))
    return float((times > first_times).mean())


def is_repeat_consumption(interactions: Interactions) -> bool:
    """Return whether the repeat rate reaches `MIN_REPEAT_RATE`."""
    return repeat_rate(interactions) >= MIN_REPEAT_RATE
