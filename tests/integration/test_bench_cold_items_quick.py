"""`make bench-cold-items` in small: new items and others in one ranking, judged apart."""

from __future__ import annotations

import json

from benchmarks.cold_items import OURS, WITHOUT, bench


def test_new_items_are_judged_beside_others_in_one_ranking(tmp_path):
    small = ["source.users=120", "source.items=80", "evaluation.resamples=100"]
    bench(["synthetic"], tmp_path / "work", tmp_path / "results", [3], [*small, "tower.dim=16"])
    found = json.loads((tmp_path / "results" / "cold-items-synthetic.json").read_text())
    values = {
        (row["case"]["relevant items"], row["subject"]): row["value"]
        for row in found["rows"]
        if row["metric"] == "R@50"
    }
    # What is not shown is not found, and leaves its positions to other items.
    assert values["cold", WITHOUT] == 0 < values["cold", OURS]
    assert values["warm", WITHOUT] >= values["warm", OURS] > 0
    ratio = values["cold", OURS] / values["cold", "feature_popularity"]
    (note,) = (note for note in found["notes"] if note.startswith("synthetic, seed 3"))
    assert f"is {ratio:.1f} times" in note
