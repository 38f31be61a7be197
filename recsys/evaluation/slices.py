"""Cut the judgement into parts: by how often an item was seen in training, and by how active the query entity was."""

from __future__ import annotations

import numpy as np

from recsys.types import Bool, Int64

ALL = "all"
"""The slice of every item and every case."""

REPEATS, NEW_ITEMS = "repeats", "new_items"
"""Slices of cases whose query entities come back to items, which are judged apart."""

DEFINITIONS = {
    ALL: "every case",
    "head": "relevant items among the top 10 % of the catalog by training count",
    "torso": "relevant items that were trained on and are neither head nor tail",
    "tail": "relevant items in the lower half, by training count, of those trained on and not head",
    "cold": "relevant items without a training interaction",
    REPEATS: "relevant items that the query entity met before; only where they may be shown",
    NEW_ITEMS: "relevant items that it did not meet before, in rankings without those that it met",
    "new": "query entity without a training interaction",
    "light": "lowest third of the other query entities by training interactions",
    "medium": "middle third",
    "heavy": "highest third",
}
"""Every slice, in the order of a report, with what it holds in words."""


def item_slices(item_counts: Int64) -> dict[str, Bool]:
    """Return which items belong to head, torso, tail and cold; each item belongs to exactly one.

    Items are ordered by training count, the highest first, equal counts by row. With n items of which t were trained
    on: head is the first `min(ceil(n / 10), t)`; tail is the last `floor((t - head) / 2)` of those trained on; torso
    what lies between; cold the `n - t` with count 0.

    Args:
        item_counts: `[items]`, int64, training interactions of each item of the catalogue.

    Returns:
        By slice name: `[items]`, bool.
    """
    items = len(item_counts)
    order = np.lexsort((np.arange(items), -item_counts))
    trained = int(np.count_nonzero(item_counts))
    head = min(-(-items // 10), trained)
    tail = (trained - head) // 2
    bounds = {"head": (0, head), "torso": (head, trained - tail), "tail": (trained - tail, trained)}
    members = {name: np.zeros(items, bool) for name in bounds}
    for name, (start, stop) in bounds.items():
        members[name][order[start:stop]] = True
    return {**members, "cold": item_counts == 0}


def activity_slices(activity: Int64) -> dict[str, Bool]:
    """Return which cases have a new, light, medium or heavy query entity; each case belongs to exactly one.

    The active cases (activity > 0) are cut at the smallest values that at least one third and two thirds of them do not
    exceed. Cases of the same activity stay together, so that a case's slice does not depend on the order of the cases;
    where many share one activity, the thirds are of unequal size.

    Args:
        activity: `[cases]`, int64, training interactions of each case's query entity.

    Returns:
        By slice name: `[cases]`, bool.
    """
    active = activity > 0
    if not active.any():
        return {"new": ~active, "light": active, "medium": active, "heavy": active}
    lower, upper = np.quantile(activity[active], [1 / 3, 2 / 3], method="inverted_cdf")
    return {
        "new": ~active,
        "light": active & (activity <= lower),
        "medium": (activity > lower) & (activity <= upper),
        "heavy": activity > upper,
    }
