"""What a set of rankings shows of the catalogue: how much of it, how evenly, and how popular it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.types import NO_ROW, Int32, Int64


@dataclass(frozen=True)
class Exposure:
    """What the first places of all rankings show, measured over all cases together.

    Attributes:
        cutoff: places of each ranking that count.
        coverage: share of the catalogue shown at least once, 0..1.
        gini: Gini coefficient of how often each item of the catalogue is shown, 0 (all alike) to nearly 1 (one item).
        popularity_percentile: mean over the places shown of the item's percentile of training count, 0..1; 0.5 is what
            items drawn at random from the catalogue give.
        mean_log_count: mean over the places shown of `log(1 + training count)`, in nats.
    """

    cutoff: int
    coverage: float
    gini: float
    popularity_percentile: float
    mean_log_count: float


def measure_exposure(ranked: Int32, item_counts: Int64, cutoff: int) -> Exposure:
    """Return what the first `cutoff` places show.

    `gini = sum_i( (2 i - items - 1) * shown_i ) / ( items * sum_i( shown_i ) )`, shown in ascending order, i from 1

    Args:
        ranked: `[cases, k]`, int32, item rows, best first; `NO_ROW` after the last.
        item_counts: `[items]`, int64, training interactions of each item of the catalogue.
        cutoff: places that count, >= 1.

    Returns:
        The exposure; all zero where nothing at all was shown.
    """
    places = ranked[:, :cutoff]
    rows = places[places != NO_ROW]
    if len(rows) == 0:
        return Exposure(cutoff, 0.0, 0.0, 0.0, 0.0)
    items = len(item_counts)
    shown = np.bincount(rows, minlength=items)
    weights = 2.0 * np.arange(1, items + 1) - items - 1
    return Exposure(
        cutoff=cutoff,
        coverage=float(np.count_nonzero(shown) / items),
        gini=float(weights @ np.sort(shown) / (items * len(rows))),
        popularity_percentile=float(shown @ popularity_percentiles(item_counts) / len(rows)),
        mean_log_count=float(shown @ np.log1p(item_counts) / len(rows)),
    )


def popularity_percentiles(item_counts: Int64) -> NDArray[np.float64]:
    """Return each item's place in the catalogue ordered by training count.

    `(items with a lower count + half of the items with the same count) / items`

    Args:
        item_counts: `[items]`, int64, training interactions of each item.

    Returns:
        `[items]`, float64, between 0 and 1, mean 0.5.
    """
    _, inverse, sizes = np.unique(item_counts, return_inverse=True, return_counts=True)
    return ((np.cumsum(sizes) - sizes / 2) / len(item_counts))[inverse]
