"""`recsys tune` on the block world: what it finds and writes, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from recsys import config, pipeline
from recsys.data.prepare import prepare, reencoded
from recsys.errors import DataError, InterruptedRun
from recsys.export.release import open_release
from recsys.tuning import show
from recsys.tuning.study import FAILED
from recsys.tuning.tune import Tuning, tune
from tests.worlds import block_run
from twintower.errors import SettingError

AT_MOST_S = 600
"""Ends a test that hangs."""
pytestmark = pytest.mark.timeout(3 * AT_MOST_S)
CLOSED = 'objective.kind=["dlae", "ease"]'
IN_STEPS = 'objective.kind=["dlae", "all_items"]'
TRIALS = 5


def tuned_run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a run whose trials last a second or two; each user has one test and one validation case."""
    sections = {
        "query": {"features": {"read": {"kind": "history"}}},
        "item": {"features": {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}},
        "split": {"kind": "leave_last", "test_count": 1, "validation_count": 1},
        "tower": {"kind": "sum"},
        "objective": {"kind": "dlae"},
        "training": {"epochs": 200, "patience": 0, "deterministic": True},
    }
    return block_run(folder, **(sections | changes))


def tried(found: Tuning) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.model, trial.values, trial.state, trial.metric) for trial in found.trials]


def written(home: Path) -> dict[str, Any]:
    return json.loads((home / "tuning.json").read_text())


