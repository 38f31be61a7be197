"""`make bench-train` and `make bench-memory` in their short forms."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHAPE = {"benchmark", "command", "commit", "date", "machine", "versions", "rows", "notes"}
PEERS = {"plain TensorFlow loop", "TFRS tutorial model"}
OURS = {
    "recsys",
    "recsys, constant batch",
    "recsys, like for like",
    "recsys, like for like, constant batch",
    "recsys, deterministic",
}
PIPELINE = "recsys, pipeline alone"


def quick(benchmark: str, results: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    text = (results / f"{benchmark}-quick.json").read_text()
    assert str(results) not in text
    content = json.loads(text)
    assert set(content) == SHAPE
    assert (results / f"{benchmark}-quick.md").read_text() in done.stdout
    return content


def test_the_short_training_benchmark_times_every_subject_on_the_same_seven_features(tmp_path):
    content = quick("train", tmp_path)

    blocks = [row for row in content["rows"] if row["case"]["steps"] == 5]
    values = {(row["subject"], row["metric"]): row for row in blocks}
    assert {row["subject"] for row in blocks} == PEERS | OURS | {PIPELINE}
    assert {row["case"]["features"] for row in blocks} == {7}
    assert (PIPELINE, "last_loss_nats") not in values
    for subject in PEERS | OURS | {PIPELINE}:
        speed = values[subject, "examples_per_s"]
        assert 0 < speed["low"] <= speed["value"] <= speed["high"] < math.inf
        assert speed["runs"] == 2
        assert values[subject, "cpu_ms_per_step"]["value"] > 0
    for subject in PEERS | OURS:
        # Guessing among a batch of 1,024 costs ln 1024 = 6.9 nats; a broken loss is far from it or not finite.
        assert 0 < values[subject, "last_loss_nats"]["value"] < 20
    assert values["plain TensorFlow loop", "ratio_to_plain"]["value"] == 1
    epoch = {row["subject"]: row["value"] for row in content["rows"] if row["case"]["steps"] != 5}
    assert epoch.keys() == {"plain TensorFlow loop", "recsys, whole loop"}
    assert sum("Bar " in note for note in content["notes"]) == 1
    assert any("LibRecommender was left out" in note for note in content["notes"])


def test_the_short_memory_benchmark_measures_the_peak_of_the_real_command_for_each_size(tmp_path):
    content = quick("memory", tmp_path)

    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    subjects = {subject for subject, _ in values}
    assert subjects == {"recsys train, 20,000 interactions", "recsys train, 60,000 interactions"}
    for subject in subjects:
        # TensorFlow alone takes some hundred megabytes; sixty thousand interactions add little.
        assert 200e6 < values[subject, "peak_rss_bytes"] < 4e9
        assert values[subject, "seconds"] > 1
    assert sum("Bar met" in note for note in content["notes"]) == 1
