"""`make bench-experiment` in its short form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_short_form_counts_false_alarms_and_measures_a_log(tmp_path):
    command = [sys.executable, "-m", "benchmarks.experiment", "--quick", "--results", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "experiment-quick.json").read_text())
    values = {(row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    # 60 experiments at 5 %: 12 or more false alarms have a chance of 1 in 10,000.
    for test in ("mean", "ratio", "mean, CUPED", "ratio, CUPED", "quantile 0.9", "sample ratio"):
        assert values[test, "false_alarm_rate"] < 0.2
    assert values["sample ratio", "caught_rate"] > 0.9
    assert values["measured", "interval_ratio"] == pytest.approx(
        values["theory, sqrt(1 - rho^2)", "interval_ratio"], rel=0.01
    )
    assert values["60,000 lists", "peak_rss_bytes"] > 0
    assert str(tmp_path) not in (tmp_path / "experiment-quick.json").read_text()
