"""`recsys experiment`: assign, power, analyze."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.commands.experiment import app
from recsys.errors import DataError, RefusedError
from recsys.experiment import ledger
from tests.unit.experiment.logs import event, exposure, write_log
from tests.unit.test_cli import recsys
from tests.worlds import copy_of
from twintower.errors import MissingError, SettingError, TwintowerError

PLAN = """
[metrics.clicks]
event = "click"
role = "primary"

[experiments.towers]
start = 2026-03-01T00:00:00Z
end = 2026-03-08T00:00:00Z
arms.control = { share = 0.5 }
arms.new = { share = 0.5, release = "candidate" }
overrides = { tester = "new" }
"""


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "220", "NO_COLOR": "1"})
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory) -> Path:
    draw = np.random.default_rng(8)
    shown, events = [], []
    for user in range(800):
        arm = ("control", "new")[user % 2]
        for number in range(3):
            token = f"t{user}-{number}"
            shown.append(exposure(token, f"u{user}", arm, hours=float(draw.uniform(0, 48))))
            if draw.random() < (0.6 if arm == "new" else 0.2):
                later = float((shown[-1]["timestamp"].timestamp() - 1772323200) / 3600 + 0.01)
                events.append(event(f"e{token}", token, hours=later))
    return write_log(tmp_path_factory.mktemp("log"), shown, [*events, event("strange", "nowhere")])


def test_a_log_and_a_plan_become_a_decision(log_folder, plan_file):
    told = run("analyze", log_folder, "--plan", plan_file, "--quantile", 0.9)
    for word in ("experiment towers, units: control 400, new 400", "sample ratio in order", "unknown tokens 1",
                 "new: ship", "clicks is better", "by day since the start"):  # fmt: skip
        assert word in told


def test_json_holds_the_same_and_nothing_else(log_folder):
    found = json.loads(run("analyze", log_folder, "--json"))
    (effect,) = found["effects"]
    assert effect["metric"] == "click_rate"
    assert 0.1 < effect["control"] < 0.3 < effect["value"]
    assert found["decisions"][0]["verdict"] == "undecided"


def test_the_command_prints_json_alone_and_its_progress_beside_it(log_folder, plan_file):
    done = recsys("experiment", "analyze", str(log_folder), "--plan", str(plan_file), "--json")
    assert (done.returncode, json.loads(done.stdout)["units"]) == (0, {"control": 400, "new": 400})
    assert done.stderr.startswith("read log: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_experiment_that_is_not_in_the_log_is_named_with_those_that_are(log_folder):
    with pytest.raises(MissingError, match=r"no experiment named 'tower'\. Did you mean 'towers'"):
        run("analyze", log_folder, "--experiment", "tower")


def test_slices_come_from_a_file_or_from_a_release_s_training_counts(log_folder, tmp_path, block_release):
    (tmp_path / "slices.csv").write_text("item_id,slice\ni0,head\ni1,tail\n")
    found = json.loads(run("analyze", log_folder, "--slices", tmp_path / "slices.csv", "--json"))
    assert {effect["group"] for effect in found["slices"]} == {"head", "tail", "other"}
    found = json.loads(run("analyze", log_folder, "--release", block_release.folder, "--json"))
    assert {effect["group"] for effect in found["slices"]} == {"other"}
    with pytest.raises(SettingError, match="--slices and --release"):
        run("analyze", log_folder, "--slices", tmp_path / "slices.csv", "--release", block_release.folder)
    (tmp_path / "slices.csv").write_text("item_id,slice\ni0,head\ni0,tail\n")
    with pytest.raises(DataError, match="got 'i0', expected each item once"):
        run("analyze", log_folder, "--slices", tmp_path / "slices.csv")


def test_ids_of_files_are_spelled_as_in_training_data_or_refused(plan_file, log_folder, tmp_path):
    pl.DataFrame({"unit": [7.0, None]}).write_parquet(tmp_path / "units.parquet")
    run("assign", plan_file, "--units", tmp_path / "units.parquet", "--out", tmp_path / "arms.parquet")
    assert pl.read_parquet(tmp_path / "arms.parquet")["unit"].to_list() == ["7"]

    pl.DataFrame({"unit": [1e17]}).write_parquet(tmp_path / "units.parquet")
    pl.DataFrame({"item_id": [1e17], "slice": ["head"]}).write_parquet(tmp_path / "slices.parquet")
    with pytest.raises(DataError, match=r"units\.parquet: unit: got 1e\+17 \(double\), expected whole numbers below"):
        run("assign", plan_file, "--units", tmp_path / "units.parquet")
    with pytest.raises(DataError, match=r"slices\.parquet: item_id: got 1e\+17"):
        run("analyze", log_folder, "--slices", tmp_path / "slices.parquet")


def test_a_finished_experiment_is_entered_into_the_ledger_once(log_folder, plan_file, tmp_path):
    words = (
        "analyze",
        log_folder,
        "--plan",
        plan_file,
        "--ledger",
        tmp_path / "l.jsonl",
        "--offline",
        "new:nDCG@10=0.004",
    )
    run(*words)
    (entry,) = ledger.read(tmp_path / "l.jsonl")
    assert (entry.experiment, entry.arm, entry.ended, entry.offline) == (
        "towers",
        "new",
        "2026-03-08",
        {"nDCG@10": 0.004},
    )
    assert entry.online["clicks"].low > 0
    with pytest.raises(RefusedError):
        run(*words)


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["--offline", "new:x=1"], SettingError, "a --ledger to write it to"),
        (["--ledger", "l", "--offline", "new=1"], SettingError, "ARM:METRIC=DIFFERENCE"),
        (["--ledger", "l", "--offline", "newer:x=1"], SettingError, "--offline: no arm named 'newer'"),
        (["--slices", "nowhere.csv"], DataError, "nowhere.csv: cannot read item_id and slice"),
        (["--plan", "nowhere.toml"], SettingError, "cannot read the experiment file"),
        (["--quantile", "1.5"], TwintowerError, "quantile: got 1.5"),
        (["--release", "nowhere"], MissingError, "nowhere"),
    ],
)
def test_every_mistake_is_told_in_one_line(log_folder, words, error, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        run("analyze", log_folder, *words)
    assert told in str(raised.value)


def test_power_says_what_was_left_out():
    assert "25,629 units, both arms together, find a relative difference of 7.00%" in run(
        "power", "--rate", 0.2, "--effect", 0.07
    )
    found = json.loads(run("power", "--mean", 2, "--deviation", 3, "--units", 4000, "--json"))
    assert found["power"] == pytest.approx(0.8)
    with pytest.raises(SettingError, match="either --rate, or --mean and --deviation"):
        run("power", "--units", 100)
    with pytest.raises(SettingError, match="either --rate, or --mean and --deviation"):
        run("power", "--units", 100, "--rate", 0.1, "--mean", 3)
    with pytest.raises(SettingError, match=r"standard_deviation: got 1e\+300"):
        run("power", "--mean", 1, "--deviation", 1e300, "--effect", 0.1)


def test_assign_says_what_the_server_would(plan_file, tmp_path):
    moment = ("--at", "2026-03-02")
    (row,) = json.loads(run("assign", plan_file, "tester", *moment, "--json"))
    assert row == {"unit": "tester", "towers": "new"}
    (tmp_path / "units.txt").write_text("\n".join(f"u{n}" for n in range(1000)))
    told = run("assign", plan_file, "--units", tmp_path / "units.txt", *moment)
    assert "control" in told
    run("assign", plan_file, "--units", tmp_path / "units.txt", *moment, "--out", tmp_path / "arms.parquet")
    frame = pl.read_parquet(tmp_path / "arms.parquet")
    assert frame.height == 1000
    assert abs((frame["towers"] == "new").mean() - 0.5) < 0.07
    frame.drop("towers").write_csv(tmp_path / "units.csv")
    again = json.loads(run("assign", plan_file, "--units", tmp_path / "units.csv", *moment, "--json"))
    assert [row["towers"] for row in again] == frame["towers"].to_list()
    assert "│ u1   │ -" in run("assign", plan_file, "u1", "--at", "2026-04-01")


def test_assign_needs_units(plan_file, tmp_path):
    with pytest.raises(SettingError, match="units: got none"):
        run("assign", plan_file)
    with pytest.raises(SettingError, match="--units: cannot read"):
        run("assign", plan_file, "--units", tmp_path / "nowhere.txt")
    with pytest.raises(SettingError, match="expected UTF-8 text"):
        run("assign", plan_file, "caf\udce9")


def test_an_interleaved_experiment_tells_which_arm_its_units_prefer(tmp_path):
    teams = {"teams": ["control", "new", "new"]}
    shown = [exposure(f"t{user}", f"u{user}", "interleaved", **teams) for user in range(40)]
    events = [event(f"e{user}", f"t{user}", item_id=("i1", "i0")[user % 4 == 0]) for user in range(36)]
    log = write_log(tmp_path / "log", shown, events)
    few = ("--plan", tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text(PLAN + "interleave = true\nmin_units = 40\n")
    for plan in ((), few):
        found = json.loads(run("analyze", log, *plan, "--json"))["preferences"]["click"]
        # 36 of 40 clicked once: every fourth of them on the control's item.
        assert (found["first"], found["second"]) == ("control", "new")
        assert (found["first_wins"], found["second_wins"], found["ties"]) == (9, 27, 4)
        # At every look: 9! 27! / 37! over (1/2)^36 is 19.7, a little less than 20.
        assert found["always_p_value"] == pytest.approx(37 * math.comb(36, 9) / 2**36)
        assert found["preferred"] == ""
    assert "click: undecided: too few units: 40; a preference needs at least 100 (min_units)" in run("analyze", log)
    told = run("analyze", log, *few, "--planned-units", 36)
    assert "prefer new" in told
    assert "click: new is preferred (always-valid test)" in told
    assert "click: new is preferred (fixed test)" in run("analyze", log, *few, "--final")
    undecided = "click: undecided: control and new are not told apart (always-valid test)"
    assert undecided in run("analyze", log, *few)
    with pytest.raises(SettingError, match="interleaved lists only tell a preference"):
        run("analyze", log, "--quantile", 0.5)


def test_check_shows_a_file_and_says_what_a_server_would_refuse(plan_file, block_release, tmp_path):
    shown = run("check", plan_file)
    assert "towers" in shown
    assert "control 0.5, new 0.5" in shown
    file = tmp_path / "plan.toml"
    for release, told in (("lost", "experiments.towers.arms.new: no label that is served, or release named 'lost'"),
                          (block_release.name, "control 0.5, new 0.5")):  # fmt: skip
        file.write_text(PLAN.replace("candidate", release).replace("2026-03-08", "2126-03-08"))
        if release == "lost":
            with pytest.raises(SettingError, match=told):
                run("check", file, "--releases", block_release.folder.parent)
        else:
            assert told in run("check", file, "--releases", block_release.folder.parent)


def test_check_names_a_release_that_is_damaged(block_release, tmp_path):
    release = copy_of(block_release, tmp_path)
    (release.folder / "items.parquet").write_bytes(b"no table")
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.replace("candidate", release.name).replace("2026-03-08", "2126-03-08"))
    with pytest.raises(SettingError, match=r"items\.parquet: damaged"):
        run("check", file, "--releases", tmp_path)


def test_two_users_an_arm_are_undecided_and_no_number_is_made_up(tmp_path):
    shown = [exposure(f"t{user}", f"u{user}", ("control", "new")[user % 2]) for user in range(4)]
    log = write_log(tmp_path / "log", shown, [event(f"e{user}", f"t{user}") for user in (1, 3)])
    (tmp_path / "plan.toml").write_text(PLAN)
    told = run("analyze", log, "--plan", tmp_path / "plan.toml", "--quantile", 0.5, "--final")
    assert "new: undecided" in told
    assert "too few units: control 2, new 2; a verdict needs at least 100 in each arm (min_units)" in told
    assert "nan" not in told
    (tmp_path / "plan.toml").write_text(PLAN + "min_units = 2\n")
    told = run("analyze", log, "--plan", tmp_path / "plan.toml")
    assert "clicks is undecided: no unit of an arm differs from another of its arm, so there is no interval" in told
    with pytest.raises(RefusedError, match="no effect with an interval"):
        run("analyze", log, "--plan", tmp_path / "plan.toml", "--ledger", tmp_path / "ledger.jsonl")
