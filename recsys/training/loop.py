"""Run the steps: checkpoints, exact resume, early stopping, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from recsys import registry
from recsys.config import Run
from recsys.data import encoders
from recsys.data.batches import PositionBatches, SetBatches, TrainingBatches, ViewBatches
from recsys.data.hard_negatives import HardNegatives
from recsys.data.prepare import UNEVEN_WEIGHTS, Prepared, parts_in_words
from recsys.errors import DataError, InterruptedRun
from recsys.progress import Task, inform, task
from recsys.stack import tf
from recsys.training.choosing import choose
from recsys.training.model import TwoTowerModel, scheduled
from recsys.training.solutions import SolvedTables, solve
from twintower.errors import SettingError

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
class Choice:
    """What validation decided of a training.

    Attributes:
        run: the run with the settings that were chosen.
        steps_rate: share (0..1) of the run's steps after which the weights were best; 0 where the start was.
        loss: mean training loss then, in nats; NaN where there was no validation.
        rows: training interactions.
        sentence: when training stopped, why, and which weights are used.
        start: the run whose solution training starts from; None starts from random vectors.
    """

    run: Run
    steps_rate: float
    loss: float
    rows: int
    sentence: str
    start: Run | None = None


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
        model: the model with the best weights that a validation saw, or refitted with as many steps.
        prepared: the data that the model was fitted on.
        choice: what validation decided.
        validations: all looks, oldest first.
        steps: steps done until training stopped; of a refit, not those before it.
        stopped_early: whether patience ended the run.
    """

    model: TwoTowerModel
    prepared: Prepared
    choice: Choice
    validations: tuple[Validation, ...]
    steps: int
    stopped_early: bool

    @property
    def sentence(self) -> str:
        """When training stopped, why, which weights are used, and on which rows they were fitted."""
        if self.prepared.as_split is None:
            return self.choice.sentence
        steps = "" if self.choice.run.objective.reads == "matrix" else f", {self.steps:,} steps"
        return f"{self.choice.sentence} The model was then fitted anew on {rows_of(self.prepared)}{steps}."


def fit(
    run: Run,
    prepared: Prepared,
    folder: Path,
    validate: Callable[[TwoTowerModel], float] | None,
    refit_on: Prepared | None = None,
    watch: Callable[[Sequence[Validation]], None] | None = None,
) -> Fitted:
    """Train a run, or go on with one that was interrupted, to its end; then fit anew on more data, if there are any.

    A run that was interrupted (SIGINT, SIGTERM, SIGKILL, power) and goes on reads the batches that it would have read.
    With `training.deterministic` its weights equal those of an uninterrupted run.

    Args:
        run: the settings.
        prepared: the data.
        folder: holds checkpoints, `validations.jsonl` and TensorBoard events; made if needed.
        validate: returns the validation metric of the model, larger is better; None trains to the end without.
        refit_on: the data that the model is fitted on anew once validation has chosen; None, or the same
            data, keeps the first model.
        watch: is called with all looks after each look of training in steps; whatever it raises ends the training.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; a checkpoint of the last whole step was written.
        DataError: there is nothing to train on, the hard negatives are of other data, or the checkpoint is damaged.
        SettingError: training diverged.
    """
    _begin(run)
    if run.objective.reads == "matrix":
        choice, looks = _choose_settings(run, prepared, validate)
        return replace(fit_as_chosen(run, refit_on or prepared, folder, choice), validations=looks)
    start = _choose_start(run, prepared, validate)
    fitted = _Loop(run, prepared, folder, validate, start=start, watch=watch).run_to_end()
    inform(fitted.choice.sentence)
    if refit_on is None:
        return fitted
    if validate is not None:
        validate(fitted.model)  # one that keeps the best model has not seen it where the run was interrupted
    if refit_on is prepared:
        return fitted
    again = fit_as_chosen(run, refit_on, folder / "refit", fitted.choice)
    return replace(again, validations=fitted.validations, stopped_early=fitted.stopped_early)


