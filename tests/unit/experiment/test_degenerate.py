"""Tiny and degenerate data: no verdict without variance or below the minimum, no NaN or infinity, no traceback."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tea_tasting.aggr import Aggregates

from recsys.errors import DataError, RefusedError, ShapeError
from recsys.experiment import interleaving, ledger, off_policy, plan
from recsys.experiment.analysis import Analysis, analyse, as_json, deciding, render
from recsys.experiment.effects import difference, ratio_metric, sample_ratio
from recsys.experiment.log import open_log
from recsys.experiment.plan import Metric
from recsys.experiment.power import design
from recsys.experiment.quantiles import quantile_difference
from recsys.experiment.units import Units, moments_of, read_units
from tests.unit.experiment.logs import event, exposure, write_log
from twintower.errors import SettingError, TwintowerError

NOT_A_NUMBER = re.compile(r"\b(nan|inf)\b|nan%|None", re.IGNORECASE)
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, 0.1, -1.0, 1e-300, 1e100, -1e100]),
    st.floats(-1e6, 1e6, allow_nan=False),
)
METRICS = st.builds(
    Metric,
    event=st.just("click"),
    count=st.sampled_from(["events", "value", "exposures"]),
    per=st.sampled_from(["unit", "exposure"]),
    role=st.sampled_from(["primary", "guardrail", "secondary"]),
    better=st.sampled_from(["higher", "lower"]),
    margin_rate=st.sampled_from([0.0, 0.2]),
)


def is_finite_throughout(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_finite_throughout, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite_throughout, value))
    return not isinstance(value, float) or math.isfinite(value)


def printed(analysis: Analysis) -> str:
    console = Console(file=io.StringIO(), width=300)
    render(analysis, console)
    return console.file.getvalue()


def check_sound(analysis: Analysis) -> None:
    """Check everything that an analysis must hold to, whatever its data."""
    assert is_finite_throughout(json.loads(json.dumps(as_json(analysis), allow_nan=False)))
    assert NOT_A_NUMBER.search(printed(analysis)) is None
    for decision in analysis.decisions:
        assert decision.reasons
        if decision.verdict in ("undecided", "invalid"):
            continue
        few = min(analysis.units[analysis.control], analysis.units[decision.arm])
        assert few >= analysis.min_units
        with_intervals = [one for one in deciding(analysis.effects) if one.arm == decision.arm and not one.reason]
        assert any(one.standard_error > 0 for one in with_intervals)


@st.composite
def tables(draw) -> tuple[Units, dict[str, Metric]]:
    """Tables of few units, of which many are alike, with and without a past."""
    sizes = {arm: draw(st.integers(0, 6)) for arm in ("control", "new", "other")}
    arms = [arm for arm, size in sizes.items() for _ in range(size)]
    metrics = draw(st.dictionaries(st.sampled_from(["a", "b"]), METRICS, min_size=1))

    def column(values):
        constant = draw(st.booleans())
        if constant:
            return [draw(values)] * len(arms)
        return draw(st.lists(values, min_size=len(arms), max_size=len(arms)))

    shown = st.sampled_from([0.0, 1.0, 2.0, 1e-200, 1e100])
    columns = {"exposures": column(shown)} | {name: column(VALUES) for name in metrics}
    if draw(st.booleans()):
        columns["exposures_before"] = column(shown)
    columns |= {f"{name}_before": column(VALUES) for name in metrics if draw(st.booleans())}
    frame = pl.DataFrame(
        {"unit": [f"u{number}" for number in range(len(arms))], "arm": arms, **columns},
        schema_overrides={"unit": pl.String, "arm": pl.String, **dict.fromkeys(columns, pl.Float64)},
    )
    return Units.of_table(frame, metrics), metrics


@settings(max_examples=300, deadline=None)
@given(tables(), st.booleans(), st.sampled_from([2, 3, 100]), st.booleans())
def test_no_table_of_units_gives_a_verdict_or_a_number_that_its_data_does_not_hold(table, final, min_units, forced):
    units, _ = table
    try:
        found = analyse(
            units, final=final, min_units=min_units, quantiles=[0.5, 0.9], despite_sample_ratio=forced
        )  # fmt: skip
    except (SettingError, RefusedError):  # no arm of the control's name, or a single arm
        assert units.frame["arm"].n_unique() < 3
        return
    check_sound(found)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_tiny_log_gives_a_verdict_or_a_number_that_it_does_not_hold(data):
    users = data.draw(st.integers(1, 5))
    shown, events = [], []
    for user in range(users):
        arm = data.draw(st.sampled_from(["control", "new"]))
        for number in range(data.draw(st.integers(1, 2))):
            token, hours = f"t{user}-{number}", data.draw(st.sampled_from([-20.0, 1.0, 30.0]))
            shown.append(exposure(token, f"u{user}", arm, hours=hours))
            for click in range(data.draw(st.integers(0, 2))):
                value = data.draw(st.sampled_from([None, 0.0, 1.0, 1e300, math.nan]))
                events.append(event(f"e{token}-{click}", token, hours=hours + 0.1, value=value))
    metrics = {
        f"{count}_per_{per}": Metric(event="click", count=count, per=per, role="primary")
        for count in ("events", "value", "exposures", "any")
        for per in ("unit", "exposure")
        if (count, per) != ("any", "exposure")
    }
    tables = {"experiments": {"towers": {"arms": {name: {"share": 0.5} for name in ("control", "new")}}}}
    slices = pl.DataFrame({"item_id": ["i0"], "slice": ["head"]})
    with tempfile.TemporaryDirectory() as folder:
        log = open_log(write_log(Path(folder), shown, events))
        units = read_units(log, "towers", metrics, slices=slices)
    found = analyse(
        units, experiment=plan.from_tables(tables).experiment("towers"), min_units=2, quantiles=[0.5]
    )  # fmt: skip
    check_sound(found)


def units_of(control, new, metric=None, **columns) -> Units:
    arms = ["control"] * len(control) + ["new"] * len(new)
    frame = pl.DataFrame({"unit": [f"u{n}" for n in range(len(arms))], "arm": arms, "clicks": [*control, *new]})
    return Units.of_table(
        frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()}),
        {"clicks": metric or Metric(event="click", role="primary")},
    )


def decision_of(units, **settings):
    (decision,) = analyse(units, **settings).decisions
    return decision


def test_two_units_an_arm_are_too_few_however_far_apart_they_are():
    decision = decision_of(units_of([0.0, 0.0], [1.0, 1.0]))
    assert decision.verdict == "undecided"
    assert decision.reasons == (
        "too few units: control 2, new 2; a verdict needs at least 100 in each arm (min_units)",
    )


def test_an_arm_without_units_is_undecided_and_not_an_error():
    arms = {"control": {"share": 0.5}, "new": {"share": 0.5}}
    experiment = plan.from_tables({"experiments": {"table": {"arms": arms}}}).experiment("table")
    decision = decision_of(units_of([1.0, 0.0, 1.0], []), experiment=experiment)
    assert (decision.verdict, decision.reasons[0][:31]) == ("undecided", "too few units: control 3, new 0")


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("role", ["primary", "guardrail"])
@pytest.mark.parametrize("new", [1.0, -1.0, 0.0])
def test_without_variance_within_arms_nothing_is_decided_however_many_units_there_are(final, role, new):
    units = units_of([0.0] * 1000, [new] * 1000, Metric(event="click", role=role))
    decision = decision_of(units, final=final)
    assert decision.verdict == "undecided"
    assert "no unit of an arm differs from another of its arm" in decision.reasons[0]


@pytest.mark.parametrize("step", [0.1, 1 / 3, 1e-9, 1e9 + 0.1])
def test_rounding_errors_are_not_variance(step):
    # Sums of the same numbers, whose mean is not exactly one of them.
    units = units_of([3 * step] * 700, [4 * step] * 700, Metric(event="click", role="primary"))
    assert decision_of(units).verdict == "undecided"
    # A ratio that is the same for every unit, of numbers that vary.
    shown = np.arange(1.0, 1401.0)
    ratio = Metric(event="click", role="primary", per="exposure")
    clicks = shown * np.repeat([step, 2 * step], 700)
    decision = decision_of(units_of(clicks[:700], clicks[700:], ratio, exposures=shown))
    assert decision.verdict == "undecided"


def test_a_past_that_explains_everything_leaves_the_plain_estimate():
    draw = np.random.default_rng(0)
    clicks = np.repeat([0.0, 0.5], 500) + draw.random(1000)
    units = units_of(clicks[:500], clicks[500:], clicks_before=clicks)
    found = analyse(units)
    plain, adjusted = found.effects
    assert (plain.reason, plain.adjusted, adjusted.adjusted) == ("", False, True)
    check_sound(found)
    assert found.decisions[0].verdict == "ship"


def test_exposures_that_add_up_to_0_give_a_ratio_no_value_and_no_verdict():
    ratio = Metric(event="click", role="primary", per="exposure")
    found = analyse(units_of([1.0, 2.0] * 100, [3.0, 1.0] * 100, ratio, exposures=[1.0] * 200 + [0.0] * 200))
    assert found.effects[0].value is None
    assert found.decisions[0].reasons == ("clicks is undecided: arm new has no exposures",)
    check_sound(found)


def test_a_mean_near_0_has_an_interval_though_its_relative_one_fits_no_number():
    # Refunds: values of either sign whose mean is 1e-9 of their spread.
    values = np.tile([1.0, -1.0], 5000)
    found = analyse(units_of(values + 1e-9, values + 1.0))
    (effect,) = found.effects
    assert effect.reason == ""
    assert effect.low < 1.0 < effect.high
    assert effect.relative_low is None
    check_sound(found)


def test_values_that_no_sum_can_hold_are_refused_at_the_door():
    with pytest.raises(DataError, match=r"got \['clicks'\], expected numbers between -1e\+100 and 1e\+100"):
        units_of([1e101, 0.0], [0.0, 0.0])
    with pytest.raises(DataError, match=r"exposures: got -1.0, expected numbers >= 0"):
        units_of([1.0], [1.0], exposures=[-1.0, 1.0])


MOMENTS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(2, 10**9), st.integers(2, 10**9), st.lists(MOMENTS, min_size=6, max_size=6),
    st.lists(MOMENTS.map(abs), min_size=6, max_size=6), st.booleans(),
)  # fmt: skip
def test_no_moments_whatsoever_give_an_effect_that_is_not_a_number(first, second, means, variances, adjusted):
    names = ("x", "exposures", "x_before", "exposures_before")
    pairs = {(one, other): 0.0 for one in names for other in names if one < other}

    def of(count, part):
        mean = dict(zip(names, [part[0], abs(part[1]), part[2], abs(means[1])], strict=True))
        return Aggregates(count, mean, dict(zip(names, variances, strict=False)), pairs)

    for denominator in (None, "exposures"):
        measured = ratio_metric("x", denominator, suffix="_before" if adjusted else None)
        effect = difference("x", "new", of(first, means[:3]), of(second, means[3:]), measured)
        assert is_finite_throughout(dataclasses.asdict(effect))
        assert (effect.low is None) == bool(effect.reason)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=8), st.lists(VALUES, min_size=1, max_size=8),
    st.floats(0.001, 0.999), st.sampled_from([0.5, 0.95, 0.9999]),
)  # fmt: skip
def test_a_quantile_has_an_interval_only_where_its_units_can_cover_it(control, new, quantile, confidence):
    found = quantile_difference(np.array(control), np.array(new), quantile, confidence=confidence, resamples=200)
    assert is_finite_throughout(dataclasses.asdict(found))
    if found.low is not None:
        for values in (control, new):
            assert 1 - quantile ** len(values) - (1 - quantile) ** len(values) >= confidence
        assert len({*control}) > 1 or len({*new}) > 1


def test_a_median_of_five_units_has_no_interval_and_one_of_six_has():
    # 1 - 2 / 2^5 = 0.9375 < 0.95 <= 0.96875 = 1 - 2 / 2^6
    values = np.arange(6.0)
    assert quantile_difference(values[:5], values, 0.5).low is None
    assert quantile_difference(values, values + 1, 0.5).low is not None
    with pytest.raises(ShapeError, match="units: got NaN or infinity, expected finite values"):
        quantile_difference(np.array([math.nan]), values, 0.5)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**12)),
    st.lists(st.floats(1e-9, 1.0), min_size=2, max_size=3),
)
def test_a_sample_ratio_is_a_probability_whatever_the_counts(counts, shares):
    p_value = sample_ratio(counts, dict(zip("abc", shares, strict=False)), "a")
    assert 0 <= p_value <= 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "old", "new"]), st.integers(1, 9)), max_size=8),
    st.sampled_from([2, 100]), st.booleans(), st.sampled_from([None, 1, 10**9]),
)  # fmt: skip
def test_no_interleaved_log_prefers_an_arm_below_the_minimum(rows, min_units, final, planned_units):
    schema = {"unit": pl.String, "arm": pl.String, "credit": pl.UInt32}
    credits = pl.DataFrame([(f"u{unit}", *rest) for unit, *rest in rows], schema, orient="row")
    try:
        found = interleaving.preference(
            credits, "old", "new", min_units=min_units, final=final, planned_units=planned_units
        )
    except RefusedError:
        assert not rows
        return
    assert is_finite_throughout(dataclasses.asdict(found))
    units = len({unit for unit, *_ in rows})
    assert bool(found.preferred) != bool(found.reason)
    assert not found.preferred or units >= min_units


def test_ten_units_that_all_prefer_one_arm_are_too_few_unless_the_plan_says_otherwise():
    credits = pl.DataFrame({"unit": [f"u{n}" for n in range(10)], "arm": ["new"] * 10, "credit": [1] * 10})
    found = interleaving.preference(credits, "old", "new")
    assert found.preferred == ""
    assert found.reason == "too few units: 10; a preference needs at least 100 (min_units)"
    assert interleaving.preference(credits, "old", "new", min_units=10).preferred == "new"


WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, 5e-324, 1e-200, 1e70]), st.floats(0, 100))
REWARDS = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e70, -1e70]), st.floats(-100, 100))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_weights_and_rewards_give_an_estimate_that_is_not_a_number(data):
    rows = data.draw(st.integers(1, 5))

    def column(values):
        return np.array(data.draw(st.lists(values, min_size=rows, max_size=rows)))

    weight, reward, modelled, expected = column(WEIGHTS), column(REWARDS), column(REWARDS), column(REWARDS)
    clusters = data.draw(st.sampled_from([None, np.zeros(rows, int), np.arange(rows)]))
    overlap = off_policy.overlap(weight)
    assert is_finite_throughout(dataclasses.asdict(overlap))
    assert 0 <= overlap.effective_rows <= rows * (1 + 1e-9)
    assert NOT_A_NUMBER.search(" ".join(overlap.warnings)) is None
    estimates = [
        off_policy.ips(weight, reward, clusters=clusters),
        off_policy.clipped(weight, reward, 10.0, clusters=clusters),
        off_policy.direct(expected, clusters=clusters),
        off_policy.doubly_robust(weight, reward, modelled, expected, clusters=clusters),
        off_policy.item_position(weight[:, None], reward[:, None], clusters=clusters),
        off_policy.on_policy(reward, clusters=clusters),
    ]
    if weight.max() > 0:
        estimates.append(off_policy.snips(weight, reward, clusters=clusters))
    for estimate in estimates:
        assert is_finite_throughout(dataclasses.asdict(estimate))
        varies = rows > 1 and (clusters is None or len(set(clusters)) > 1)
        assert varies or estimate.low is None


def test_weights_or_rewards_that_overflow_are_refused():
    with pytest.raises(ShapeError, match=r"got 1e\+71, expected numbers between"):
        off_policy.ips(np.array([1e71]), np.array([1.0]))
    with pytest.raises(ShapeError, match=r"weight: got -1.0, expected >= 0"):
        off_policy.overlap(np.array([-1.0]))
    with pytest.raises(ShapeError, match="weight: got all 0"):
        off_policy.snips(np.zeros(2), np.ones(2))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(MOMENTS, st.sampled_from([math.nan, math.inf, 0.0])),
    st.one_of(MOMENTS, st.sampled_from([math.nan, math.inf, 0.0])),
    st.one_of(st.none(), st.integers(-1, 10**12)),
    st.one_of(st.none(), MOMENTS, st.sampled_from([1e-300, 0.1, math.nan])),
    st.one_of(st.none(), st.floats(0, 1), st.just(math.nan)),
)
def test_a_design_is_numbers_or_a_refusal(mean, deviation, units, relative, power):
    try:
        found = design(mean, deviation, units=units, relative_difference=relative, power=power)
    except TwintowerError:
        return
    assert is_finite_throughout(dataclasses.asdict(found))


def test_a_ledger_of_one_comparison_has_no_correlation():
    entry = ledger.Entry("e", "new", "control", "2026-01-01", {"nDCG": 0.1}, {"clicks": ledger.Outcome(1.0, 0.5, 1.5)})
    (found,) = ledger.calibrate([entry], "clicks")
    assert is_finite_throughout(dataclasses.asdict(found))
    assert (found.rank_correlation, found.correlation_low) == (None, None)


def test_moments_of_one_unit_are_numbers():
    (found,) = moments_of(pl.DataFrame({"arm": ["a"], "x": [1.0], "y": [2.0]}), ("x", "y"), ("arm",)).values()
    assert (found.var("x"), found.cov("x", "y")) == (0.0, 0.0)
