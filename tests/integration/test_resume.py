"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from recsys import config
from recsys.data.prepare import prepare
from tests.mined import mined_for_training
from tests.worlds import block_run

LONG = {
    "epochs": 60, "batch_size": 16, "learning_rate": 0.1, "deterministic": True, "checkpoint_every_s": 0.3,
    "validate_every_epochs": 20, "patience": 0,
}  # fmt: skip
OBJECTIVE = {"kind": "sampled_softmax", "logq": "streaming", "learned_temperature": True, "uniform_negatives": 8}
TOWER = {"kind": "mlp", "hidden": [16], "dim": 8, "dropout_rate": 0.2}
SECOND_TASK = {
    "augmentations": [{"kind": "correlated_mask"}, {"kind": "value_dropout"}],
    "side": "both",
    "batch_size": 16,
    "schedule": {"kind": "cosine", "warmup_steps": 50},
}


def trained(run_file: Path, folder: Path) -> np.ndarray:
    """Train to the end, or go on to it, and return the item vectors."""
    process = start(run_file, folder)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    (vectors,) = (folder / "releases").glob("*/item_embeddings.npy")
    return np.load(vectors)


def start(run_file: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["train", str(run_file), "--work", str(folder / "work"), "--releases", str(folder / "releases")]
    return subprocess.Popen(
        [sys.executable, "-m", "recsys.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list((folder / "work").glob("*/training/checkpoints/ckpt-*.index")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)


@pytest.mark.timeout(900)  # three trainings, each a process of its own
@pytest.mark.parametrize(
    ("number", "code", "changes"),
    [(signal.SIGKILL, -signal.SIGKILL, {"self_supervision": SECOND_TASK}), (signal.SIGINT, 130, {})],
    ids=["SIGKILL with a second task", "SIGINT without"],
)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(number, code, changes, block_world, tmp_path):
    run_file, killed = tmp_path / "long.toml", tmp_path / "killed"
    mined_for_training(prepare(config.from_tables(block_run(block_world)), tmp_path / "data")).write(tmp_path / "mined")
    objective = OBJECTIVE | {"hard_negatives": {"file": str(tmp_path / "mined"), "per_query": 2}}
    tables = block_run(block_world, training=LONG, objective=objective, tower=TOWER, **changes)
    run_file.write_text(tomli_w.dumps(tables))

    process = start(run_file, killed)
    wait_for_checkpoint(killed, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert list((killed / "releases").iterdir()) == []

    np.testing.assert_array_equal(trained(run_file, killed), trained(run_file, tmp_path / "uninterrupted"))
