"""`recsys ablate` on the block world: what it prints and writes, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from recsys import config
from recsys.ablation import show
from recsys.ablation.ablate import _Rounds, ablate
from recsys.ablation.rows import SUBJECTS
from recsys.errors import DataError, InterruptedRun, RefusedError
from tests.worlds import USERS, block_run
from twintower.errors import SettingError

AT_MOST_S = 600
"""Ends a test that hangs; on two quiet cores the whole file takes about a minute."""
pytestmark = pytest.mark.timeout(3 * AT_MOST_S)

WEIGHT = "self_supervision.objective.weight"
PLAN = {
    "subjects": ["cfm"],
    "seeds": [1, 2],
    "trials": 1,
    "metrics": ["AP@10", "R@10"],
    "tuning_metric": "R@10",
    "resamples": 100,
}
"""Of two rows with one combination each: a training of the baseline, one of the other row, then two seeds of each."""


def ablation_run(block_world: Path, **changes: Any) -> dict[str, Any]:
    """Return a run whose trainings last seconds, of 300 steps; each user has one test and one validation case."""
    small = {
        "query": {"features": {"who": {"kind": "id", "width": 4}}},
        "item": {
            "features": {
                "id": {"kind": "id", "width": 4},
                "taste": {"kind": "categorical", "width": 4},
                "tags": {"kind": "multi_categorical", "width": 4, "max_values": 3},
            }
        },
        "split": {"kind": "leave_last", "test_count": 1, "validation_count": 1},
        "tower": {"kind": "mlp", "hidden": [8], "dim": 4},
        "training": {
            "epochs": 1,
            "batch_size": 2,
            "optimizer": "adagrad",
            "learning_rate": 0.1,
            "deterministic": True,
            "checkpoint_every_s": 0.2,
        },
        "ablation": PLAN,
    }
    return block_run(block_world, **{**small, **changes})


@pytest.fixture(scope="module")
def run_file(block_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.toml"
    path.write_text(tomli_w.dumps(ablation_run(block_world)))
    return path


@contextmanager
def started(run_file: Path, work: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `recsys ablate` while the block runs; its workers end with it."""
    words = ["ablate", str(run_file), "--work", str(work), "--jobs", "2"]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "recsys.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def finished(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an ablation that ran to its end, and what it printed."""
    work = tmp_path_factory.mktemp("finished")
    with started(run_file, work) as process:
        output = process.communicate(timeout=AT_MOST_S)[0]
    assert process.returncode == 0, output
    return work / "blocks" / "ablation", output


@pytest.fixture(scope="module")
def found(finished: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((finished[0] / "ablation.json").read_text())


def test_it_prints_a_table_with_gains_and_their_intervals_and_what_follows(finished, found):
    _, output = finished
    # leave_last asks each of the 60 users once.
    assert f"slice all, {USERS} cases, 2 seeds" in " ".join(output.split())
    for entry in found["measured"]:
        if entry["slice"] == "all":
            assert f" {entry['value']:.4f} │" in output
    gains = re.findall(r"[+-]\d+\.\d% \[[+-]\d+\.\d%, [+-]\d+\.\d%\]", output)
    assert len(gains) >= len(PLAN["metrics"])
    assert f"{WEIGHT} = " in output
    assert "100% of the training data, logQ from counts, R@10:" in output
    assert "100% of the training data, logQ from counts; slice cold: no test case." in output
    assert "the baseline was not tuned, the other rows were" in output


def test_it_writes_every_number_with_its_interval_as_json(found):
    everyone = {(entry["subject"], entry["metric"]): entry for entry in found["measured"] if entry["slice"] == "all"}
    references = [f"{kind} (reference)" for kind in found["references"]]
    assert "popularity (reference)" in references
    assert everyone.keys() == {
        (name, metric) for name in ("baseline", "cfm", *references) for metric in PLAN["metrics"]
    }
    for (subject, _), entry in everyone.items():
        assert (entry["cases"], entry["seeds"]) == (USERS, 2)
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1
        if subject == "baseline":
            assert (entry["gain_rate"], entry["gain_low"], entry["gain_high"]) == (0, 0, 0)
        else:
            assert entry["gain_low"] <= entry["gain_rate"] <= entry["gain_high"]
    assert [trial["subject"] for trial in found["trials"]] == ["baseline", "cfm"]
    assert [chosen["subject"] for chosen in found["chosen"]] == ["baseline", "cfm"]
    assert found["chosen"][0]["settings"] == {}
    assert found["chosen"][1]["settings"].keys() == SUBJECTS["cfm"].search.keys() > {WEIGHT}
    assert all(seconds > 0 for seconds in found["seconds"].values())


def test_the_values_are_means_over_the_rankings_that_the_trainings_left(finished, found):
    # Each case has one relevant item, the user's last one, and R@10 is how often it is among the first ten.
    folder, _ = finished
    ranked = [np.load(path / "item_rows.npy")[:, :10] for path in (folder / "cells" / "1-counts").glob("cfm-test-*")]
    assert len(ranked) == 2
    (prepared,) = (folder / "prepared").iterdir()
    asked, wanted = np.load(prepared / "test.query_row.npy"), np.load(prepared / "test.item_row.npy")
    assert asked.tolist() == list(range(USERS))
    hits = [(of_seed == wanted[:, None]).any(axis=1) for of_seed in ranked]
    (entry,) = (
        entry
        for entry in found["measured"]
        if (entry["subject"], entry["slice"], entry["metric"]) == ("cfm", "all", "R@10")
    )
    assert entry["value"] == pytest.approx(np.mean(hits))
    assert not np.array_equal(ranked[0], ranked[1])


def test_it_draws_gains_by_popularity_and_metrics_by_weight_and_dropout(finished):
    folder, output = finished
    for part in ("weight", "dropout", "popularity"):
        assert (folder / f"ablation-{part}.png").read_bytes().startswith(b"\x89PNG")
        assert f"written: {folder / f'ablation-{part}.png'}" in output


def test_a_second_run_trains_nothing_and_finds_the_same(run_file, finished, found):
    folder, _ = finished
    before = trained(folder)
    # Two looks while tuning, and two seeds of two rows.
    assert len(before) == 2 + 4
    again = show.to_dict(ablate(config.load(run_file), folder, jobs=2))
    assert json.loads(json.dumps(again)) == found
    assert trained(folder) == before


def test_a_metric_may_be_called_by_an_alias(block_world, finished, found):
    plan = {**PLAN, "metrics": ["MAP@10", "Recall@10"], "tuning_metric": "Recall@10"}
    again = ablate(config.from_tables(ablation_run(block_world, ablation=plan)), finished[0], jobs=2)
    assert json.loads(json.dumps(show.to_dict(again))) == found


def trained(folder: Path) -> dict[str, int]:
    return {str(path.parent): path.stat().st_mtime_ns for path in folder.glob("cells/*/*/done.json")}


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("cells/*/*-test-*/training/checkpoints/ckpt-*.index"))


