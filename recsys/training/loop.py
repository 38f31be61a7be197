"""Run the steps: checkpoints, exact resume, early stopping, TensorBoard."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recsys.config import Run
from recsys.data.batches import SetBatches, TrainingBatches, ViewBatches
from recsys.data.hard_negatives import HardNegatives
from recsys.data.prepare import UNEVEN_WEIGHTS, Prepared
from recsys.errors import DataError, InterruptedRun, SettingError
from recsys.progress import inform, task
from recsys.stack import tf
from recsys.training.choosing import choose
from recsys.training.model import TwoTowerModel, scheduled
from recsys.training.solutions import SolvedTables, solve

OPTIMIZERS = {"adagrad": "Adagrad", "adam": "Adam", "sgd": "SGD"}
LOG_EVERY_STEPS = 50
LARGE_INPUT = 1e6
"""A feature whose numbers go beyond it is named where a loss is not finite."""


@dataclass(frozen=True)
class Validation:
    """One look at the validation cases.

    Attributes:
        step: steps done before it.
        metric: the metric's value.
        loss: mean training loss since the look before, in nats.
    """

    step: int
    metric: float
    loss: float


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
        model: the model with the best weights that a validation saw.
        validations: all looks, oldest first.
        steps: steps done.
        stopped_early: whether patience ended the run.
    """

    model: TwoTowerModel
    validations: tuple[Validation, ...]
    steps: int
    stopped_early: bool


def fit(run: Run, prepared: Prepared, folder: Path, validate: Callable[[TwoTowerModel], float] | None) -> Fitted:
    """Train a run, or go on with one that was interrupted, to its end.

    A run that was interrupted (SIGINT, SIGTERM, SIGKILL, power) and goes on reads the batches that it would have read.
    With `training.deterministic` its weights equal those of an uninterrupted run.

    Args:
        run: the settings.
        prepared: the data.
        folder: holds checkpoints, `validations.jsonl` and TensorBoard events; made if needed.
        validate: returns the validation metric of the model, larger is better; None trains to the end without.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; a checkpoint of the last whole step was written.
        DataError: there is nothing to train on, the hard negatives are of other data, or the checkpoint is damaged.
        SettingError: training diverged.
    """
    if run.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(run.seed)
    if run.objective.reads == "matrix":
        return _solved(run, prepared, validate)
    return _Loop(run, prepared, folder, validate).run_to_end()


def training_batches(run: Run, prepared: Prepared) -> TrainingBatches | SetBatches:
    """Return the batches that the run's objective reads.

    Raises:
        DataError: fewer than two training interactions, or hard negatives of other data.
    """
    if run.objective.reads == "sets":
        batches = SetBatches(prepared, run)
        if batches.sampled_items:
            inform(
                f"the catalog has more than objective.exact_items = {run.objective.exact_items:,} items: each step "
                f"compares with {batches.sampled_items:,} drawn ones and the batch's own"
            )
        return batches
    objective, hard = run.objective, run.objective.hard_negatives
    return TrainingBatches(
        prepared,
        run,
        uniform_negatives=objective.uniform_negatives,
        mask_positives=objective.mask_positives,
        hard_negatives=hard and HardNegatives.read(Path(hard.file), prepared, hard.per_query),
    )


def compiled(run: Run, prepared: Prepared, batches: TrainingBatches | SetBatches) -> TwoTowerModel:
    """Return the model with its optimiser, every variable made, so that a checkpoint restores at once and eagerly."""
    model = TwoTowerModel(prepared, run, batches.steps, batches.expected_hard)
    model.compile(optimizer=_optimizer(run, batches.steps))
    model(tf.nest.map_structure(tf.constant, dict(batches.batch(0))))
    if run.objective.reads == "sets":
        model.main_task.start(model, prepared)
    model.optimizer.build(model.trainable_variables)
    return model


def train_steps(
    model: TwoTowerModel, batches: TrainingBatches | SetBatches, first_step: int = 0, views: ViewBatches | None = None
) -> Iterator[tf.Tensor]:
    """Do one training step for each batch from `first_step` to the end of the run; yield its loss, a scalar in nats.

    Args:
        model: compiled.
        batches: of the main task.
        first_step: where to begin.
        views: of the second task, where its rows come from the catalogue.
    """
    iterator = iter(batches.dataset(first_step) if views is None else views.beside(batches, first_step))
    train_step = tf.function(lambda: model.train_step(next(iterator))["loss"], autograph=False)
    for _ in range(first_step, batches.steps):
        yield train_step()


