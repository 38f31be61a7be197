"""From units to a decision."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from recsys.errors import DataError, RefusedError
from recsys.experiment import plan
from recsys.experiment.analysis import analyse, as_json, render
from recsys.experiment.plan import Metric
from recsys.experiment.units import Health, Units, moments_of
from tests.unit.experiment.logs import START
from twintower.errors import SettingError

METRICS = {
    "clicks": Metric(event="click", role="primary"),
    "ctr": Metric(event="click", per="exposure"),
    "errors": Metric(event="error", role="guardrail", better="lower", margin_rate=0.2),
}


def units_of(effect=0.0, errors=0.0, share=0.5, metrics=METRICS, count=8000, arms=("control", "new"), health=None):
    draw = np.random.default_rng(1)
    new = draw.random(count) < share
    taste = draw.gamma(4.0, 0.25, count)
    exposures, before = draw.poisson(5 * taste) + 1, draw.poisson(5 * taste) + 1
    columns = {
        "exposures": exposures,
        "clicks": draw.binomial(exposures, np.clip(0.3 * taste * (1 + effect * new), 0, 1)),
        "ctr": draw.binomial(exposures, 0.3),
        "errors": draw.binomial(exposures, 0.2 * (1 + errors * new)),
        "exposures_before": before,
        "clicks_before": draw.binomial(before, np.clip(0.3 * taste, 0, 1)),
        "ctr_before": draw.binomial(before, 0.3),
        "errors_before": np.zeros(count),
    }
    frame = pl.DataFrame({"unit": [f"u{n}" for n in range(count)], "arm": np.where(new, arms[1], arms[0])} | {
        name: values.astype(float) for name, values in columns.items()})  # fmt: skip
    halves = pl.concat([frame.with_columns(group=pl.lit(day)) for day in ("0", "1", "10")])
    moments = moments_of(halves, ("exposures", *metrics), ("arm", "group"))
    sliced = moments_of(halves.rename({"exposures": "shown"}), ("shown", *metrics), ("arm", "group"))
    return Units("towers", START, metrics, frame, moments, sliced, health or Health(exposures=1, events=1))


def decided(units, **settings):
    (decision,) = analyse(units, **settings).decisions
    return decision


def test_a_better_arm_is_shipped_a_worse_one_is_not_and_an_equal_one_is_undecided():
    assert decided(units_of(effect=0.2)).verdict == "ship"
    assert decided(units_of(effect=-0.2)).verdict == "do not ship"
    assert decided(units_of()).verdict == "undecided"
    assert decided(units_of(effect=0.2), final=True).verdict == "ship"


def test_a_broken_guardrail_stops_a_better_arm():
    decision = decided(units_of(effect=0.2, errors=0.5))
    assert decision.verdict == "stop"
    assert any(reason.startswith("guardrail errors is broken: +0.") for reason in decision.reasons)
    assert any("guardrail errors is safe" in reason for reason in decided(units_of()).reasons)


def test_lower_can_be_better():
    metrics = {"clicks": Metric(event="click", role="primary", better="lower")}
    assert decided(units_of(effect=-0.2, metrics=metrics)).verdict == "ship"


def test_a_broken_sample_ratio_shuts_the_gate_unless_it_is_forced():
    found = analyse(units_of(effect=0.2, share=0.45))
    assert found.sample_ratio_p_value < 1e-6
    assert (found.effects, found.days, found.slices) == ((), (), ())
    assert found.decisions[0].verdict == "invalid"
    forced = analyse(units_of(effect=0.2, share=0.45), despite_sample_ratio=True)
    assert forced.effects
    assert forced.decisions[0].verdict == "invalid"


def test_planned_shares_are_what_counts_are_compared_with():
    arms = {"control": {"share": 0.6}, "new": {"share": 0.3}}
    experiment = plan.from_tables({"experiments": {"towers": {"arms": arms}}}).experiment("towers")
    assert analyse(units_of(share=1 / 3), experiment=experiment).sample_ratio_p_value > 0.001
    assert analyse(units_of(share=0.5), experiment=experiment).sample_ratio_p_value < 0.001


def test_each_metric_stands_without_and_with_cuped_where_its_past_varies():
    found = analyse(units_of())
    pairs = [(effect.metric, effect.adjusted) for effect in found.effects]
    assert sorted(pairs) == [("clicks", False), ("clicks", True), ("ctr", False), ("ctr", True), ("errors", False)]
    by_pair = dict(zip(pairs, found.effects, strict=True))
    assert by_pair["clicks", True].standard_error < by_pair["clicks", False].standard_error


def test_p_values_are_corrected_within_the_metrics_of_one_role():
    metrics = {f"m{n}": Metric(event="click", role="primary" if n < 2 else "secondary") for n in range(3)}
    units = units_of(metrics=METRICS)
    frame = units.frame.with_columns(m0="clicks", m1="errors", m2="ctr")
    found = analyse(Units("towers", START, metrics, frame, {}, {}, Health())).effects
    for effect in found:
        assert effect.corrected_p_value <= min(1.0, 2 * effect.p_value)
    (alone,) = [effect for effect in found if effect.metric == "m2"]
    assert alone.corrected_p_value == alone.p_value
    assert max(effect.corrected_p_value / effect.p_value for effect in found) > 1


def test_days_stand_in_order_and_slices_are_ratios_to_the_items_shown():
    found = analyse(units_of())
    assert [effect.group for effect in found.days if effect.metric == "clicks"] == ["0", "1", "10"]
    (slice_effect, *_) = [effect for effect in found.slices if effect.metric == "clicks"]
    frame = units_of().frame.filter(arm="control")
    assert slice_effect.control == pytest.approx(frame["clicks"].sum() / frame["exposures"].sum(), rel=1e-9)


def test_three_arms_are_each_compared_with_the_control():
    units = units_of()
    third = units.frame.with_row_index().with_columns(
        arm=pl.when(pl.col("index") % 3 == 0).then(pl.lit("other")).otherwise("arm")
    )
    thirds = third.filter((pl.col("index") % 3 == 0) | (pl.col("index") % 2 == 0)).drop("index")
    found = analyse(Units("towers", START, METRICS, thirds, {}, {}, Health()), despite_sample_ratio=True)
    assert {decision.arm for decision in found.decisions} == {"new", "other"}


def test_json_has_no_nan_and_tables_tell_everything(capsys):
    found = analyse(units_of(health=Health(exposures=12345, events=7, unknown_tokens=3)), quantiles=[0.5, 0.9])
    content = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert content["health"]["unknown_tokens"] == 3
    assert len(content["quantiles"]) == 6
    render(found, Console(width=200))
    told = capsys.readouterr().out
    words = ["sample ratio in order", "exposures 12,345", "unknown tokens 3", "clicks (CUPED)", "by day", "by slice"]
    for word in [*words, "quantiles", "new: undecided"]:
        assert word in told


def test_logs_and_plans_that_do_not_belong_together_are_refused():
    with pytest.raises(SettingError, match="--control: no arm named 'contrl'"):
        analyse(units_of(), control="contrl")
    arms = {"control": {"share": 0.5}, "newer": {"share": 0.5}}
    experiment = plan.from_tables({"experiments": {"towers": {"arms": arms}}}).experiment("towers")
    with pytest.raises(RefusedError, match=r"arms in the log of towers: got \['new'\]"):
        analyse(units_of(), experiment=experiment)
    with pytest.raises(RefusedError, match=r"arms of towers: got \['control'\], expected at least 2"):
        analyse(units_of(share=0.0))
    with pytest.raises(SettingError, match="no arm named 'control'"):
        analyse(units_of(arms=("a", "b")))
    assert analyse(units_of(arms=("a", "b")), control="a").control == "a"


def test_without_a_primary_metric_nothing_is_decided():
    units = units_of(effect=0.5, metrics={"clicks": Metric(event="click")})
    assert decided(units).verdict == "undecided"
    assert "no metric is primary" in decided(units).reasons[-1]


def test_a_table_that_somebody_else_added_up_is_analysed_like_a_log():
    frame = units_of(effect=0.2).frame
    found = analyse(Units.of_table(frame.select("unit", "arm", "clicks"), {"clicks": METRICS["clicks"]}))
    assert found.decisions[0].verdict == "ship"
    assert not any(effect.adjusted for effect in found.effects)
    assert any(effect.adjusted for effect in analyse(Units.of_table(frame, METRICS)).effects)
    for broken, told in [
        (frame.drop("clicks"), "clicks"),
        (frame.with_columns(clicks=pl.lit("many")), "table of units"),
        (frame.with_columns(clicks=pl.lit(None)), r"got \['clicks'\], expected numbers between"),
    ]:
        with pytest.raises(DataError, match=told):
            Units.of_table(broken, METRICS)


def test_the_public_cookie_cats_test_reads_as_published():
    folder = os.environ.get("RECSYS_DATA_DIR")
    if not folder or not (Path(folder) / "cookie_cats").is_dir():
        pytest.skip("RECSYS_DATA_DIR has no cookie_cats")
    players = pl.read_parquet(Path(folder) / "cookie_cats" / "players.parquet")
    frame = players.select("retention_7", unit="userid", arm="version")
    metric = {"retention_7": Metric(event="return", count="any", role="primary")}
    found = analyse(Units.of_table(frame, metric), control="gate_30", final=True)
    (effect,) = found.effects
    assert (round(effect.control, 3), round(effect.value, 3)) == (0.190, 0.182)
    assert effect.p_value == pytest.approx(0.0016, abs=0.0001)
    assert found.decisions[0].verdict == "do not ship"
