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

from recsys import config, pipeline
from recsys.data.prepare import prepare
from tests.mined import mined_for_training
from tests.worlds import block_run

LONG = {
    "epochs": 12, "batch_size": 16, "optimizer": "adagrad", "learning_rate": 0.1, "deterministic": True,
    "checkpoint_every_s": 0.3, "validate_every_epochs": 4, "patience": 0,
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
    release = pipeline.train(config.load(run_file), folder / "work", folder / "releases")
    return np.load(release.folder / "item_embeddings.npy")


def start(run_file: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["train", str(run_file), "--work", str(folder / "work"), "--releases", str(folder / "releases")]
    return subprocess.Popen(
        [sys.executable, "-m", "recsys.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def checkpoints(folder: Path, stage: str) -> set[str]:
    return {path.name for path in (folder / "work").glob(f"*/{stage}/checkpoints/ckpt-*.index")}


def stopped(run_file: Path, folder: Path, number: signal.Signals, stage: str = "training") -> int:
    """Train until a stage has a checkpoint that was not there before, send a signal, and return the exit code."""
    before, deadline = checkpoints(folder, stage), time.monotonic() + 120
    process = start(run_file, folder)
    while not checkpoints(folder, stage) - before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.timeout(900)  # two trainings with two refits each, of which one is begun five times
def test_a_run_that_was_killed_and_interrupted_ends_with_the_weights_of_an_uninterrupted_one(block_world, tmp_path):
    run_file, broken = tmp_path / "long.toml", tmp_path / "broken"
    mined_for_training(prepare(config.from_tables(block_run(block_world)), tmp_path / "data")).write(tmp_path / "mined")
    objective = OBJECTIVE | {"hard_negatives": {"file": str(tmp_path / "mined"), "per_query": 2}}
    tables = block_run(block_world, training=LONG, objective=objective, tower=TOWER, self_supervision=SECOND_TASK)
    tables["release"] = {"refit": "all"}
    run_file.write_text(tomli_w.dumps(tables))

    assert stopped(run_file, broken, signal.SIGKILL) == -signal.SIGKILL
    assert stopped(run_file, broken, signal.SIGINT) == 130
    assert stopped(run_file, broken, signal.SIGKILL, "training/refit") == -signal.SIGKILL
    assert stopped(run_file, broken, signal.SIGINT, "training/refit_all") == 130
    assert list((broken / "releases").iterdir()) == []

    np.testing.assert_array_equal(trained(run_file, broken), trained(run_file, tmp_path / "uninterrupted"))
