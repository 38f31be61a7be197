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


def write_run_file(folder: Path, block_world: Path, **changes: object) -> Path:
    path = folder / "long.toml"
    path.write_text(tomli_w.dumps(block_run(block_world, objective=OBJECTIVE, tower=TOWER, **changes)))
    return path


@pytest.fixture(scope="module")
def run_file(block_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_file(tmp_path_factory.mktemp("run"), block_world, training=LONG)


@pytest.fixture(scope="module")
def uninterrupted(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return trained(run_file, tmp_path_factory.mktemp("uninterrupted"))


def trained(run_file: Path, folder: Path) -> np.ndarray:
    """Train to the end, or go on to it, and return the item vectors."""
    finished = start(run_file, folder)
    output = finished.communicate(timeout=240)[0]
    assert finished.returncode == 0, output
    return item_vectors(folder)


def start(run_file: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["train", str(run_file), "--work", str(folder / "work"), "--releases", str(folder / "releases")]
    return subprocess.Popen(
        [sys.executable, "-m", "recsys.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def item_vectors(folder: Path) -> np.ndarray:
    (vectors,) = (folder / "releases").glob("*/item_embeddings.npy")
    return np.load(vectors)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list((folder / "work").glob("*/training/checkpoints/ckpt-*.index")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(number, code, run_file, uninterrupted, tmp_path):
    process = start(run_file, tmp_path)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert list((tmp_path / "releases").iterdir()) == []

    np.testing.assert_array_equal(trained(run_file, tmp_path), uninterrupted)


def test_a_killed_run_with_a_second_task_ends_with_the_weights_of_an_uninterrupted_one(block_world, tmp_path):
    training = LONG | {"epochs": 30, "validate_every_epochs": 10}
    run_file = write_run_file(tmp_path, block_world, training=training, self_supervision=SECOND_TASK)
    killed = tmp_path / "killed"
    process = start(run_file, killed)
    wait_for_checkpoint(killed, process)
    process.kill()
    process.communicate(timeout=60)
    assert list((killed / "releases").iterdir()) == []

    np.testing.assert_array_equal(trained(run_file, killed), trained(run_file, tmp_path / "uninterrupted"))