def fit_as_chosen(run: Run, prepared: Prepared, folder: Path, choice: Choice) -> Fitted:
    """Fit a model anew with what validation chose; without validation, and resumable like `fit`.

    Args:
        run: the settings.
        prepared: the data, which may hold more parts of the split than those that validation chose on.
        folder: holds the checkpoints; made if needed.
        choice: from `fit`. Steps follow the rows: the refit does the same share of the steps that a whole run on
            these data would do, with the learning rates of their schedule, and goes on where the training loss, with
            an allowance for the number of rows, is not yet as low as it was when validation chose.

    Reference:
        Goodfellow, Bengio and Courville 2016, Deep Learning, Algorithm 7.2, and 7.3 for the loss.
    """
    _begin(run)
    if run.objective.reads == "matrix":
        return _solved(prepared, choice)
    return _Loop(run, prepared, folder, None, choice, choice.start).run_to_end()


def _begin(run: Run) -> None:
    if run.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(run.seed)


def training_batches(run: Run, prepared: Prepared) -> TrainingBatches | SetBatches:
    """Return the batches that the run's objective reads.

    Raises:
        DataError: fewer than two training interactions, or hard negatives of other data.
    """
    if run.objective.reads == "sets":
        by_position = any(map(encoders.reads_order, run.query_features.values()))
        batches = (PositionBatches if by_position else SetBatches)(prepared, run)
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


def _choose_settings(
    run: Run, prepared: Prepared, validate: Callable[[TwoTowerModel], float] | None
) -> tuple[Choice, tuple[Validation, ...]]:
    """Return the settings of an objective without training steps whose solution is the best on validation cases."""
    chosen, metrics = choose(run, prepared, validate)
    sentence = "Solved in closed form, without training steps"
    if metrics:
        best = f"the best {run.training.validation_metric} was {max(metrics):.4f}"
        sentence += f"; settings were chosen in {len(metrics)} looks at the validation cases, where {best}"
    looks = tuple(Validation(0, metric, math.nan) for metric in metrics)
    return Choice(chosen, 1.0, math.nan, len(prepared.parts["train"]), f"{sentence}."), looks


def _choose_start(run: Run, prepared: Prepared, validate: Callable[[TwoTowerModel], float] | None) -> Run | None:
    """Return the run whose solution training starts from, its settings chosen; None starts from random vectors."""
    kind = getattr(run.objective, "start", "")
    if not kind:
        return None
    objective = registry.build("objectives", {"kind": kind}, "objective.start")
    chosen, _ = choose(replace(run, objective=objective), prepared, validate)
    return chosen


def _assign_solution(model: TwoTowerModel, prepared: Prepared, run: Run) -> None:
    """Set all tables to the solution of a run whose settings are chosen."""
    with task(f"solve on {rows_of(prepared)}", 1, "solutions") as running:
        solution = solve(run.objective, prepared, run.tower.dim, run.seed, "train")
        SolvedTables(model, prepared).assign(solution, run.objective.cold_start, run.tower.dim)
        running.advance(1)


def _solved(prepared: Prepared, choice: Choice) -> Fitted:
    """Return the model whose weights are the solution of the objective."""
    run = choice.run
    model = TwoTowerModel(prepared, run, steps=1)
    model.encode_items()  # makes every variable
    _assign_solution(model, prepared, run)
    return Fitted(model, prepared, choice, (), steps=1, stopped_early=False)


