"""`make bench-admission` in its short form, against a release that is there already."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_beside_every_attack_each_call_of_an_ordinary_caller_is_answered(block_release, tmp_path):
    command = [sys.executable, "-m", "benchmarks.admission", "--quick", "--release", str(block_release.folder)]

    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "admission-quick.json").read_text())
    rows = content["rows"]
    attacks = [row for row in rows if row["case"]["part"] == "attacks"]
    assert len({row["subject"] for row in attacks}) == 8
    assert {row["value"] for row in attacks if row["metric"] == "failures"} == {0}
    # every call at once ends with an answer or a refusal that says when to come back
    ends = [row["subject"] for row in rows if row["case"]["part"] == "at once" and row["metric"] == "calls"]
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED OVERLOADED with RetryInfo"}
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 2
