"""Differences between arms by tea-tasting, from nothing but counts, means, variances and covariances of units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats
from tea_tasting import Mean, RatioOfMeans, SampleRatio, adjust_fwer
from tea_tasting.aggr import Aggregates
from tea_tasting.experiment import ExperimentResult
from tea_tasting.metrics.mean import MeanResult

from recsys.errors import RefusedError, describe
from recsys.experiment.sequential import always_valid_half_width


@dataclass(frozen=True)
class Effect:
    """What an arm did to one metric.

    Attributes:
        metric: its name.
        arm: compared with the control.
        group: a day or a slice; empty for all units.
        adjusted: whether by CUPED.
        control: the metric in the control.
        value: in the arm; both adjusted where CUPED was applied.
        difference: value minus control.
        low: lower bound of the interval of the difference, for one look at a size that was settled before.
        high: upper bound.
        relative_difference: the difference as a share of the control's value.
        relative_low: lower bound of that.
        relative_high: upper bound.
        always_low: lower bound of the interval that holds at every look.
        always_high: upper bound.
        standard_error: of the difference.
        p_value: of Welch's t test, two-sided, 0..1; 1 where no unit differs from another.
        corrected_p_value: after Holm's correction for the number of comparisons made together.
    """

    metric: str
    arm: str
    group: str
    adjusted: bool
    control: float
    value: float
    difference: float
    low: float
    high: float
    relative_difference: float
    relative_low: float
    relative_high: float
    always_low: float
    always_high: float
    standard_error: float
    p_value: float
    corrected_p_value: float


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
    """Compare one metric of two arms.

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
    """
    for name, moments in (("control", control), (arm, treatment)):
        if moments.count() < 2:
            advice = "Wait for more, or look whether the log and the experiment belong together."
            raise RefusedError(describe(f"units in arm {name}", moments.count(), "at least 2", advice))
    adjusted = measured.numer_covariate is not None
    if _constant(control, measured) and _constant(treatment, measured):
        contents = [moments.mean(measured.numer) / moments.mean(measured.denom) for moments in (control, treatment)]
        apart = contents[1] - contents[0]
        relative = apart / contents[0] if contents[0] else math.nan
        bounds = (apart, apart, apart, relative, relative, relative, apart, apart)
        return Effect(metric, arm, group, adjusted, *contents, *bounds, 0.0, 1.0, 1.0)
    found = measured.analyze_aggregates(control, treatment)
    error = _standard_error(control, treatment, measured, found)
    units = control.count() + treatment.count()
    planned_units = units if planned_units is None else planned_units
    half = always_valid_half_width(
        error, units, planned_units=planned_units, alpha=(1 - measured.confidence_level) / comparisons
    )
    return Effect(
        metric=metric,
        arm=arm,
        group=group,
        adjusted=adjusted,
        control=float(found.control),
        value=float(found.treatment),
        difference=float(found.effect_size),
        low=float(found.effect_size_ci_lower),
        high=float(found.effect_size_ci_upper),
        relative_difference=float(found.rel_effect_size),
        relative_low=float(found.rel_effect_size_ci_lower),
        relative_high=float(found.rel_effect_size_ci_upper),
        always_low=float(found.effect_size - half),
        always_high=float(found.effect_size + half),
        standard_error=error,
        p_value=found.pvalue,
        corrected_p_value=found.pvalue,
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
    """Return the effects with p-values corrected by Holm for their number, by tea-tasting.

    Reference:
        Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6.
    """
    results = {str(place): {"pvalue": effect.p_value} for place, effect in enumerate(effects)}
    if not results:
        return []
    found = adjust_fwer(ExperimentResult(results), arbitrary_dependence=True, method="bonferroni")
    adjusted = {row["metric"]: row["pvalue_adj"] for row in found.to_dicts()}
    return [
        replace(effect, corrected_p_value=float(adjusted[str(place)])) for place, effect in enumerate(effects)
    ]  # fmt: skip


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


def _standard_error(control: Aggregates, treatment: Aggregates, measured: RatioOfMeans, found: MeanResult) -> float:
    """Return the standard error, which tea-tasting tells only through the statistic or a normal interval."""
    if found.statistic != 0:
        return float(found.effect_size / found.statistic)
    columns = (measured.numer, measured.denom, measured.numer_covariate, measured.denom_covariate)
    normal = RatioOfMeans(*columns, confidence_level=0.95, alternative="two-sided", use_t=False, equal_var=False)
    result = normal.analyze_aggregates(control, treatment)
    width = result.effect_size_ci_upper - result.effect_size_ci_lower
    return float(width / (2 * stats.norm.ppf(0.975)))


def _constant(moments: Aggregates, measured: RatioOfMeans) -> bool:
    return moments.ratio_var(measured.numer, measured.denom) <= 0
