"""`make bench-exposures` in its short form, against a release that is there already."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_form_measures_both_servers_and_the_writer(block_release, tmp_path):
    command = [sys.executable, "-m", "benchmarks.exposures", "--quick", "--release", str(block_release.folder)]

    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "exposures-quick.json").read_text())
    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    assert values["without a log", "calls_per_s"] > 0
    # Every call of two blocks of 0.3 s is in the log.
    assert values["the log", "rows"] >= 2 * 0.3 * min(values["with a log", "calls_per_s"], 100)
    assert values["the log", "dropped"] == 0
    assert values["written", "rows_per_s"] > values["compacted", "rows_per_s"] / 100 > 0
    assert 0 < values["Parquet", "bytes_per_row"] < values["segment", "bytes_per_row"]
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 1
    assert str(tmp_path) not in (tmp_path / "exposures-quick.json").read_text()
