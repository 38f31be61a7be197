"""The experiment file: what it accepts, and how it says no."""

from __future__ import annotations

import re

import pytest

from recsys.experiment import plan
from twintower.errors import SettingError

FILE = """
[holdout]
rate = 0.05

[metrics.ctr]
event = "click"
per = "exposure"
role = "primary"

[experiments.towers]
layer = "release"
segment = [0.0, 0.5]
start = 2026-03-01T00:00:00Z
end = 2026-03-15T00:00:00Z
arms.control = { share = 0.5 }
arms.ssl = { share = 0.5, release = "candidate", settings = { "index.leaves_to_search" = 40 } }

[experiments.feedback]
layer = "query"
arms.control = { share = 0.5, reformulator = "identity" }
arms.lol = { share = 0.5, reformulator = "attention" }
"""


def experiment(**changes):
    return {"arms": {"control": {"share": 0.5}, "new": {"share": 0.5, "release": "candidate"}}, **changes}


def refused(**experiments) -> str:
    with pytest.raises(SettingError) as error:
        plan.from_tables({"experiments": experiments})
    return str(error.value)


def test_a_file_becomes_frozen_settings_with_names_as_default_salt_and_namespace(tmp_path):
    (tmp_path / "plan.toml").write_text(FILE)
    read = plan.load(tmp_path / "plan.toml")
    towers = read.experiment("towers")
    assert (towers.salt, towers.namespace, towers.unit) == ("towers", "release", "user")
    assert towers.arms["ssl"].settings == {"index.leaves_to_search": 40}
    assert towers.decides == {"release", "index.leaves_to_search"}
    assert read.metrics["ctr"].role == "primary"
    with pytest.raises(AttributeError):
        towers.salt = "other"


def test_shares_over_100_percent_are_refused_with_the_sum_and_every_share():
    arms = {"control": {"share": 0.6}, "new": {"share": 0.6}}
    assert "shares of at most 100 % together, not 120 % (control 0.6, new 0.6)" in refused(a=experiment(arms=arms))


def test_shares_that_exceed_100_percent_only_by_rounding_are_accepted():
    shares = {"control": 0.05, "b": 0.55, "c": 0.3, "d": 0.1}
    assert sum(shares.values()) > 1
    plan.from_tables(
        {"experiments": {"a": experiment(arms={name: {"share": share} for name, share in shares.items()})}}
    )


def test_overlapping_segments_of_one_namespace_are_refused_with_their_sum():
    told = refused(a=experiment(segment=[0, 0.6]), b=experiment(segment=[0.4, 1.0]))
    assert told.startswith("experiments.b.segment: got [0.4, 1.0], which overlaps [0.0, 0.6] of a: 120 % of namespace")


def test_the_same_segment_is_free_again_after_the_end():
    spring, summer = "2026-03-01T00:00:00Z", "2026-06-01T00:00:00Z"
    plan.from_tables({"experiments": {"a": experiment(end=spring), "b": experiment(start=spring, end=summer)}})
    assert "overlaps" in refused(a=experiment(end=summer), b=experiment(start=spring))


def test_one_layer_with_two_namespaces_is_refused_because_a_unit_could_be_in_both():
    told = refused(a=experiment(), b=experiment(namespace="elsewhere"))
    assert told == (
        "experiments.b.namespace: got 'elsewhere', expected 'default' as in a. "
        "Two experiments of layer 'default' must share a namespace, or a unit could be in both."
    )


def test_two_layers_may_not_set_the_same_thing():
    told = refused(a=experiment(layer="one"), b=experiment(layer="two"))
    assert told.startswith("experiments.b.arms: got release, expected what no other layer sets.")


def test_two_layers_that_share_a_namespace_may_set_the_same_thing_for_different_units():
    both = {"namespace": "shared"}
    plan.from_tables(
        {
            "experiments": {
                "a": experiment(layer="one", segment=[0, 0.5], **both),
                "b": experiment(layer="two", segment=[0.5, 1], **both),
            }
        }
    )


