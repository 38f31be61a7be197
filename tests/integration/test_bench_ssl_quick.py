"""`make bench-ssl` in its short form on real data; without them, its eight rows and its report on synthetic data."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from benchmarks.report import Report
from benchmarks.ssl import PLANS, STRONG_ROWS, add_ablation, run_of
from recsys import config
from recsys.ablation.ablate import ablate
from recsys.ablation.cells import Case
from recsys.ablation.rows import combinations, laid_over, put, subjects_of
from recsys.ablation.tables import Ablation, Trial
from recsys.commands.ablate import QUICK

ROOT = Path(__file__).parents[2]
AT_MOST_S = 1500
"""Ends a test that hangs; on two quiet cores it takes three minutes."""
SHAPE = {"benchmark", "command", "commit", "date", "machine", "versions", "rows", "notes"}
EIGHT = ("baseline", "fd", "so", "rfm", "rfm_no_compl", "cfm", "cfm_no_dropout", "no_masking")
METRICS = ("AP@10", "AP@50", "R@10", "R@50")
real_data = pytest.mark.skipif(not os.environ.get("RECSYS_DATA_DIR"), reason="RECSYS_DATA_DIR is not set")

Values = Mapping[tuple[Any, ...], Mapping[str, Any]]


def checked(content: Mapping[str, Any]) -> Values:
    """Return the rows that a report of an ablation must have, by what they measure, after a look at each of them."""
    assert set(content) == SHAPE
    assert all(content[name] for name in SHAPE)
    rows = {}
    for row in content["rows"]:
        low, high = row["low"], row["high"]
        # A gain has no bound where the row that it is over finds nothing in too many resamples.
        assert None not in (low, high) or "_gain_" in row["metric"]
        assert low is None or (math.isfinite(low) and low - 1e-6 <= row["value"])
        assert high is None or (math.isfinite(high) and row["value"] <= high + 1e-6)
        rows[tuple(row["case"].values()), row["subject"], row["metric"]] = row
    assert len(rows) == len(content["rows"])
    return rows


def check_table(values: Values, case: tuple[Any, ...], rows: Sequence[str] = EIGHT) -> None:
    """Look for the rows with all metrics in one case: fraction, logq and slice."""
    for subject, metric in itertools.product(rows, METRICS):
        row = values[case, subject, metric]
        assert row["low"] + 1e-6 >= 0
        assert row["high"] <= 1 + 1e-6
        assert row["runs"] >= 1
        # A single epoch over a tenth of the links can leave a baseline that finds nothing, over which nothing gains.
        if (case[0], case[-1]) == (1.0, "all") and subject != "baseline":
            low = values[case, subject, f"{metric}_gain_rate"]["low"]
            assert low is None or low >= -1


@real_data
@pytest.mark.timeout(AT_MOST_S + 100)
def test_the_short_form_on_wikispeedia_measures_every_row_in_every_case(tmp_path):
    results = tmp_path / "results"
    words = ["wikispeedia", "--quick", "--work", str(tmp_path / "work"), "--results", str(results)]
    command = [sys.executable, "-m", "benchmarks.ssl", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=AT_MOST_S)
    assert done.returncode == 0, done.stderr

    text = (results / "ssl-wikispeedia-quick.json").read_text()
    assert str(tmp_path) not in text
    assert (results / "ssl-wikispeedia-quick.md").read_text() in done.stdout
    content = json.loads(text)
    values = checked(content)
    assert content["benchmark"] == "ssl-wikispeedia-quick"
    assert content["command"].startswith("python -m benchmarks.ssl wikispeedia --quick")
    for rate, part in itertools.product((1.0, 0.1), ("all", "head", "tail", "cold")):
        check_table(values, (rate, False, part), STRONG_ROWS)
    costs = {subject: row["value"] for (_, subject, metric), row in values.items() if metric == "step_cost_ratio"}
    assert costs.keys() == set(STRONG_ROWS)
    assert costs["baseline"] == 1
    for rate, part in itertools.product(("1", "0.1"), ("weight", "dropout", "popularity")):
        drawing = f"ssl-wikispeedia-quick-{rate}-{part}.png"
        assert (results / drawing).read_bytes().startswith(b"\x89PNG")
        assert f"Plot: [{drawing}]({drawing})." in content["notes"]
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 1  # the cost of a step


@pytest.mark.parametrize("data", PLANS)
def test_every_row_and_every_combination_of_a_plan_makes_a_run(data):
    plan_of_data = PLANS[data]
    runs = {rate: run_of(plan_of_data, rate, quick=False) for rate in plan_of_data.by_rate}
    for rate, run in runs.items():
        assert set(subjects_of(run.ablation)) >= set(STRONG_ROWS if data.startswith("wikispeedia") else EIGHT)
        assert run.ablation.training_rates == (rate,)
    for run in runs.values():
        plan = run.ablation
        subjects = subjects_of(plan)
        tried_of_baseline = combinations(plan.baseline_search, plan.baseline_trials, plan.tuning_seed)
        for subject in subjects.values():
            tried_of_row = combinations(subject.search, plan.trials, plan.tuning_seed)
            for frozen, chosen in itertools.product(tried_of_baseline[:1], tried_of_row):
                tables = laid_over(config.plain_tables(run), subject.settings)
                for path, value in {**frozen, **chosen}.items():
                    put(tables, path, value)
                config.from_tables(tables)
        for chosen in tried_of_baseline:
            tables = config.plain_tables(run)
            for path, value in chosen.items():
                put(tables, path, value)
            assert config.from_tables(tables).training.epochs >= 1


OVERRIDES = ("ablation.seeds=[1]", "ablation.trials=3", "training.deterministic=true")
"""With 1 + 7 * 3 trainings to choose and 8 for the table, the only worker has done its share, 24, and is replaced."""


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = {
        "name": "small",
        "seed": 2,
        "source": {"kind": "synthetic", "users": 60, "items": 60, "interactions": 900, "groups": 3},
        "query": {"features": {"segment": {"kind": "categorical", "width": 4}}},
        "item": {
            "features": {
                "item": {"kind": "id", "column": "item_id", "width": 4},
                "category": {"kind": "categorical", "width": 4},
                "tags": {"kind": "multi_categorical", "width": 4, "max_values": 3},
            }
        },
        "split": {"kind": "by_time", "test_rate": 0.2, "validation_rate": 0.1},
        "tower": {"kind": "mlp", "hidden": [8], "dim": 4},
        "objective": {"kind": "sampled_softmax"},
        "training": {"batch_size": 64},
    }
    path = tmp_path_factory.mktemp("run") / "small.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


@pytest.fixture(scope="module")
def rehearsal(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `recsys ablate --quick` on synthetic data with all of the paper's rows."""
    work = tmp_path_factory.mktemp("work")
    words = [word for override in OVERRIDES for word in ("--set", override)]
    command = [sys.executable, "-m", "recsys.cli", "ablate", str(run_file), "--quick", *words, "--work", str(work)]
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True, timeout=AT_MOST_S)
    assert done.returncode == 0, done.stderr
    assert "Synthetic: " in done.stdout
    return work / "small" / "ablation-quick"


