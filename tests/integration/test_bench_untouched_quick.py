"""`make bench-untouched` in small: commands as a user runs them, judged against the best baseline, and resumed."""

from __future__ import annotations

import json

import pytest

from benchmarks.untouched import BAR, METRICS, World, bench


def test_an_untouched_run_is_judged_by_the_best_baseline_and_taken_up_again(tmp_path, capfd):
    worlds = {"small": World(users=80, items=60, median=12, spread=0.5, taste=1.5)}

    def run() -> dict:
        bench(["small"], tmp_path / "work", tmp_path / "results", [3], worlds)
        return json.loads((tmp_path / "results" / "untouched.json").read_text())

    found = run()
    values = {
        row["subject"]: row["value"] for row in found["rows"] if row["metric"] == METRICS[0] and "seed" in row["case"]
    }
    best = max(value for subject, value in values.items() if subject != "two_tower")
    (ratio,) = (row["value"] for row in found["rows"] if row["subject"] == "ratio to the best baseline")
    assert ratio == pytest.approx(values["two_tower"] / best)
    assert ("met" if ratio >= BAR else "MISSED") in found["notes"][0]
    capfd.readouterr()
    assert run()["rows"] == found["rows"]
    assert capfd.readouterr().err == ""  # nothing was trained again
