"""What the commands write to the terminal is the project's own: no library's log line stands between it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from tests.worlds import block_run

OWN_LINE = re.compile(r"[a-z][\w ,]*: [\d,]+|Training (did|stopped)")
"""`train: 400/400 examples (100%), ...`: what `recsys.progress` writes where there is no terminal, and why training
ended."""


def recsys(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does who has set no variable for the sake of quiet."""
    unset = ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY", "GLOG_minloglevel", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-m", "recsys.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture
def run_file(block_world: Path, tmp_path: Path) -> Path:
    """A run whose index ScaNN trains and tunes, although the catalog is small."""
    tables = block_run(block_world, index={"kind": "scann", "brute_force_below": 1})
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def test_training_writes_nothing_but_progress_and_its_end_to_standard_error(run_file):
    done = recsys("train", str(run_file), folder=run_file.parent)

    assert done.returncode == 0, done.stderr
    foreign = [line for line in done.stderr.splitlines() if not OWN_LINE.match(line)]
    assert foreign == []
    assert "scann" in done.stdout
    assert "WARNING" not in done.stdout


def test_the_log_level_of_all_libraries_can_be_lowered_to_look_for_a_fault(tmp_path):
    code = """
import numpy as np
from pathlib import Path
from recsys.indexes.scann import Scann
Scann(brute_force_below=1).build(np.eye(32, dtype=np.float32), Path("."))
from recsys.stack import tf
tf.get_logger().warning("a line of TensorFlow")
"""
    written = {}
    for level in ("0", "1", "2", "3"):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": level}
        folder = tmp_path / level
        folder.mkdir()
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        written[level] = done.stderr
    assert "partitioner_factory" in written["0"]
    assert "partitioner_factory" not in written["1"]
    assert "a line of TensorFlow" in written["1"]
    assert written["2"] == written["3"] == ""