def test_a_namespace_mixes_no_kinds_of_units():
    told = refused(a=experiment(segment=[0, 0.5]), b=experiment(segment=[0.5, 1], unit="session"))
    assert told.startswith("experiments.b.unit: got 'session', expected 'user' as in a.")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"contrl": "x"}, "experiments.a: no setting named 'contrl'. Did you mean 'control'?"),
        ({"control": "base"}, "experiments.a.control: no arm named 'base'"),
        ({"overrides": {"u1": "nwe"}}, "experiments.a.overrides.u1: no arm named 'nwe'. Did you mean 'new'?"),
        ({"traffic_rate": 1.5}, "experiments.a.traffic_rate: got 1.5, expected less than or equal to 1"),
        ({"segment": [0.5, 0.5]}, "a.segment: got [0.5, 0.5], expected [from, to] with 0 <= from < to <= 1"),
        ({"start": "2026-03-01T00:00:00"}, "experiments.a.start: got '2026-03-01T00:00:00', expected"),
        ({"arms": {"control": {"share": 1}}}, "expected at least two arms"),
        ({"arms": 3}, "experiments.a.arms: got 3, expected one table for each name"),
        ({"arms": {"control": {"share": 0.5}, "b": {"shar": 0.5}}}, "experiments.a.arms.b: no setting named 'shar'"),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0}}}, "a.arms.b.share: got 0, expected greater"),
        ({"salt": "x" * 65}, "experiments.a.salt: got"),
        ({"start": "2026-03-02T00:00:00Z", "end": "2026-03-01T00:00:00Z"}, "expected an end after the start"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_where_the_user_wrote_it(changes, told):
    assert told in refused(a=experiment(**changes))


def arms_with(**slate):
    return {"control": {"share": 0.5}, "b": {"share": 0.5, "slate": slate}}


def test_the_lists_of_an_arm_may_be_drawn_and_no_other_layer_may_draw_them_too():
    drawn = experiment(arms=arms_with(policy="plackett_luce", parameter=0.1))
    made = plan.from_tables({"experiments": {"a": drawn}}).experiment("a")
    assert (made.arms["b"].slate.candidates, made.decides) == (50, {"slate"})
    interleaved = experiment(layer="two", interleave=True)
    assert refused(a=drawn, b=interleaved).startswith("experiments.b.arms: got slate, expected what no other layer")


@pytest.mark.parametrize(
    ("slate", "told"),
    [
        ({"policy": "softmax", "parameter": 1}, "a.arms.b.slate.policy: got 'softmax', expected 'plackett_luce' or"),
        ({"policy": "plackett_luce", "parameter": 0}, "expected parameter > 0 (the temperature)"),
        ({"policy": "epsilon_swap", "parameter": 2}, "expected parameter of 0 to 1 (the epsilon)"),
        ({"policy": "epsilon_swap", "parameter": 1, "candidates": 201}, "b.slate.candidates: got 201, expected less"),
        ({"policy": "epsilon_swap"}, "experiments.a.arms.b.slate.parameter: got nothing, expected a value"),
    ],
)
def test_a_slate_that_cannot_be_drawn_is_refused(slate, told):
    assert told in refused(a=experiment(arms=arms_with(**slate)))


def test_interleaving_takes_two_arms_that_are_not_drawn_and_of_other_names():
    three = {name: {"share": 0.3} for name in ("control", "b", "c")}
    for arms in (three, arms_with(policy="epsilon_swap", parameter=0.1)):
        assert "two arms without a slate where interleave = true" in refused(a=experiment(arms=arms, interleave=True))
    taken = {"control": {"share": 0.5}, "interleaved": {"share": 0.5}}
    assert "expected arms of any other name than interleaved" in refused(a=experiment(arms=taken))
    both = experiment(interleave=True, overrides={"tester": "interleaved"})
    assert plan.from_tables({"experiments": {"a": both}}).experiment("a").assigned == ("interleaved", "control", "new")


def test_settings_of_an_arm_are_plain_values_under_plain_paths():
    for settings in ({"Index.x": 1}, {"index.x": [1]}, {"index.x": float("nan")}):
        arms = {"control": {"share": 0.5}, "b": {"share": 0.5, "settings": settings}}
        assert refused(a=experiment(arms=arms)).startswith("experiments.a.arms.b.settings")


@pytest.mark.parametrize(("text", "told"), [(b"a = ", "not TOML"), (b"\xff", "not TOML"), (None, "cannot read")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, told):
    path = tmp_path / "plan.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SettingError, match=re.escape(f"{path}: ") + told):
        plan.load(path)


@pytest.mark.parametrize("name", ["exposures", "arm", "clicks_before"])
def test_a_metric_may_not_be_called_like_a_column_that_is_there_already(name):
    with pytest.raises(SettingError, match=f"metrics: got '{name}', expected a name other than"):
        plan.from_tables({"metrics": {name: {"event": "click"}}})


def test_an_empty_file_is_half_written_and_not_the_end_of_all_experiments(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text("# nothing yet\n")
    with pytest.raises(SettingError, match=r"plan\.toml: got nothing, expected tables .* Write `experiments = {}`"):
        plan.load(file)
    file.write_text("experiments = {}\n")
    assert plan.load(file) == plan.Plan()