@pytest.fixture(scope="module")
def run_file(block_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.toml"
    path.write_text(tomli_w.dumps(tuned_run(block_world)))
    return path


@pytest.fixture(scope="module")
def found(block_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    """A study that ran to its end, and its folder."""
    home = tmp_path_factory.mktemp("study")
    return tune(tuned_run(block_world), home, trials=TRIALS, tries=[IN_STEPS]), home


def start(run_file: Path, work: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recsys.cli", "tune", str(run_file), "--work", str(work), *words]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def wait_for_trial(process: subprocess.Popen[str], home: Path, number: int) -> None:
    """Wait until a trial in steps trains."""
    deadline = time.monotonic() + AT_MOST_S
    while not (home / "trials" / str(number)).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_best_trial_is_not_below_the_run_file_as_it_is(found):
    tuning, _ = found
    assert len(tuning.trials) == TRIALS
    assert [(trial.model, trial.values) for trial in tuning.trials[:2]] == [("dlae", {}), ("all_items", {})]
    assert tuning.best.metric == max(trial.metric for trial in tuning.trials if trial.state == "finished")
    assert tuning.best.metric >= tuning.as_is.metric


def test_a_killed_study_ends_with_the_trials_of_one_that_was_not(found, run_file, tmp_path):
    home = tmp_path / "blocks" / "tuning"
    words = ("--trials", str(TRIALS), "--try", IN_STEPS)
    process = start(run_file, tmp_path, *words)
    wait_for_trial(process, home, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(run_file, tmp_path, *words)
    output, errors = again.communicate(timeout=AT_MOST_S)
    assert again.returncode == 0, errors
    trials = written(home)["trials"]
    assert [(each["number"], each["model"], each["values"], each["state"], each["metric"]) for each in trials] == tried(
        found[0]
    )
    assert f"Trials that ended: {TRIALS}" in output
    assert f"train {home / 'tuned.toml'}" in output


def test_an_interruption_ends_with_what_was_found_so_far(run_file, tmp_path):
    home = tmp_path / "blocks" / "tuning"
    process = start(run_file, tmp_path, "--trials", "50", "--try", IN_STEPS)
    wait_for_trial(process, home, 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=AT_MOST_S)
    assert process.returncode == 130, errors
    assert "The search was interrupted. Trials that ended: 1, of which 0 were stopped early and 0 failed." in output
    assert config.load(home / "tuned.toml").name == "blocks-tuned"


def test_two_processes_share_a_study(run_file, tmp_path):
    processes = [start(run_file, tmp_path, "--trials", "6", "--try", CLOSED) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=AT_MOST_S)
        # 130: one that comes late may find nothing finished, while the other one runs the last trial.
        assert process.returncode in (0, 130), errors
    found = tune(config.tables_of(run_file), tmp_path / "blocks" / "tuning", trials=6, tries=[CLOSED])
    assert [(trial.number, trial.state) for trial in found.trials] == [(number, "finished") for number in range(1, 7)]


def test_the_written_run_file_says_what_was_found_and_trains(found, tmp_path):
    tuning, home = found
    files = show.save(tuning, tmp_path)
    assert [path.name for path in files] == ["tuned.toml", "tuning.json", "tuning.png"]
    text = files[0].read_text()
    assert f"trial {tuning.best.number} of {TRIALS} of the study {home / 'study.db'}" in text
    assert f"nDCG@10 on validation cases: {tuning.best.metric:.4f}" in text
    release = pipeline.train(config.load(files[0]), tmp_path / "work", tmp_path / "releases")
    assert open_release(release.folder).facts.run == "blocks-tuned"


def test_the_metric_of_a_trial_is_that_of_its_run_file_trained_alone(found, tmp_path):
    tuning, _ = found
    again = tune(tuning.tables_of(tuning.best) | {"name": "again"}, tmp_path, trials=1)
    assert again.trials[0].metric == pytest.approx(tuning.best.metric, abs=1e-6)


def test_test_cases_are_not_looked_at(block_world, tmp_path):
    # Another world in which only the last item of each user, its test case, differs: it is another user's.
    other = tmp_path / "other"
    shutil.copytree(block_world, other)
    table = pq.read_table(other / "interactions.parquet").to_pylist()
    last = {row["user_id"]: row for row in sorted(table, key=lambda row: row["time"])}
    users = sorted(last)
    items = [last[user]["item_id"] for user in users]
    for user, item in zip(users, [*items[2:], *items[:2]], strict=True):
        last[user]["item_id"] = item
    pq.write_table(pa.Table.from_pylist(table), other / "interactions.parquet")
    one = tune(tuned_run(block_world), tmp_path / "one", trials=3, tries=[CLOSED])
    two = tune(tuned_run(other), tmp_path / "two", trials=3, tries=[CLOSED])
    assert tried(one) == tried(two)


def test_a_trial_that_fails_is_recorded_with_its_reason_and_the_study_goes_on(block_world, tmp_path):
    run = tuned_run(block_world, objective={"kind": "all_items"}, training={"epochs": 5})
    tries = ['objective.kind=["all_items"]', "training.learning_rate=[1e30]"]
    found = tune(run, tmp_path, trials=4, tries=tries)
    # The first two are the run file as it is, and its training from the solution of dlae.
    assert [trial.state for trial in found.trials] == ["finished", "finished", FAILED, FAILED]
    assert "diverged" in found.trials[2].reason
    assert any("Trial 3 (all_items) failed: training.learning_rate" in line for line in show.verdict(found))
    assert found.best.number in (1, 2)


def test_a_study_of_other_settings_or_data_is_refused(found, block_world):
    _, home = found
    for changes, differing in (
        ({"seed": 4}, "seed"),
        ({"objective": {"kind": "ease"}}, "objective.kind"),
        ({"split": {"kind": "leave_last", "test_count": 2, "validation_count": 1}}, "split.test_count"),
    ):
        with pytest.raises(DataError, match=f"{differing}.*--restart"):
            tune(tuned_run(block_world, **changes), home, trials=TRIALS, tries=[IN_STEPS])
    with pytest.raises(DataError, match=r"the search \(--try\)"):
        tune(tuned_run(block_world), home, trials=TRIALS, tries=[CLOSED])
    settings_of_the_judgment = tuned_run(block_world, evaluation={"resamples": 200})
    assert tried(tune(settings_of_the_judgment, home, trials=TRIALS, tries=[IN_STEPS])) == tried(found[0])


def test_time_that_is_over_is_no_time_for_a_trial(block_world, tmp_path):
    with pytest.raises(InterruptedRun, match="no trial of the study has finished yet"):
        tune(tuned_run(block_world), tmp_path, minutes=0.0)


def test_a_run_without_validation_cases_is_refused(block_world, tmp_path):
    run = tuned_run(block_world, split={"kind": "leave_last", "test_count": 1, "validation_count": 0})
    with pytest.raises(DataError, match="no validation case"):
        tune(run, tmp_path, trials=1)


def test_a_mistake_in_the_run_file_is_reported_before_anything_is_read(tmp_path):
    with pytest.raises(SettingError, match=r"tower\.dim"):
        tune(tuned_run(tmp_path / "nowhere", tower={"kind": "sum", "dim": 1}), tmp_path, trials=1)


def test_rows_with_other_features_are_those_that_reading_again_would_give(block_world, tmp_path):
    base = config.from_tables(tuned_run(block_world))
    other = config.from_tables(block_run(block_world, split=tuned_run(block_world)["split"]))
    again, read = reencoded(other, prepare(base, tmp_path / "base")), prepare(other, tmp_path / "other")
    for side in ("item_codes", "query_codes"):
        one, two = getattr(again, side), getattr(read, side)
        assert one.keys() == two.keys()
        assert all((one[name] == two[name]).all() for name in one)
