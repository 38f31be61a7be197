"""`make bench-serving` in its short form, against a release that is there already."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_form_measures_every_call_against_the_empty_one_and_confirms_it(block_release, tmp_path):
    command = [sys.executable, "-m", "benchmarks.serving", "--quick", "--release", str(block_release.folder)]

    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "serving-quick.json").read_text())
    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    for form in ("vector", "entity", "features"):
        subject = f"NearestItems by {form}"
        assert values[subject, "calls_per_s"] > 0
        assert values[subject, "share_of_empty_call"] > 0
        assert values[subject, "second_client_calls_per_s"] > 0
        assert values[subject, "second_client_failures"] == 0
        # the release is searched exactly, and what it answers is compared with exact search
        assert values[subject, "recall"] == 1
    assert values["BatchNearestItems, 200 vectors", "recall"] == 1
    assert values["Reformulate", "cost_ratio"] > 0
    assert 0 < values["0.5 of saturation", "p50_ms"] <= values["0.5 of saturation", "p99_ms"]
    assert values["5 x saturating callers", "failures"] == 0
    assert 0 < values["process 0, at the end", "pss_bytes"] <= values["process 0, at the end", "rss_bytes"]
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 6
    assert (tmp_path / "serving-quick.png").stat().st_size > 10_000
    assert str(tmp_path) not in (tmp_path / "serving-quick.json").read_text()
