"""Percentile bootstrap intervals of means over cases.

They say how far a mean would move with another draw of test cases. They do not cover another seed of the training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

BLOCK_DRAWS = 2**22
"""Case draws that are held in memory at once: 64 MB of indices and counts."""


@dataclass(frozen=True)
class Interval:
    """Bounds of several means.

    Attributes:
        low: `[columns]`, float64, in the unit of the values.
        high: `[columns]`, float64.
    """

    low: Float64
    high: Float64


def bootstrap_means(values: Float64, *, confidence: float, resamples: int, seed: int) -> Interval:
    """Return an interval around the mean of each column.

    Every resample draws as many cases as there are, with replacement; all columns share the draws, so that the means of
    columns measured on the same cases move together. The bounds are the `(1 - confidence) / 2` quantile of the
    resampled means and its mirror image. `scipy.stats.bootstrap` gives the same bounds but draws anew for each column.

    Reference:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, Sec. 13.3.

    Args:
        values: `[cases, columns]`, float64, finite, at least one case.
        confidence: level of the interval, 0..1.
        resamples: bootstrap resamples, >= 1.
        seed: of the draws; the same seed gives the same interval.
    """
    cases = len(values)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_DRAWS // cases)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = generator.integers(0, cases, (size, cases)) + np.arange(size)[:, None] * cases
        times_drawn = np.bincount(draws.ravel(), minlength=size * cases).reshape(size, cases)
        means.append(times_drawn.astype(np.float64) @ values / cases)
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside], axis=0)
    return Interval(low, high)