def rankings(folder: Path) -> dict[str, np.ndarray]:
    return {path.parent.name: np.load(path) for path in folder.glob("cells/*/*/item_rows.npy")}


def test_an_ablation_that_is_killed_and_then_interrupted_ends_with_the_same_result(run_file, finished, found, tmp_path):
    run = config.load(run_file)
    # Given everything is tuned, and none of the four trainings for the table is done.
    home = tmp_path / "blocks" / "ablation"
    shutil.copytree(finished[0], home)
    for cell in home.glob("cells/*/*-test-*"):
        shutil.rmtree(cell)
    (home / "ablation.json").unlink()
    tuned = len(trained(home))

    # One is done and others train when SIGKILL comes: the workers notice that they are alone.
    with started(run_file, tmp_path) as process:
        wait_until(lambda: len(trained(home)) > tuned, process)
        with pytest.raises(RefusedError, match="another process works on this run"):
            ablate(run, home)
        workers = children(process.pid)
        process.kill()
    assert len(workers) >= 2
    wait_until(lambda: not alive(workers))
    assert tuned < len(trained(home)) < tuned + 4
    # Where more were done, they are not: two of three that are left to two workers end before the last one does.
    for cell in [cell for cell in trained(home) if "-test-" in cell][1:]:
        shutil.rmtree(cell)

    # The last one trains and the other worker has nothing to do when Ctrl-C sends SIGINT to all of them: the parent
    # alone obeys it and ends both, one after a checkpoint.
    with started(run_file, tmp_path) as process:
        wait_until(lambda: len(trained(home)) == tuned + 3 and checkpoints(home), process)
        workers = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=AT_MOST_S)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "Run the same command to go on." in output
    wait_until(lambda: not alive(workers))
    assert not (home / "ablation.json").exists()

    again = json.loads(json.dumps(show.to_dict(ablate(run, home, jobs=2))))
    assert again.pop("seconds").keys() == found["seconds"].keys()
    assert again == {name: values for name, values in found.items() if name != "seconds"}
    once, resumed = rankings(finished[0]), rankings(home)
    assert once.keys() == resumed.keys()
    for name, rows in once.items():
        np.testing.assert_array_equal(rows, resumed[name])