def _solved(run: Run, prepared: Prepared, validate: Callable[[TwoTowerModel], float] | None) -> Fitted:
    """Return the model of an objective that needs no training steps.

    Its settings are chosen on the validation cases, with solutions of the training part; the model then is the solution
    of both parts.
    """
    chosen = choose(run, prepared, validate)
    model = TwoTowerModel(prepared, chosen.run, steps=1)
    model.encode_items()  # makes every variable
    objective = chosen.run.objective
    with task("solve", 1, "solutions") as running:
        dim = chosen.run.tower.dim
        solution = solve(objective, prepared, dim, run.seed, "train", "validation")
        SolvedTables(model, prepared).assign(solution, objective.cold_start, dim)
        running.advance(1)
    looks = tuple(Validation(0, metric, float("nan")) for metric in chosen.metrics)
    return Fitted(model, looks, steps=1, stopped_early=False)


def large_inputs(prepared: Prepared) -> list[str]:
    """Return the inputs whose size alone may make a loss infinite, each with what it reaches."""
    found = []
    for side, codes in (("item", prepared.item_codes), ("query", prepared.query_codes)):
        for name, values in codes.items():
            largest = float(np.abs(values).max(initial=0)) if values.dtype == np.float32 else 0.0
            if largest > LARGE_INPUT:
                found.append(f"{side}.features.{name} reaches {largest:.3g}")
    weight = prepared.parts["train"].weight
    if weight is not None and weight.max() > UNEVEN_WEIGHTS * weight.min():
        found.append(f"the interactions' weights lie between {weight.min():.3g} and {weight.max():.3g}")
    return found


