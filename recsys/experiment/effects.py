"""Differences between arms, computed from counts, means, variances and covariances of units alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from tea_tasting import Mean, RatioOfMeans, SampleRatio, adjust_fwer
from tea_tasting.aggr import Aggregates
from tea_tasting.experiment import ExperimentResult

from recsys.errors import RefusedError
from recsys.experiment.sequential import always_valid_half_width
from twintower.errors import describe

NOISE = 1e-12
"""Variance below this share of its own terms, or deviations below this share of the mean, are rounding errors."""


@dataclass(frozen=True)
class Effect:
    """What an arm did to one metric.

    A number that the data cannot give is None; NaN and infinity never occur.

    Attributes:
        metric: its name.
        arm: compared with the control.
        group: a day or a slice; empty for all units.
        adjusted: whether by CUPED.
        control: the metric in the control; None where its denominator adds up to 0.
        value: in the arm; both adjusted where CUPED was applied.
        difference: value minus control.
        low: lower bound of the interval of the difference, for one look at a size that was settled before.
        high: upper bound.
        relative_difference: the difference as a share of the control's value; None where that is not above 0.
        relative_low: lower bound of that; None also where the arm's value is not above 0.
        relative_high: upper bound.
        always_low: lower bound of the interval that holds at every look.
        always_high: upper bound.
        standard_error: of the difference.
        p_value: of Welch's t test, two-sided, 0..1.
        corrected_p_value: after Holm's correction for the number of comparisons made together.
        reason: why there is no interval, and so no verdict; empty where there is one.
    """

    metric: str
    arm: str
    group: str
    adjusted: bool
    control: float | None = None
    value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    relative_difference: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    always_low: float | None = None
    always_high: float | None = None
    standard_error: float | None = None
    p_value: float | None = None
    corrected_p_value: float | None = None
    reason: str = ""


def difference(
    metric: str,
    arm: str,
    control: Aggregates,
    treatment: Aggregates,
    measured: RatioOfMeans,
    *,
    group: str = "",
    planned_units: float | None = None,
    comparisons: int = 1,
) -> Effect:
    """Compare one metric of two arms by Welch's t test.

    Relative bounds are those of `exp( log(value / control) +- t * se )`, by the delta method. Both are the formulas of
    tea-tasting, which the tests compare them with; its own code stops at means near 0 (OverflowError).

    Args:
        metric: its name.
        arm: the other arm's name.
        control: moments of the control's units.
        treatment: moments of the arm's units.
        measured: tea-tasting's metric over the names of the moments; its covariates make it CUPED.
        group: the day or slice that the units were added up over.
        planned_units: at which the always-valid interval is tightest; default: as many as there are now, which is
            chosen after looking: good for a year of daily looks (5 % false alarms in simulations), not for ever.
        comparisons: made together; the always-valid interval is Bonferroni's for them.

    Raises:
        RefusedError: an arm with fewer than two units.
        SettingError: `planned_units` is not above 0.
    """
    for name, moments in (("control", control), (arm, treatment)):
        if moments.count() < 2:
            advice = "Wait for more, or look whether the log and the experiment belong together."
            raise RefusedError(describe(f"units in arm {name}", moments.count(), "at least 2", advice))
    empty = Effect(metric, arm, group, measured.numer_covariate is not None)
    for name, moments in (("control", control), (arm, treatment)):
        if not moments.mean(measured.denom) > 0:
            return replace(empty, reason=f"arm {name} has no {measured.denom}")
    both = [moments.with_zero_div() for moments in (control, treatment)]
    slope, center = _covariate(both[0] + both[1], measured)
    first, second = (_estimate(moments, measured, slope, center) for moments in both)
    if not (math.isfinite(first.mean) and math.isfinite(second.mean) and math.isfinite(second.mean - first.mean)):
        return replace(empty, reason="its values are too large to add up")
    found = replace(empty, control=first.mean, value=second.mean, difference=second.mean - first.mean)
    if first.mean > 0:
        found = replace(found, relative_difference=_finite(second.mean / first.mean - 1))
    error, freedom = _welch(first, second)
    if error == 0:
        return replace(found, reason="no unit of an arm differs from another of its arm, so there is no interval")
    units = control.count() + treatment.count()
    alpha = 1 - measured.confidence_level
    half = float(stats.t.isf(alpha / 2, freedom)) * error
    planned_units = units if planned_units is None else planned_units
    always_half = always_valid_half_width(error, units, planned_units=planned_units, alpha=alpha / comparisons)
    if not all(map(math.isfinite, (half, always_half, abs(found.difference) + half + always_half))):
        return replace(found, reason="its values vary too much for a number to hold")
    p_value = float(2 * stats.t.sf(abs(found.difference) / error, freedom))
    relative_low, relative_high = _relative_bounds(first, second, alpha)
    return replace(
        found,
        low=found.difference - half,
        high=found.difference + half,
        relative_low=relative_low,
        relative_high=relative_high,
        always_low=found.difference - always_half,
        always_high=found.difference + always_half,
        standard_error=error,
        p_value=p_value,
        corrected_p_value=p_value,
    )


def ratio_metric(
    numerator: str, denominator: str | None, *, suffix: str | None = None, confidence: float = 0.95
) -> RatioOfMeans:
    """Return tea-tasting's metric over columns: a mean, or a ratio of sums by the delta method.

    Reference:
        Deng, Knoblich and Lu 2018, Applying the delta method in metric analytics, KDD. CUPED: Deng, Xu, Kohavi and
        Walker 2013, Improving the sensitivity of online controlled experiments by utilizing pre-experiment data, WSDM.

    Args:
        numerator: column of the numerator.
        denominator: column of the denominator; None makes it a mean over units.
        suffix: ends the names of the covariates' columns; None leaves CUPED out.
        confidence: level of the intervals, 0..1.
    """
    settings = {"confidence_level": confidence, "alternative": "two-sided", "use_t": True, "equal_var": False}
    if denominator is None:
        return Mean(numerator, None if suffix is None else numerator + suffix, **settings)
    covariates = (None, None) if suffix is None else (numerator + suffix, denominator + suffix)
    return RatioOfMeans(numerator, denominator, *covariates, **settings)


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """Return the effects with p-values corrected by Holm for their number, those without a p-value included.

    Reference:
        Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6.
    """
    p_values = [1.0 if effect.p_value is None else effect.p_value for effect in effects]
    results = {str(place): {"pvalue": p_value} for place, p_value in enumerate(p_values)}
    if not results:
        return []
    found = adjust_fwer(ExperimentResult(results), arbitrary_dependence=True, method="bonferroni")
    adjusted = {row["metric"]: row["pvalue_adj"] for row in found.to_dicts()}
    return [
        effect if effect.p_value is None else replace(effect, corrected_p_value=float(adjusted[str(place)]))
        for place, effect in enumerate(effects)
    ]


def sample_ratio(counts: Mapping[str, int], shares: Mapping[str, float], control: str) -> float:
    """Return how likely so uneven counts are, were units assigned with the given shares.

    Two arms: tea-tasting's test. More: the smallest p-value against the control, times their number.

    Args:
        counts: units by arm; an arm without units counts 0.
        shares: of units by arm, > 0, any scale.
        control: the control's name.

    Returns:
        The p-value, 0..1.
    """
    others = [arm for arm in shares if arm != control]
    moments = {arm: Aggregates(counts.get(arm, 0)) for arm in shares}
    p_values = [
        SampleRatio(shares[arm] / shares[control]).analyze(moments, control, arm).pvalue
        if counts.get(arm, 0) + counts.get(control, 0)
        else 1.0
        for arm in others
    ]
    return min(1.0, len(p_values) * min(p_values))


@dataclass(frozen=True)
class _Estimate:
    """A metric in one arm: its value, the variance of one unit, 0 where units differ by rounding alone, and units."""

    mean: float
    variance: float
    count: int


def _covariate(total: Aggregates, measured: RatioOfMeans) -> tuple[float, float]:
    """Return CUPED's slope and the covariate's mean over both arms; 0 and 0 without a covariate that varies."""
    numer, denom = measured.numer_covariate, measured.denom_covariate
    if numer is None or not total.mean(denom) > 0:
        return 0.0, 0.0
    variance = total.ratio_var(numer, denom)
    if not variance > _rounding(total, numer, denom):
        return 0.0, 0.0
    slope = total.ratio_cov(measured.numer, measured.denom, numer, denom) / variance
    return slope, total.mean(numer) / total.mean(denom)


def _estimate(moments: Aggregates, measured: RatioOfMeans, slope: float, center: float) -> _Estimate:
    mean = moments.mean(measured.numer) / moments.mean(measured.denom)
    variance = moments.ratio_var(measured.numer, measured.denom)
    rounding = _rounding(moments, measured.numer, measured.denom)
    if slope:
        numer, denom = measured.numer_covariate, measured.denom_covariate
        covariance = moments.ratio_cov(measured.numer, measured.denom, numer, denom)
        past = slope * slope * moments.ratio_var(numer, denom)
        mean -= slope * (moments.mean(numer) / moments.mean(denom) - center)
        rounding += NOISE * (variance + past)
        variance += past - 2 * slope * covariance
    return _Estimate(float(mean), 0.0 if variance <= rounding else float(variance), moments.count())


def _rounding(moments: Aggregates, numer: str, denom: str | None) -> float:
    """Return the variance that rounding alone may leave of a ratio that is the same for every unit."""
    ratio = moments.mean(numer) / moments.mean(denom)
    terms = (moments.var(numer) + ratio * ratio * moments.var(denom)) / moments.mean(denom) / moments.mean(denom)
    return NOISE * (terms * (denom is not None) + NOISE * ratio * ratio)


def _welch(first: _Estimate, second: _Estimate) -> tuple[float, float]:
    """Return the standard error of a difference and its degrees of freedom."""
    parts = [one.variance / one.count for one in (first, second)]
    if sum(parts) == 0:
        return 0.0, 1.0
    shares = [part / sum(parts) for part in parts]
    freedom = 1 / sum(share**2 / (one.count - 1) for share, one in zip(shares, (first, second), strict=True))
    return math.sqrt(sum(parts)), freedom


def _relative_bounds(first: _Estimate, second: _Estimate, alpha: float) -> tuple[float | None, float | None]:
    """Return the bounds of the relative difference; none where a value is not above 0 or a bound fits no number."""
    if first.mean <= 0 or second.mean <= 0:
        return None, None
    logs = [_Estimate(math.log(one.mean), one.variance / one.mean / one.mean, one.count) for one in (first, second)]
    error, freedom = _welch(*logs)
    middle, half = logs[1].mean - logs[0].mean, stats.t.isf(alpha / 2, freedom) * error
    with np.errstate(over="ignore"):
        low, high = (_finite(np.expm1(middle + side * half)) for side in (-1, 1))
    return (None, None) if low is None or high is None else (low, high)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