def test_a_finished_cell_that_lost_or_broke_a_file_is_trained_again(run_file, finished, found, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    first, second = sorted(tmp_path.glob("cells/*/cfm-test-*"))
    (first / "item_rows.npy").unlink()
    os.truncate(second / "item_rows.npy", 200)
    again = json.loads(json.dumps(show.to_dict(ablate(config.load(run_file), tmp_path, jobs=1))))
    assert again["measured"] == found["measured"]


def test_an_interruption_before_anything_trains_says_how_to_go_on(block_world, tmp_path):
    # To look through the combinations takes a minute.
    search = {"training.learning_rate": [rate / 1e6 for rate in range(1, 50_000)]}
    plan = {**PLAN, "baseline_search": search, "baseline_trials": 50_000}
    run = config.from_tables(ablation_run(block_world, ablation=plan))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(InterruptedRun, match="Run the same command to go on"):
        ablate(run, tmp_path)


def wait_until(reached: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + AT_MOST_S
    while not reached():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"not reached within {AT_MOST_S} s"
        time.sleep(0.02)


def children(parent: int) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if told(path)[1:] == (parent,)]


def alive(processes: list[int]) -> list[int]:
    """Return those that run; one that ended and that nobody asked for its exit code is a zombie, Z."""
    return [number for number in processes if told(Path(f"/proc/{number}/stat"))[0] not in ("", "Z", "X")]


def told(stat: Path) -> tuple[str, int]:
    """Return a process' state and parent; an empty state where there is none."""
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"baseline_search": {"training.epoch": [1, 2]}},
            r"training: no setting named 'epoch'\. Did you mean 'epochs'.* Mend ablation\.baseline_search\.$",
        ),
        (
            {"baseline_search": {WEIGHT: [0.1, 0.3]}},
            r"ablation\.baseline_search: got 'self_supervision\.objective\.weight', expected .* without a second task",
        ),
        ({"baseline_search": {"training.epochs": [1, -2]}}, r"training\.epochs: got -2"),
        (
            {"subjects": ["mine"], "variants": {"mine": {"like": "cfm", "search": {f"{WEIGHT}s": [1.0]}}}},
            r"self_supervision\.objective: no setting named 'weights'\. .* Mend ablation\.variants\.mine\.$",
        ),
        (
            {"subjects": ["mine"], "variants": {"mine": {"search": {"item.augmentations.0.rate": [0.1]}}}},
            r"item\.augmentations\.0\.rate: got '0'",
        ),
        ({"subjects": ["cfn"]}, r"ablation\.subjects: no row named 'cfn'\. Did you mean 'cfm'"),
        ({"metrics": ["recall"]}, r"ablation\.metrics: got 'recall'"),
        ({"tuning_metric": "best"}, r"ablation\.tuning_metric: got 'best'"),
        (
            {"baseline_search": {"objective.logq": ["none", "counts"]}},
            r"^row 'baseline' .* objective\.logq: got",
        ),
    ],
)
def test_a_setting_that_does_not_exist_is_told_before_anything_is_read_or_trained(plan, message, block_world, tmp_path):
    run = config.from_tables(ablation_run(block_world, ablation={**PLAN, **plan}))
    with pytest.raises(SettingError, match=message):
        ablate(run, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.name != ".lock"] == []


def test_rows_that_do_not_fit_the_run_are_left_out_unless_the_plan_names_them(block_world, tmp_path):
    item = {"features": {"id": {"kind": "id", "width": 4}, "taste": {"kind": "categorical", "width": 4}}}
    run = config.from_tables(ablation_run(block_world, item=item, ablation={**PLAN, "subjects": []}))
    rounds = _Rounds(run, tmp_path, 1)
    rounds._check_rows()
    assert list(rounds._subjects) == ["baseline", "fd", "so", "no_masking"]
    assert "random_mask over 1 features" in rounds._misfits["rfm"]
    named = config.from_tables(ablation_run(block_world, item=item, ablation={**PLAN, "subjects": ["rfm"]}))
    with pytest.raises(SettingError, match=r"^row 'rfm' of .* random_mask over 1 features"):
        ablate(named, tmp_path)


def test_a_closed_form_is_not_ablated_and_a_run_that_names_no_objective_is_in_steps(block_world, tmp_path):
    history = {"features": {"met": {"kind": "history"}}}
    tables = ablation_run(block_world, query=history, tower={}, ablation={**PLAN, "subjects": []})
    with pytest.raises(SettingError, match=r"objective 'dlae' .* Try --set objective\.kind=all_items"):
        ablate(config.from_tables(tables | {"objective": {"kind": "dlae"}}), tmp_path)
    del tables["objective"]
    run = config.with_default_objective(config.from_tables(tables), in_steps=True)
    rounds = _Rounds(run, tmp_path, 1)
    rounds._check_rows()
    assert {"fd", "cfm"} <= set(rounds._subjects)


def test_an_objective_without_logq_is_compared_without_one(block_world, tmp_path):
    run = config.from_tables(
        ablation_run(block_world, objective={"kind": "all_items"}, ablation={**PLAN, "subjects": ["baseline"]})
    )
    found = ablate(run, tmp_path, jobs=1)
    assert [(case.training_rate, case.logq) for case in found.cases] == [(1.0, "")]
    several = config.from_tables(
        ablation_run(block_world, objective={"kind": "all_items"}, ablation={**PLAN, "logq": ["none", "counts"]})
    )
    with pytest.raises(SettingError, match=r"ablation\.logq: got .* the objective 'all_items' has no logq"):
        ablate(several, tmp_path / "several")


def test_without_validation_cases_it_says_what_to_do(block_world, tmp_path):
    split = {"kind": "leave_last", "test_count": 1, "validation_count": 0}
    run = config.from_tables(ablation_run(block_world, split=split))
    with pytest.raises(DataError, match=r"no validation case, .* Give .* a larger .*validation_count") as refused:
        ablate(run, tmp_path)
    assert "Settings are chosen on validation cases" in str(refused.value)
    assert not (tmp_path / "cells").exists()