@pytest.mark.timeout(AT_MOST_S + 100)
def test_a_rehearsal_trains_all_of_the_paper_s_rows_and_no_two_of_them_alike(rehearsal):
    found = json.loads((rehearsal / "ablation.json").read_text())
    shown = tuple(dict.fromkeys(entry["subject"] for entry in found["measured"]))
    assert tuple(subject for subject in shown if not subject.endswith("(reference)")) == EIGHT
    # One seed: all rows begin with the same weights and read the same batches.
    ranked = {path.parent.name: np.load(path) for path in rehearsal.glob("cells/*/*-test-*/item_rows.npy")}
    assert {name.partition("-")[0] for name in ranked} == set(EIGHT)
    assert len(found["trials"]) == 1 + 7 * 3
    for one, other in itertools.combinations(ranked.values(), 2):
        assert not np.array_equal(one, other)


@pytest.mark.timeout(AT_MOST_S + 100)
def test_an_ablation_becomes_a_report(run_file, rehearsal, tmp_path):
    run = config.load(run_file, [*QUICK, *OVERRIDES])
    found = ablate(run, rehearsal)
    report = Report("ssl-small")
    add_ablation(report, found)
    report.write(tmp_path)

    content = json.loads((tmp_path / "ssl-small.json").read_text())
    values = checked(content)
    check_table(values, (1.0, True, "all"))
    for entry in found.measured:
        if entry.slice in ("all", "head", "tail"):
            row = values[(1.0, True, entry.slice), entry.subject, entry.metric]
            assert (row["value"], row["low"], row["high"], row["runs"]) == (entry.value, entry.low, entry.high, 1)
    references = {f"{kind} (reference)" for kind in found.references}
    assert {subject for _, subject, _ in values} == set(EIGHT) | references
    assert sum("(chosen on validation cases)" in note for note in content["notes"]) == len(EIGHT)


def test_the_notes_say_what_the_numbers_are_how_many_settings_were_tried_and_what_the_table_does_not_say():
    case, looks = Case(1.0, "none"), {"AP@10": 0.1}
    path = "self_supervision.objective.weight"
    trials = tuple(Trial(case, "cfm", {path: weight}, looks) for weight in (0.1, 0.3, 1.0))
    chosen = {case: {"baseline": {}, "cfm": trials[1].chosen}}
    report = Report("ssl-small")
    add_ablation(report, Ablation("small", "", ("AP@10",), chosen, trials, (), {}, ("the baseline was not tuned.",)))
    assert report.notes[0].startswith("Metrics and gains are means over seeds and cases")
    told = f"cfm: {path} = 0.3 (chosen on validation cases), the best of 3 tried."
    assert any(note.endswith(told) for note in report.notes)
    assert "The baseline was not tuned." in report.notes
