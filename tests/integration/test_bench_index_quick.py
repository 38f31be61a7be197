"""`make bench-index` in its short form."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_form_compares_the_project_with_what_is_installed_at_equal_recall(tmp_path):
    command = [sys.executable, "-m", "benchmarks.index", "--quick", "--results", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "index-quick.json").read_text())
    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    assert values["brute_force", "recall"] == 1
    assert values["scann", "recall"] > 0.9
    assert values["scann (tuned)", "recall_low"] >= 0.95
    for metric in ("query_us", "batch_queries_per_s", "build_s", "index_bytes"):
        assert values["scann", metric] > 0
    assert str(tmp_path) not in (tmp_path / "index-quick.json").read_text()
    assert "| scann |" in done.stdout