def rows_of(prepared: Prepared) -> str:
    """Return in words what a model is fitted on, such as `1,200 training and validation rows`."""
    return f"{len(prepared.parts['train']):,} {parts_in_words(prepared.fitted_on)} rows"


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
        self,
        run: Run,
        prepared: Prepared,
        folder: Path,
        validate: Callable[[TwoTowerModel], float] | None,
        choice: Choice | None = None,
        start: Run | None = None,
        watch: Callable[[Sequence[Validation]], None] | None = None,
    ) -> None:
        self._watch = watch
        self._run, self._validate, self._folder, self._prepared = run, validate, folder, prepared
        self._batches = training_batches(run, prepared)
        self._choice, self._start = choice, start
        per_epoch = self._batches.steps_per_epoch
        self._looks_every = per_epoch * run.training.epochs_between_looks(per_epoch)
        self._end = self._batches.steps if choice is None else _steps_of(choice, self._batches.steps)
        self._losses_before = (0.0, 0)
        second = run.self_supervision
        self._views = ViewBatches(prepared, run) if second is not None and second.rows == "catalogue" else None
        self._model = compiled(run, prepared, self._batches)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._best = tf.Variable(-np.inf, dtype=tf.float64, trainable=False, name="best_metric")
        self._worse = tf.Variable(0, dtype=tf.int64, trainable=False, name="validations_without_better")
        self._saved_end = tf.Variable(self._end, dtype=tf.int64, trainable=False, name="end")
        self._loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="loss_since_look")
        self._loss_count = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps_since_look")
        everything = tf.train.Checkpoint(
            model=self._model,
            optimizer=self._model.optimizer,
            step=self._step,
            best=self._best,
            worse=self._worse,
            end=self._saved_end,
            loss_sum=self._loss_sum,
            loss_count=self._loss_count,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._latest = tf.train.CheckpointManager(everything, str(folder / "checkpoints"), max_to_keep=2)
        self._best_weights = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self._model), str(folder / "best"), max_to_keep=1
        )
        self._events = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def run_to_end(self) -> Fitted:
        if self._start is not None and self._latest.latest_checkpoint is None:
            _assign_solution(self._model, self._prepared, self._start)
        first, validations = self._restore()
        if self._is_start_a_choice and self._validate is not None and first == 0:
            validations = [self._look(0, math.nan)]
            self._write_validations(validations)
        losses: list[tf.Tensor] = []
        saved_at = time.monotonic()
        stopped = self._patience_is_over()
        examples, is_done = self._batches.batch_size, stopped or first == self._end
        with stop_request() as stop, self._progress() as running, self._events.as_default():
            running.start_at(first * examples)
            steps = () if is_done else train_steps(self._model, self._batches, first, self._views)
            for step, loss in enumerate(steps, first + 1):
                losses.append(loss)
                running.advance(examples)
                if step % LOG_EVERY_STEPS == 0 or step % self._looks_every == 0:
                    self._log(step, float(loss), running)
                if is_look := self._validate is not None and self._is_boundary(step):
                    self._check(step, float(loss))
                    validations.append(self._look(step, self._mean_loss(losses)))
                    running.advance(0, f"{self._run.training.validation_metric} {validations[-1].metric:.4f}")
                    self._write_validations(validations)
                    if self._watch is not None:
                        self._watch(validations)
                    stopped = self._patience_is_over()
                is_done = stopped or self._is_done(step, losses)
                running.expect(self._end * examples)
                if is_look or is_done or stop.is_set() or self._is_due(saved_at):
                    self._save(step, float(loss), losses)
                    losses, saved_at = [], time.monotonic()
                if is_done:
                    break
                if stop.is_set():
                    raise InterruptedRun(
                        f"interrupted after step {step:,} of {self._end:,}; a checkpoint is in "
                        f"{self._folder}. Run the same command to go on."
                    )
        if self._best_weights.latest_checkpoint:
            self._best_weights.checkpoint.restore(self._best_weights.latest_checkpoint).expect_partial()
        done = int(self._step.numpy())
        choice = self._choice or self._chosen(validations, done, stopped)
        return Fitted(self._model, self._prepared, choice, tuple(validations), done, stopped)

    @property
    def _is_start_a_choice(self) -> bool:
        """Whether training starts from vectors that mean something, and validation may prefer them."""
        towers = (self._model.query_tower, self._model.item_tower)
        return self._start is not None or all(getattr(tower, "starts_from_vectors", False) for tower in towers)

    def _is_boundary(self, step: int) -> bool:
        """Return whether a step is one after which there is a look, and after which losses are counted anew."""
        return step % self._looks_every == 0 or step == self._end

    def _is_done(self, step: int, losses: list[tf.Tensor]) -> bool:
        """Return whether training ends with a step; move the end of a refit that has not learned enough yet."""
        if self._is_boundary(step):
            loss = self._mean_loss(losses)
            losses.clear()
            self._losses_before = (0.0, 0)
            if step == self._end < self._batches.steps and self._is_above_chosen(loss):
                self._end = min(step + self._looks_every, self._batches.steps)
        return step >= self._end

    def _is_above_chosen(self, loss: float) -> bool:
        """Return whether a refit's training loss is above the one at which validation chose.

        The loss of an objective that reads sets grows with the items of a query, so that the share of added rows is
        allowed.
        """
        if self._choice is None or not np.isfinite(self._choice.loss):
            return False
        added_rate = len(self._prepared.parts["train"]) / self._choice.rows - 1
        return loss > self._choice.loss + max(added_rate, 0) * abs(self._choice.loss)

    def _mean_loss(self, losses: Sequence[tf.Tensor]) -> float:
        """Return the mean loss since the last look: of these steps, and of those before the last checkpoint."""
        total, count = self._losses_before
        return (total + sum(map(float, losses))) / (count + len(losses)) if count + len(losses) else math.nan

    def _is_due(self, saved_at: float) -> bool:
        return time.monotonic() - saved_at > self._run.training.checkpoint_every_s

    def _progress(self) -> AbstractContextManager[Task]:
        verb = "train" if self._choice is None else "fit anew"
        return task(f"{verb} on {rows_of(self._prepared)}", self._end * self._batches.batch_size, "examples")

    def _chosen(self, validations: Sequence[Validation], done: int, stopped: bool) -> Choice:
        training, total, rows = self._run.training, self._batches.steps, len(self._prepared.parts["train"])
        if not validations:
            sentence = f"Training did all {done:,} steps; without validation cases, the last weights are used."
            return Choice(self._run, done / total, math.nan, rows, sentence, self._start)
        best = max(validations, key=lambda look: look.metric)  # of equal ones the first
        ended = f"Training did all {done:,} steps."
        if stopped:
            ended = (
                f"Training stopped early, after step {done:,} of {total:,}: {training.validation_metric} had not "
                f"improved in {training.patience} validations (training.patience)."
            )
        start = "the ready-made vectors" if self._start is None else repr(registry.kind_of(self._start.objective))
        which = f"step {best.step:,}" if best.step else f"the start, {start},"
        which = "the last step" if best.step == done else which
        sentence = (
            f"{ended} The weights of {which} are used, with the best {training.validation_metric} on validation cases, "
            f"{best.metric:.4f}."
        )
        return Choice(self._run, best.step / total, best.loss, rows, sentence, self._start)

    def _restore(self) -> tuple[int, list[Validation]]:
        """Return the step and the looks of the newest checkpoint, or of a fresh start."""
        try:
            self._latest.restore_or_initialize()
            first, self._end = int(self._step.numpy()), int(self._saved_end.numpy())
            self._losses_before = (float(self._loss_sum.numpy()), int(self._loss_count.numpy()))
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
        if large := large_inputs(self._prepared):
            raise DataError(
                f"training: got a loss of {loss} by step {step:,}, expected a finite number. Inputs are very large: "
                f"{'; '.join(large)}. Scale them down in the data. If that does not help, training.learning_rate = "
                f"{rate:g} is too high: {advice[0].lower()}{advice[1:]}"
            )
        got = f"{rate:g}, with which training diverged by step {step:,} (loss {loss})"
        raise SettingError(f"training.learning_rate: got {got}. {advice}")

    def _save(self, step: int, loss: float, losses: Sequence[tf.Tensor]) -> None:
        """Write a checkpoint, unless the weights are lost; `losses` are those since the last look or checkpoint."""
        self._check(step, loss)
        total, count = self._losses_before
        self._losses_before = (total + sum(map(float, losses)), count + len(losses))
        self._loss_sum.assign(self._losses_before[0])
        self._loss_count.assign(self._losses_before[1])
        self._saved_end.assign(self._end)
        self._step.assign(step)
        self._latest.save(step)

    def _look(self, step: int, loss: float) -> Validation:
        metric = self._validate(self._model)
        look = Validation(step, metric, loss)
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


def _steps_of(choice: Choice, steps: int) -> int:
    """Return how many of a run's steps a refit does: at least one, unless the start was the best."""
    return max(round(choice.steps_rate * steps), 1 if choice.steps_rate else 0)


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
