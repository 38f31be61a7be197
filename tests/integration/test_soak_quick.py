"""`make soak` for a few seconds, against a release that is there already."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_short_soak_counts_all_kinds_of_calls_and_says_what_the_server_does_not_offer(block_release, tmp_path):
    command = [sys.executable, "-m", "benchmarks.soak", "--quick", "--release", str(block_release.folder)]
    command += ["--minutes", "0.1", "--pace-s", "1", "--processes", "1", "--results", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "soak-quick.json").read_text())
    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    reads = ("NearestItems", "BatchNearestItems", "SearchVectors", "EncodeQuery", "Reformulate", "Session")
    for name in (*reads, "GetRelease", "Check"):
        assert values[name, "OK"] > 0
        assert 0 < values[name, "p50_ms"] <= values[name, "p99_ms"]
    for when in ("start", "end"):
        assert values[f"all processes, at the {when}", "pss_bytes"] > 0
    # one process has no other that could be killed
    assert "Kills were skipped: this server does not offer them." in content["notes"]
    assert content["notes"][-1].startswith("Bar met: wrong answers: none")
