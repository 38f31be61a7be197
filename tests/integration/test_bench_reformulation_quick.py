"""`make bench-reformulation` in its short form on real data."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reformulation import ATTEMPTS, LEARNED, main
from recsys import config

ROOT = Path(__file__).parents[2]
SHAPE = {"benchmark", "command", "commit", "date", "machine", "versions", "rows", "notes"}
LEARNING = {"linear_feedback", "attention", "attention_parallel", "attention_lol", "attention_lol_paper"}
SUBJECTS = {"identity", "average", "history", "rocchio", "default", *LEARNING}
METRICS = ("nDCG@10", "AP@100", "R@100", "helped_rate", "hurt_rate", "robustness_index", "fallback_rate")
DEPTHS = (0, 1, 2, 3, 4, 5, 10)
real_data = pytest.mark.skipif(not os.environ.get("RECSYS_DATA_DIR"), reason="RECSYS_DATA_DIR is not set")


@real_data
def test_the_short_form_judges_every_reformulator_at_every_depth(tmp_path):
    results = tmp_path / "results"
    words = ["nfcorpus", "--quick", "--no-attempts", "--work", str(tmp_path / "work"), "--results", str(results)]
    command = [sys.executable, "-m", "benchmarks.reformulation", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr

    text = (results / "reformulation-quick.json").read_text()
    assert str(tmp_path) not in text
    assert (results / "reformulation-quick.md").read_text() in done.stdout
    content = json.loads(text)
    assert set(content) == SHAPE
    assert all(content[name] for name in SHAPE)
    assert content["benchmark"] == "reformulation-quick"

    values = {}
    for row in content["rows"]:
        assert math.isfinite(row["value"])
        assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
        assert row["runs"] >= 1
        assert row["case"]["data"] == "nfcorpus"
        case = row["case"]
        key = (row["subject"], case["depth"], case.get("guard"), case.get("noise_rate"), row["metric"])
        values[key] = row["value"]
    assert len(values) == len(content["rows"])
    assert {subject for subject, *_ in values} == SUBJECTS

    for subject, depth, metric in itertools.product(SUBJECTS, DEPTHS, METRICS):
        value = values[subject, depth, False, None, metric]
        assert (-1 if metric == "robustness_index" else 0) <= value <= 1
        assert ((subject, depth, True, None, metric) in values) == (subject in {*LEARNING, "default"})
        shares = (values[subject, depth, False, None, name] for name in ("helped_rate", "hurt_rate"))
        assert next(shares) - next(shares) == pytest.approx(values[subject, depth, False, None, "robustness_index"])
    # All subjects start from the same queries. On the collection's own test queries the points are .308 and .304.
    for metric, known in (("nDCG@10", 0.308), ("R@100", 0.304)):
        starts = {values[subject, 0, False, None, metric] for subject in SUBJECTS}
        assert len(starts) == 1
        assert starts.pop() == pytest.approx(known, abs=0.06)
    for subject, rate in itertools.product(SUBJECTS, (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)):
        assert 0 < values[subject, 5, None, rate, "nDCG@10"] < 1
    assert values["average", 5, None, 0.0, "nDCG@10"] == values["average", 5, False, None, "nDCG@10"]
    assert values["average", 5, None, 1.0, "nDCG@10"] < values["average", 5, None, 0.0, "nDCG@10"]
    assert all(values[subject, 5, None, None, "move_us"] > 0 for subject in SUBJECTS - {"default"})

    drawing = "reformulation-quick-nfcorpus.png"
    assert (results / drawing).read_bytes().startswith(b"\x89PNG")
    assert f"Plot: [{drawing}]({drawing})." in content["notes"]
    assert any("against the best untrained of all depths" in note for note in content["notes"])
    assert any(" test queries, " in note for note in content["notes"])
    assert any("the default of a release, by seed: " in note for note in content["notes"])


def test_without_its_data_a_data_set_is_left_out_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "nothing"))
    main(["nfcorpus"], seeds=1, attempts=False, quick=True, work=tmp_path / "work", results=tmp_path)
    content = json.loads((tmp_path / "reformulation-quick.json").read_text())
    assert content["rows"] == []
    assert any(note.startswith("nfcorpus was left out: ") for note in content["notes"])


@pytest.mark.parametrize("overrides", [*LEARNED.values(), *ATTEMPTS.values()], ids=[*LEARNED, *ATTEMPTS])
def test_every_row_is_a_run_that_can_be_trained(overrides):
    told = [f"reformulation.{each}" for each in overrides]
    config.load("wikispeedia", told)