class _Loop:
    def __init__(
        self, run: Run, prepared: Prepared, folder: Path, validate: Callable[[TwoTowerModel], float] | None
    ) -> None:
        self._run, self._validate, self._folder, self._prepared = run, validate, folder, prepared
        self._batches = training_batches(run, prepared)
        second = run.self_supervision
        self._views = ViewBatches(prepared, run) if second is not None and second.rows == "catalogue" else None
        self._model = compiled(run, prepared, self._batches)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._best = tf.Variable(-np.inf, dtype=tf.float64, trainable=False, name="best_metric")
        self._worse = tf.Variable(0, dtype=tf.int64, trainable=False, name="validations_without_better")
        everything = tf.train.Checkpoint(
            model=self._model,
            optimizer=self._model.optimizer,
            step=self._step,
            best=self._best,
            worse=self._worse,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._latest = tf.train.CheckpointManager(everything, str(folder / "checkpoints"), max_to_keep=2)
        self._best_weights = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self._model), str(folder / "best"), max_to_keep=1
        )
        self._events = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def run_to_end(self) -> Fitted:
        first, validations = self._restore()
        per_epoch = self._batches.steps_per_epoch
        looks_every = per_epoch * self._run.training.epochs_between_looks(per_epoch)
        total = self._batches.steps
        losses: list[tf.Tensor] = []
        saved_at = time.monotonic()
        stopped = self._patience_is_over()
        examples = self._batches.batch_size
        with stop_request() as stop, task("train", total * examples, "examples") as running, self._events.as_default():
            running.start_at(first * examples)
            steps = () if stopped else train_steps(self._model, self._batches, first, self._views)
            for step, loss in enumerate(steps, first + 1):
                losses.append(loss)
                running.advance(examples)
                if step % LOG_EVERY_STEPS == 0 or step % looks_every == 0:
                    self._log(step, float(loss), running)
                if self._validate and (step % looks_every == 0 or step == total):
                    self._check(step, float(loss))
                    validations.append(self._look(step, losses))
                    losses = []
                    running.advance(0, f"{self._run.training.validation_metric} {validations[-1].metric:.4f}")
                    self._save(step, float(loss))
                    self._write_validations(validations)
                    saved_at = time.monotonic()
                    if stopped := self._patience_is_over():
                        break
                elif step == total or time.monotonic() - saved_at > self._run.training.checkpoint_every_s:
                    self._save(step, float(loss))
                    saved_at = time.monotonic()
                if stop.is_set():
                    self._save(step, float(loss))
                    raise InterruptedRun(
                        f"interrupted after step {step:,} of {total:,}; a checkpoint is in {self._folder}. "
                        "Run the same command to go on."
                    )
        if self._best_weights.latest_checkpoint:
            self._best_weights.checkpoint.restore(self._best_weights.latest_checkpoint).expect_partial()
        return Fitted(self._model, tuple(validations), int(self._step.numpy()), stopped)

    def _restore(self) -> tuple[int, list[Validation]]:
        """Return the step and the looks of the newest checkpoint, or of a fresh start."""
        try:
            self._latest.restore_or_initialize()
            first = int(self._step.numpy())
            return first, self._earlier_validations(first)
        except (tf.errors.OpError, ValueError, IndexError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{self._folder}: the checkpoint cannot be read ({reason}). Begin anew: --restart, "
                "or delete the folder."
            ) from None

    def _check(self, step: int, loss: float) -> None:
        if np.isfinite(loss):
            return
        rate = self._run.training.learning_rate
        advice = "Lower it, set training.clip_norm, or raise objective.temperature."
        told = f"training.learning_rate: got {rate:g}, with which training diverged by step {step:,} (loss {loss}). "
        if large := large_inputs(self._prepared):
            raise DataError(
                f"training: got a loss of {loss} by step {step:,}, expected a finite number. Inputs are very large: "
                f"{'; '.join(large)}. Scale them down in the data. If that does not help, training.learning_rate = "
                f"{rate:g} is too high: {advice[0].lower()}{advice[1:]}"
            )
        raise SettingError(told + advice)

    def _save(self, step: int, loss: float) -> None:
        """Write a checkpoint, unless the weights are lost."""
        self._check(step, loss)
        self._step.assign(step)
        self._latest.save(step)

    def _look(self, step: int, losses: list[tf.Tensor]) -> Validation:
        metric = self._validate(self._model)
        look = Validation(step, metric, float(np.mean([float(loss) for loss in losses])) if losses else float("nan"))
        tf.summary.scalar(f"validation/{self._run.training.validation_metric}", metric, step)
        if metric > float(self._best.numpy()):
            self._best.assign(metric)
            self._worse.assign(0)
            self._best_weights.save(step)
        else:
            self._worse.assign_add(1)
        return look

    def _log(self, step: int, loss: float, running: object) -> None:
        rate = self._model.optimizer.learning_rate
        tf.summary.scalar("training/loss", loss, step)
        tf.summary.scalar("training/learning_rate", rate, step)
        for name, value in self._model.main_task.figures.items():
            tf.summary.scalar(f"training/{name}", value, step)
        if self._run.self_supervision is not None:
            tf.summary.scalar("training/view_loss", self._model.view_loss, step)
            tf.summary.scalar("training/view_weight", self._model.view_weight(step - 1), step)
        tf.summary.scalar("training/examples_per_second", running.rate, step)

    def _patience_is_over(self) -> bool:
        patience = self._run.training.patience
        return patience > 0 and int(self._worse.numpy()) >= patience

    def _earlier_validations(self, first: int) -> list[Validation]:
        """Return the looks of the interrupted run up to its checkpoint."""
        path = self._folder / "validations.jsonl"
        if not path.exists():
            return []
        looks = [Validation(**json.loads(line)) for line in path.read_text().splitlines()]
        return [look for look in looks if look.step <= first]

    def _write_validations(self, validations: list[Validation]) -> None:
        path = self._folder / "validations.jsonl"
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(asdict(look)) + "\n" for look in validations))
        os.replace(temporary, path)


def _optimizer(run: Run, steps: int) -> tf.keras.optimizers.Optimizer:
    training = run.training
    rate = scheduled(training.learning_rate, training.schedule, steps)
    clip = {"global_clipnorm": training.clip_norm} if training.clip_norm > 0 else {}
    return getattr(tf.keras.optimizers, OPTIMIZERS[training.optimizer])(learning_rate=rate, **clip)


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event while the block runs; elsewhere than in the main thread, do nothing."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
