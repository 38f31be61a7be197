"""Users whose preferences are known, a real server, its log, and a decision that matches the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from typer.testing import CliRunner

from recsys.commands import _simulation
from recsys.commands.experiment import app
from recsys.errors import RefusedError
from recsys.experiment import plan as plans
from recsys.experiment.assignment import OUTSIDE, Assigner
from recsys.experiment.log import open_log
from recsys.experiment.simulation import DURING, Habits, People
from recsys.experiment.units import read_units
from serving.simulation import simulate
from tests.simulated import USERS, run_of
from twintower.errors import SettingError


@pytest.fixture(scope="module")
def plan(simulated):
    return plans.load(simulated.plan)


def analysed(simulated, *words: str) -> dict:
    command = ["analyze", str(simulated.log), "--plan", str(simulated.plan), "--final", "--json", *words]
    done = CliRunner().invoke(app, command)
    assert done.exception is None, done.output
    return json.loads(done.stdout)


def test_the_log_holds_every_visit_and_the_server_took_every_event(simulated, plan):
    log = open_log(simulated.log)
    sessions = log.exposures.select("session_id").unique().collect()
    assert len(sessions) == simulated.visits
    assert log.event_rows == simulated.events
    assert simulated.rejected == {}
    assert not list(simulated.log.parent.glob("*/.*"))
    assert all(experiment.start.year >= 2026 for experiment in plan.experiments.values())


def test_each_visit_was_answered_as_the_same_visit_in_the_same_arms_had_been(simulated):
    assert simulated.strayed == 0


def test_the_log_names_the_arms_that_the_file_gives(simulated, plan):
    for name, experiment in plan.experiments.items():
        units = read_units(open_log(simulated.log), name, plan.metrics, experiment=experiment)
        shown = dict(units.frame.select("unit", "arm").iter_rows())
        users = sorted({visit.user_id for visit in people().visits(DURING)})
        arms = Assigner(plan).arms_of(name, users, datetime.now(UTC))
        assert shown == {user: arm for user, arm in zip(users, arms.tolist(), strict=True) if arm != OUTSIDE}
        (truth, *_) = [truth for truth in simulated.truths if truth.experiment == name]
        assert truth.units == len(shown)


def people() -> People:
    return People(run_of("trained").source, Habits(), USERS)


def test_trouble_on_the_way_is_counted_and_left_out(simulated, plan):
    units = read_units(open_log(simulated.log), "towers", plan.metrics, experiment=plan.experiments["towers"])
    health = units.health
    distinct = health.events - health.duplicate_events
    # of 5 % each; before the start, and after it
    for count in (health.duplicate_events, health.late, health.before_exposure):
        assert 0.03 < count / distinct < 0.07
    assert (health.unknown_tokens, health.broken_events, health.torn_segments, health.crossed_units) == (0, 0, 0, 0)


def test_the_decision_is_the_one_that_the_truth_asks_for(simulated):
    (truth,) = [one for one in simulated.truths if (one.experiment, one.metric) == ("towers", "clicks")]
    assert truth.difference > 0.3 * truth.control
    found = analysed(simulated, "--experiment", "towers")
    assert [(each["arm"], each["verdict"]) for each in found["decisions"]] == [("trained", "ship")]


def test_the_truth_is_not_far_outside_the_intervals(simulated):
    """An interval at 95 % may miss it; at twice its width, four standard errors, none does by chance."""
    for experiment in ("towers", "feedback"):
        effects = {
            (each["arm"], each["metric"]): each for each in analysed(simulated, "--experiment", experiment)["effects"]
        }
        for truth in simulated.truths:
            if truth.experiment == experiment:
                effect = effects[truth.arm, truth.metric]
                middle, width = (effect["low"] + effect["high"]) / 2, effect["high"] - effect["low"]
                assert abs(truth.difference - middle) < width


def test_cuped_narrows_the_interval(simulated):
    effects = [each for each in analysed(simulated, "--experiment", "towers")["effects"] if each["metric"] == "clicks"]
    plain, adjusted = (each["high"] - each["low"] for each in effects)
    assert [each["adjusted"] for each in effects] == [False, True]
    assert adjusted < 0.95 * plain


def test_decisions_are_shown_beside_the_truth(simulated, plan):
    console = Console(record=True, width=200)
    _simulation.compare(simulated, plan, console)
    rows = [line.split("│") for line in console.export_text().splitlines() if "│ towers" in line]
    assert [[cell.strip() for cell in row[-3:-1]] for row in rows] == [["ship", "ship"]]


def test_a_decision_that_is_wrong_is_told(simulated, plan):
    turned = replace(simulated, truths=tuple(replace(truth, value=-truth.value) for truth in simulated.truths))
    assert not _simulation.compare(turned, plan, Console(quiet=True))


def test_a_folder_with_files_in_it_is_not_written_to(simulated, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(RefusedError, match="got a folder with files in it, expected an empty one"):
        simulate(people(), simulated.plan, tmp_path, tmp_path, workers=1, say=print)


def test_a_file_without_metrics_has_no_truth(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("[experiments.a]\narms.control = { share = 0.5 }\narms.b = { share = 0.5 }\n")
    with pytest.raises(SettingError, match="metrics: got none, expected at least one"):
        simulate(people(), path, tmp_path, tmp_path / "out", workers=1, say=print)


def test_users_without_known_preferences_cannot_be_simulated(block_release, simulated, tmp_path):
    words = ["simulate", str(simulated.plan), str(block_release.folder), "--out", str(tmp_path / "out")]
    with pytest.raises(SettingError, match="source: got Parquet, expected synthetic"):
        raise CliRunner().invoke(app, words).exception
