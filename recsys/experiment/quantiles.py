"""Differences of quantiles between two arms, for any number of units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from twintower.errors import describe, verbatim


@dataclass(frozen=True)
class QuantileDifference:
    """How far a quantile of two arms lies apart.

    Attributes:
        quantile: which one, 0..1.
        control: its value in the control.
        value: its value in the other arm.
        difference: value minus control.
        low: lower bound of the interval of the difference; None where there is no interval.
        high: upper bound.
    """

    quantile: float
    control: float
    value: float
    difference: float
    low: float | None
    high: float | None


def quantile_difference(
    control: NDArray[np.float64],
    treatment: NDArray[np.float64],
    quantile: float,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> QuantileDifference:
    """Compare a quantile of two arms by a bootstrap that resamples nothing.

    In a Poisson bootstrap the q-quantile of a resample is the order statistic with a rank that is about
    `Binomial(n + 1, q)`; so the ranks are drawn and one sorted copy of the data is looked up. `tea_tasting.Quantile`,
    SciPy's bootstrap, gives the same bounds but draws `resamples` times the data: hours for a million units.

    There is no interval where an arm has so few units that its smallest and largest value together do not cover the
    quantile with the confidence asked for (`1 - q^n - (1 - q)^n < confidence`: below 6 units for a median at 95 %), nor
    where no unit of an arm differs from another of its arm.

    Reference:
        Schultzberg and Ankargren 2022, Resampling-free bootstrap inference for quantiles, arXiv:2202.10992.

    Args:
        control: `[units]`, float64, finite, one value a unit, at least one.
        treatment: the same of the other arm.
        quantile: 0 < q < 1.
        confidence: level of the interval, 0..1.
        resamples: draws of ranks.
        seed: of the draws.

    Raises:
        ShapeError: an arm without units, a quantile out of its range, or values that are not finite.
    """
    if not 0 < quantile < 1:
        raise ShapeError(describe("quantile", quantile, "a number between 0 and 1, both excluded"))
    if len(control) == 0 or len(treatment) == 0:
        raise ShapeError(describe("units", (len(control), len(treatment)), "at least one in each arm"))
    if not (np.isfinite(control).all() and np.isfinite(treatment).all()):
        raise ShapeError(describe("units", verbatim("NaN or infinity"), "finite values"))
    generator = np.random.default_rng(seed)
    found, drawn = [], []
    for values in (control, treatment):
        ordered = np.sort(values)
        ranks = generator.binomial(len(ordered) + 1, quantile, resamples)
        drawn.append(ordered[np.clip(ranks, 1, len(ordered)) - 1])
        found.append(float(np.quantile(ordered, quantile)))
    difference = found[1] - found[0]
    fewest = min(len(control), len(treatment))
    is_covered = 1 - quantile**fewest - (1 - quantile) ** fewest >= confidence
    if not is_covered or (np.ptp(control) == 0 and np.ptp(treatment) == 0):
        return QuantileDifference(quantile, found[0], found[1], difference, None, None)
    low, high = np.quantile(drawn[1] - drawn[0], [(1 - confidence) / 2, (1 + confidence) / 2])
    return QuantileDifference(quantile, found[0], found[1], difference, float(low), float(high))
