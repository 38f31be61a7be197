"""`make bench-work` in its short form, against a release that is there already."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_beside_every_kind_of_large_requests_each_ordinary_call_is_answered(block_release, tmp_path):
    command = [sys.executable, "-m", "benchmarks.work", "--quick", "--release", str(block_release.folder)]

    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "work-quick.json").read_text())
    rows = content["rows"]
    assert {row["value"] for row in rows if row["metric"] == "failures"} == {0}
    # nobody, thirteen kinds, all of them, and two single calls
    assert len({row["case"]["beside"] for row in rows}) == 17
    assert all(row["value"] < 10 for row in rows if row["metric"] == "stops_s")
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 2
