"""Differences between arms, against SciPy, statsmodels and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from tea_tasting import Quantile

from recsys.errors import RefusedError, ShapeError
from recsys.experiment.effects import corrected, difference, ratio_metric, sample_ratio
from recsys.experiment.power import design
from recsys.experiment.quantiles import quantile_difference
from recsys.experiment.sequential import always_valid_half_width
from recsys.experiment.units import moments_of
from twintower.errors import SettingError

EXACT = {"rel": 1e-9, "abs": 1e-12}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    draw = np.random.default_rng(11)
    units = 3000
    arm = draw.integers(0, 2, units)
    taste = draw.gamma(2.0, 1.0, units)
    exposures, before = draw.poisson(4 * taste) + 1, draw.poisson(4 * taste) + 1
    return pl.DataFrame(
        {
            "unit": [f"u{number}" for number in range(units)],
            "arm": np.where(arm == 1, "new", "control"),
            "exposures": exposures.astype(float),
            "clicks": draw.binomial(exposures, 0.1 + 0.02 * arm).astype(float),
            "exposures_before": before.astype(float),
            "clicks_before": draw.binomial(before, 0.1).astype(float),
        }
    )


def effect_of(frame, measured):
    columns = ("exposures", "clicks", "exposures_before", "clicks_before")
    moments = moments_of(frame, columns, ("arm",))
    return difference("clicks", "new", moments["control",], moments["new",], measured)


def split(frame, *columns):
    parts = [frame.filter(arm=arm) for arm in ("control", "new")]
    return [[part[column].to_numpy() for column in columns] for part in parts]


def test_the_difference_of_means_is_welch_s(frame):
    effect = effect_of(frame, ratio_metric("clicks", None))
    (control,), (new,) = split(frame, "clicks")
    reference = stats.ttest_ind(new, control, equal_var=False)
    assert effect.p_value == pytest.approx(reference.pvalue, **EXACT)
    interval = reference.confidence_interval(0.95)
    assert (effect.low, effect.high) == (pytest.approx(interval.low, **EXACT), pytest.approx(interval.high, **EXACT))
    means = CompareMeans(DescrStatsW(new), DescrStatsW(control))
    assert effect.low == pytest.approx(means.tconfint_diff(usevar="unequal")[0], **EXACT)
    assert effect.standard_error == pytest.approx(means.std_meandiff_separatevar, **EXACT)


def test_the_difference_of_ratios_is_a_regression_with_errors_clustered_by_unit(frame):
    effect = effect_of(frame, ratio_metric("clicks", "exposures"))
    variances = []
    for clicks, exposures in split(frame, "clicks", "exposures"):
        # A ratio of sums is the weighted mean of unit ratios; its cluster-robust variance (CR0, one unit one cluster)
        # is sum( (clicks - ratio * exposures)^2 ) / sum(exposures)^2; the delta method has n - 1 for n.
        fit = sm.WLS(clicks / exposures, np.ones(len(clicks)), weights=exposures).fit(cov_type="HC0")
        variances.append(fit.cov_params()[0, 0] * len(clicks) / (len(clicks) - 1))
    assert effect.standard_error == pytest.approx(math.sqrt(sum(variances)), **EXACT)
    (clicks, exposures), (new_clicks, new_exposures) = split(frame, "clicks", "exposures")
    assert effect.control == pytest.approx(clicks.sum() / exposures.sum(), **EXACT)
    assert effect.difference == pytest.approx(
        new_clicks.sum() / new_exposures.sum() - clicks.sum() / exposures.sum(), **EXACT
    )


def test_cuped_is_the_regression_on_the_past_and_narrows_by_the_correlation(frame):
    plain = effect_of(frame, ratio_metric("clicks", None))
    effect = effect_of(frame, ratio_metric("clicks", None, suffix="_before"))
    clicks, past = frame["clicks"].to_numpy(), frame["clicks_before"].to_numpy()
    slope = np.cov(clicks, past)[0, 1] / np.var(past, ddof=1)
    rest = clicks - slope * (past - past.mean())
    new = (frame["arm"] == "new").to_numpy()
    reference = stats.ttest_ind(rest[new], rest[~new], equal_var=False)
    assert effect.difference == pytest.approx(rest[new].mean() - rest[~new].mean(), **EXACT)
    assert effect.p_value == pytest.approx(reference.pvalue, **EXACT)
    rho = np.corrcoef(clicks, past)[0, 1]
    # The arms' own means are part of the pooled variance, so theory holds up to the effect's size.
    assert effect.standard_error / plain.standard_error == pytest.approx(math.sqrt(1 - rho**2), rel=0.01)
    assert effect.adjusted
    assert not plain.adjusted


def test_cuped_of_ratios_is_the_plain_one_on_linearised_values(frame):
    effect = effect_of(frame, ratio_metric("clicks", "exposures", suffix="_before"))
    columns = ("clicks", "exposures", "clicks_before", "exposures_before")
    total = {name: frame[name].mean() for name in columns}

    def linear(part, numerator, denominator):
        n, d = part[columns.index(numerator)], part[columns.index(denominator)]
        return (n - n.mean() / d.mean() * d) / d.mean(), n.mean() / d.mean()

    whole = [frame[name].to_numpy() for name in columns]
    now, _ = linear(whole, "clicks", "exposures")
    past, _ = linear(whole, "clicks_before", "exposures_before")
    slope = np.cov(now, past)[0, 1] / np.var(past, ddof=1)
    centre = total["clicks_before"] / total["exposures_before"]
    values, variances = [], []
    for part in split(frame, *columns):
        here, ratio = linear(part, "clicks", "exposures")
        there, ratio_before = linear(part, "clicks_before", "exposures_before")
        values.append(ratio - slope * (ratio_before - centre))
        variances.append(np.var(here - slope * there, ddof=1) / len(here))
    assert effect.difference == pytest.approx(values[1] - values[0], **EXACT)
    assert effect.standard_error == pytest.approx(math.sqrt(sum(variances)), **EXACT)


@pytest.mark.parametrize("denominator", [None, "exposures"])
@pytest.mark.parametrize("suffix", [None, "_before"])
def test_every_number_is_tea_tasting_s(frame, denominator, suffix):
    measured = ratio_metric("clicks", denominator, suffix=suffix)
    moments = moments_of(frame, ("exposures", "clicks", "exposures_before", "clicks_before"), ("arm",))
    found = difference("clicks", "new", moments["control",], moments["new",], measured)
    reference = measured.analyze_aggregates(moments["control",], moments["new",])
    for name, other in [
        ("control", "control"), ("value", "treatment"), ("difference", "effect_size"), ("low", "effect_size_ci_lower"),
        ("high", "effect_size_ci_upper"), ("relative_difference", "rel_effect_size"),
        ("relative_low", "rel_effect_size_ci_lower"), ("relative_high", "rel_effect_size_ci_upper"),
        ("p_value", "pvalue"),
    ]:  # fmt: skip
        assert getattr(found, name) == pytest.approx(getattr(reference, other), **EXACT), name
    assert found.difference / found.standard_error == pytest.approx(reference.statistic, **EXACT)


def test_holm_is_statsmodels_holm(frame):
    effect = effect_of(frame, ratio_metric("clicks", None))
    p_values = [0.03, 0.001, 0.2, 0.04, 1.0]
    found = corrected([replace(effect, p_value=value) for value in p_values])
    expected = multipletests(p_values, method="holm")[1]
    assert [one.corrected_p_value for one in found] == pytest.approx(expected, **EXACT)
    assert corrected([]) == []


def test_a_metric_that_never_moves_has_no_interval_and_no_warning(frame):
    still = frame.with_columns(clicks=pl.lit(0.0))
    effect = effect_of(still, ratio_metric("clicks", "exposures"))
    assert (effect.difference, effect.low, effect.high, effect.p_value) == (0, None, None, None)
    assert effect.relative_difference is None
    assert effect.reason


def test_arms_that_are_exactly_alike_still_have_a_standard_error(frame):
    control = frame.filter(arm="control")
    alike = pl.concat([control, control.with_columns(arm=pl.lit("new"))])
    effect = effect_of(alike, ratio_metric("clicks", None))
    clicks = control["clicks"].to_numpy()
    assert effect.difference == 0
    assert effect.standard_error == pytest.approx(math.sqrt(2 * np.var(clicks, ddof=1) / len(clicks)), **EXACT)


def test_an_arm_of_one_unit_is_refused(frame):
    with pytest.raises(RefusedError, match="units in arm new: got 1, expected at least 2"):
        effect_of(
            pl.concat([frame.filter(arm="control"), frame.filter(arm="new").head(1)]), ratio_metric("clicks", None)
        )


@pytest.mark.parametrize("counts", [(520, 480), (400, 390), (51_000, 49_000), (50_100, 49_900)])
def test_the_sample_ratio_test_is_binomial(counts):
    p_value = sample_ratio({"control": counts[0], "new": counts[1]}, {"control": 0.5, "new": 0.5}, "control")
    if sum(counts) < 1000:
        expected = stats.binomtest(counts[1], sum(counts), 0.5).pvalue
    else:
        # Normal with a continuity correction of half a unit: |k - n / 2| - 1/2 over sqrt(n) / 2.
        expected = 2 * stats.norm.sf((abs(counts[1] - sum(counts) / 2) - 0.5) / (math.sqrt(sum(counts)) / 2))
    assert p_value == pytest.approx(expected, **EXACT)


def test_the_sample_ratio_test_knows_unequal_shares_empty_arms_and_many_arms():
    shares = {"control": 0.8, "new": 0.2}
    assert sample_ratio({"control": 8000, "new": 2000}, shares, "control") == 1
    assert sample_ratio({"control": 5000, "new": 5000}, shares, "control") < 1e-9
    assert sample_ratio({"control": 5000}, shares, "control") < 1e-9
    three = {"control": 1.0, "a": 1.0, "b": 1.0}
    pair = sample_ratio({"control": 5000, "a": 5200}, {"control": 1, "a": 1}, "control")
    assert sample_ratio({"control": 5000, "a": 5200, "b": 5010}, three, "control") == pytest.approx(2 * pair)


@pytest.mark.parametrize(("units", "planned"), [(100, 1000), (5000, 5000), (90_000, 10_000)])
def test_at_the_bound_the_mixture_of_likelihood_ratios_is_one_over_alpha(units, planned):
    alpha, deviation = 0.05, 2.0
    half = always_valid_half_width(deviation / math.sqrt(units), units, planned_units=planned, alpha=alpha)
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned)
    # Robbins' mixture: integral over N(0, rho^2) of exp(n * (m * x / s - m^2 / 2)), x the standardised estimate.
    x = half / deviation

    def ratio(m):
        return math.exp(units * (m * x - m * m / 2)) * stats.norm.pdf(m, scale=rho)

    peak = x * units / (units + 1 / rho**2)
    width = 12 / math.sqrt(units + 1 / rho**2)
    mixture = integrate.quad(ratio, peak - width, peak + width, epsabs=0, epsrel=1e-12)[0]
    assert mixture == pytest.approx(1 / alpha, rel=1e-9)


def test_the_always_valid_interval_is_wider_than_a_fixed_one_and_tightest_about_where_it_was_planned():
    relative = {
        planned: always_valid_half_width(1.0, 1000, planned_units=planned, alpha=0.05)
        for planned in (10, 1000, 100_000)
    }
    assert 1.96 < relative[1000] < min(relative[10], relative[100_000])


def test_quantiles_agree_with_tea_tasting_s_bootstrap(frame):
    (control,), (new,) = split(frame, "exposures")
    noise = np.random.default_rng(3)
    control, new = (values + noise.uniform(0, 1, len(values)) for values in (control, new))
    found = quantile_difference(control, new, 0.9)
    table = pl.DataFrame({"variant": [0] * len(control) + [1] * len(new), "x": np.concatenate([control, new])})
    slow = Quantile("x", 0.9, n_resamples=2000, method="percentile", rng=1).analyze(table, 0, 1, "variant")
    assert found.difference == pytest.approx(slow.effect_size, rel=1e-9)
    width = slow.effect_size_ci_upper - slow.effect_size_ci_lower
    assert found.low == pytest.approx(slow.effect_size_ci_lower, abs=0.15 * width)
    assert found.high == pytest.approx(slow.effect_size_ci_upper, abs=0.15 * width)


def test_quantiles_of_nothing_or_out_of_range_are_the_caller_s_mistake():
    with pytest.raises(ShapeError, match="quantile: got 1"):
        quantile_difference(np.ones(3), np.ones(3), 1)
    with pytest.raises(ShapeError, match="at least one in each arm"):
        quantile_difference(np.ones(3), np.ones(0), 0.5)


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_power_is_statsmodels_power(ratio):
    mean, deviation, units = 2.0, 3.0, 4000
    control = units / (1 + ratio)
    reference = NormalIndPower()
    found = design(mean, deviation, units=units, relative_difference=0.1, ratio=ratio)
    expected = reference.power(0.1 * mean / deviation, control, 0.05, ratio)
    assert found.power == pytest.approx(expected, rel=1e-9)
    needed = design(mean, deviation, relative_difference=0.1, power=0.8, ratio=ratio).units
    reached = [reference.power(0.1 * mean / deviation, n / (1 + ratio), 0.05, ratio) for n in (needed - 1, needed)]
    assert reached[0] < 0.8 <= reached[1]
    smallest = design(mean, deviation, units=units, power=0.8, ratio=ratio)
    assert reference.power(smallest.difference / deviation, control, 0.05, ratio) == pytest.approx(0.8, rel=1e-9)
    assert smallest.relative_difference == pytest.approx(smallest.difference / mean)


def test_cuped_needs_one_minus_the_squared_correlation_of_the_units():
    plain = design(2.0, 3.0, relative_difference=0.02, power=0.9)
    adjusted = design(2.0, 3.0, relative_difference=0.02, power=0.9, correlation=0.6)
    assert adjusted.units / plain.units == pytest.approx(1 - 0.36, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"units": 100}, "design: got ['units'], expected exactly one left out"),
        ({"units": 100, "power": 0.8, "relative_difference": 0.1}, "expected exactly one left out"),
        ({"units": 3, "power": 0.8}, "units: got 3, expected >= 4"),
        ({"units": 100, "power": 0.01}, "power: got 0.01"),
        ({"power": 0.8, "relative_difference": 0.0}, "relative_difference: got 0.0"),
        ({"units": 100, "power": 0.8, "correlation": 1.0}, "correlation: got 1.0"),
        ({"power": 0.8, "relative_difference": 100.0}, "relative_difference: got 100.0, expected a smaller one"),
    ],
)
def test_a_design_out_of_range_is_a_setting_s_mistake(settings, told):
    with pytest.raises(SettingError) as error:
        design(1.0, 1.0, **settings)
    assert told in str(error.value)
