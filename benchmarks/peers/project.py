"""This project's own training step and loop: `python -m benchmarks.peers.project FOLDER [--deterministic]`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks.peers.protocol import Measured, Subject, measure, serve
from recsys import config
from recsys.config import Run
from recsys.data.batches import TrainingBatches
from recsys.data.prepare import Prepared, prepare
from recsys.stack import tf
from recsys.training.loop import compiled, fit, train_steps
from recsys.training.model import TwoTowerModel

WARM_UP_STEPS = 5
MANY_EPOCHS = 1_000_000


def subjects(folder: Path, *, deterministic: bool) -> dict[str, Subject]:
    """Return the subjects over the data that the benchmark prepared.

    Args:
        folder: holds `run.toml` and `prepared`.
        deterministic: turn on TensorFlow's deterministic operations, for the whole process.
    """
    run = config.load(folder / "run.toml")
    prepared = prepare(run, folder / "prepared")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.keras.utils.set_random_seed(run.seed)
        return {"recsys, deterministic": steps_of(run, prepared)}
    plain = replace(run, objective=replace(run.objective, mask_positives=False, logq="none"))
    return {
        "recsys": steps_of(run, prepared),
        "recsys, constant batch": steps_of(run, prepared, constant=True),
        "recsys, like for like": steps_of(plain, prepared),
        "recsys, like for like, constant batch": steps_of(plain, prepared, constant=True),
        "recsys, pipeline alone": pipeline_of(run, prepared),
        "recsys, whole loop": loop_of(run, prepared),
    }


class ConstantBatch:
    """The first batch again and again, in place of the input pipeline."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.steps = batches.steps
        self._batch = dict(batches.batch(0))

    def dataset(self, first_step: int) -> tf.data.Dataset:
        """Return the batch, for ever."""
        return tf.data.Dataset.from_tensors(self._batch).repeat()


def steps_of(run: Run, prepared: Prepared, *, constant: bool = False) -> Subject:
    """Return the training step as the loop calls it, fed by the input pipeline or by one constant batch."""
    run = replace(run, training=replace(run.training, epochs=MANY_EPOCHS))
    batches = TrainingBatches(prepared, run, uniform_negatives=0, mask_positives=run.objective.mask_positives)
    model = compiled(run, prepared, batches)
    losses = train_steps(model, ConstantBatch(batches) if constant else batches)

    def subject(steps: int) -> Measured:
        return measure(lambda: deque(islice(losses, steps), maxlen=1)[0])

    subject(WARM_UP_STEPS)
    return subject


def pipeline_of(run: Run, prepared: Prepared) -> Subject:
    """Return the input pipeline without training: the speed that it could feed."""
    run = replace(run, training=replace(run.training, epochs=MANY_EPOCHS))
    batches = TrainingBatches(prepared, run, uniform_negatives=0, mask_positives=run.objective.mask_positives)
    data = iter(batches.dataset())

    def subject(steps: int) -> Measured:
        return measure(lambda: deque(islice(data, steps), maxlen=0), lambda _: None)

    subject(WARM_UP_STEPS)
    return subject


def loop_of(run: Run, prepared: Prepared) -> Subject:
    """Return the second epoch of `recsys.training.loop.fit`, with its progress, logs and checkpoints.

    The first epoch, which also builds the graph, is not timed.
    """
    run = replace(run, training=replace(run.training, epochs=2, patience=0))

    def subject(steps: int) -> Measured:
        if steps != len(prepared.parts["train"]) // run.training.batch_size:
            raise ValueError(f"the whole loop was asked for {steps} steps; it does one epoch")
        ends: list[tuple[float, float]] = []

        def end_of_epoch(model: TwoTowerModel) -> float:
            ends.append((time.perf_counter(), time.process_time()))
            return 0.0

        with tempfile.TemporaryDirectory() as scratch:
            fitted = fit(run, prepared, Path(scratch), end_of_epoch)
        (first, first_cpu), (second, second_cpu) = ends
        return Measured(second - first, second_cpu - first_cpu, fitted.validations[-1].loss)

    return subject


if __name__ == "__main__":
    serve(lambda: subjects(Path(sys.argv[1]), deterministic="--deterministic" in sys.argv))
