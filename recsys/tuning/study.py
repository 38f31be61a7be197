"""An Optuna study in a SQLite file: trials are handed out one by one, first those whose processes have ended."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.errors import DataError
from recsys.files import file_lock, storage
from recsys.pipeline import changed_settings
from recsys.search_space import Between
from recsys.tuning.space import Model, Parameter

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
LOCK_TIMEOUT_S = 60.0
"""Time that a process waits for the others to write to the database."""
PRUNE_AFTER_TRIALS, PRUNE_AFTER_LOOKS = 4, 4
"""Trials that must have finished, and looks that a trial has in any case, before one is stopped."""
MODEL = "model"
FINISHED, STOPPED_EARLY, FAILED = "finished", "stopped early", "failed"
FIXED, VALUES, SECONDS, REASON = "fixed", "values", "seconds", "reason"
"""Attributes of trials: names of all that is suggested for one of a model as it is; see `Trial` for the others."""
DIGITS = 4
"""Significant digits of numbers that are tried."""


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    Attributes:
        number: 1, 2, and so on, in the order of their start.
        model: name of its model.
        values: of the settings that differ from the model's own, by path.
        state: `finished`, `stopped early`, because others were better after as many looks, or `failed`.
        metric: of the validation cases; that of the best look where it was stopped early; NaN where it failed.
        seconds: that it took.
        reason: why it failed; empty where it did not.
    """

    number: int
    model: str
    values: Mapping[str, Any]
    state: str
    metric: float
    seconds: float
    reason: str = ""


class RunningTrial:
    """A trial that this process runs; as a context, it is this process's until the block ends.

    Attributes:
        number: see `Trial`.
        model: its model.
        values: see `Trial`.
    """

    def __init__(self, trial: optuna.Trial, model: Model, values: Mapping[str, Any], lock: ExitStack) -> None:
        self._trial, self._lock, self._started = trial, lock, time.monotonic()
        self._reported = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self.number, self.model, self.values = trial.number + 1, model, values

    def __enter__(self) -> RunningTrial:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def is_hopeless(self, looks: Sequence[float]) -> bool:
        """Return whether a trial with these validation metrics is worse than most were after as many looks."""
        for look, metric in enumerate(looks[self._reported :], self._reported + 1):
            self._trial.report(metric, look)
        self._reported = max(self._reported, len(looks))
        return bool(self._trial.should_prune())

    def finish(self, metric: float) -> None:
        """Record the validation metric of the trained model."""
        self._end(value=metric)

    def stop_early(self) -> None:
        """Record that others were better."""
        self._end(state="PRUNED")

    def fail(self, reason: str) -> None:
        """Record why there is no metric."""
        self._trial.set_user_attr(REASON, reason)
        self._end(state="FAIL")

    def _end(self, value: float | None = None, state: str = "COMPLETE") -> None:
        self._trial.set_user_attr(SECONDS, time.monotonic() - self._started)
        self._trial.study.tell(self._trial.number, value, load_optuna().trial.TrialState[state])


class Study:
    """All trials of a run's study. Several processes may share it.

    Args:
        folder: of the study; existing.
        models: by name, the run file's own first.
        seed: of what is tried. In one process the trials do not depend on how often it was interrupted.
        deciding: what all trials must share, as plain tables.

    Raises:
        DataError: the folder holds a study of something else.
        ModuleNotFoundError: Optuna is not installed.
    """

    def __init__(self, folder: Path, models: Mapping[str, Model], seed: int, deciding: Mapping[str, Any]) -> None:
        self._folder, self._models, self._seed = folder, models, seed
        self._optuna = load_optuna()
        with storage(folder):
            (folder / "locks").mkdir(exist_ok=True)
        with self._turn():
            self._study = self._opened()
            known = self._study.user_attrs.get("deciding")
            if known is None:
                self._enqueue_defaults()
                self._study.set_user_attr("deciding", dict(deciding))
            elif changed := changed_settings(known, json.loads(json.dumps(deciding))):
                raise DataError(
                    f"{folder}: holds a study that differs in {', '.join(changed)}. Add --restart to begin anew, or "
                    "give this run another name (--set name=...) or another --work folder."
                )

    def ask(self, limit: float) -> RunningTrial | None:
        """Return a trial whose process has ended, or else the next one; None where there are `limit` of them.

        The trials of other processes count.
        """
        lock = ExitStack()
        with self._turn():
            trial = self._abandoned(lock) or self._next(lock, limit)
            if trial is None:
                return None
            model, values = self._suggested(trial)
            trial.set_user_attr(VALUES, values)
            return RunningTrial(trial, model, values, lock)

    def trials(self) -> list[Trial]:
        """Return all trials that have ended, in order."""
        states = self._optuna.trial.TrialState
        names = {states.COMPLETE: FINISHED, states.PRUNED: STOPPED_EARLY, states.FAIL: FAILED}
        return [
            Trial(
                trial.number + 1,
                trial.params[MODEL],
                trial.user_attrs[VALUES],
                names[trial.state],
                max(trial.intermediate_values.values(), default=math.nan) if trial.value is None else trial.value,
                trial.user_attrs[SECONDS],
                trial.user_attrs.get(REASON, ""),
            )
            for trial in self._study.get_trials(deepcopy=False, states=tuple(names))
        ]

    def _abandoned(self, lock: ExitStack) -> optuna.Trial | None:
        """Return a trial that no process runs any more, and let `lock` keep it for this one."""
        running = (self._optuna.trial.TrialState.RUNNING,)
        for trial in self._study.get_trials(deepcopy=False, states=running):
            with suppress(BlockingIOError):
                lock.enter_context(file_lock(self._lock_of(trial.number)))
                self._reseed(trial.number)
                return self._optuna.Trial(self._study, trial._trial_id)
        return None

    def _next(self, lock: ExitStack, limit: float) -> optuna.Trial | None:
        waiting = self._optuna.trial.TrialState.WAITING
        started = sum(trial.state != waiting for trial in self._study.get_trials(deepcopy=False))
        if started >= limit:
            return None
        self._reseed(started)
        trial = self._study.ask()
        lock.enter_context(file_lock(self._lock_of(trial.number)))
        return trial

    def _reseed(self, number: int) -> None:
        """Let what is drawn for a trial depend on its number, and not on the draws of this process."""
        seed = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(seed[0]))

    def _opened(self) -> optuna.Study:
        path = (self._folder / DATABASE).resolve()

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, check_same_thread=False)

        with storage(self._folder):
            # Connected by a function, because not every path can be written in a URL.
            database = self._optuna.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": connect})
            pruner = self._optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_LOOKS)
            return self._optuna.create_study(
                storage=database, pruner=pruner, study_name="study", direction="maximize", load_if_exists=True
            )

    def _enqueue_defaults(self) -> None:
        """Let the first trials be the models as they are, so that no search ends below them."""
        for model in self._models.values():
            parameters = {parameter.path: parameter for parameter in model.parameters}
            for values in model.first_trials:
                fixed = {_name(model, parameters[path]): _encoded(parameters[path], values[path]) for path in values}
                fixed[MODEL] = model.name
                self._study.enqueue_trial(fixed, user_attrs={FIXED: list(fixed)})

    def _suggested(self, trial: optuna.Trial) -> tuple[Model, dict[str, Any]]:
        fixed = trial.user_attrs.get(FIXED)
        model = self._models[trial.suggest_categorical(MODEL, list(self._models))]
        values = {}
        for parameter in model.parameters:
            name, tried = _name(model, parameter), parameter.values
            if fixed is not None and name not in fixed:
                continue
            if not isinstance(tried, Between):
                options = [json.dumps(value) for value in tried.values]
                values[parameter.path] = json.loads(trial.suggest_categorical(name, options))
            elif isinstance(tried.low, int) and isinstance(tried.high, int):
                values[parameter.path] = trial.suggest_int(name, tried.low, tried.high, log=tried.log)
            else:
                drawn = trial.suggest_float(name, tried.low, tried.high, log=tried.log)
                values[parameter.path] = min(max(float(f"{drawn:.{DIGITS}g}"), tried.low), tried.high)
        as_is = {
            parameter.path: json.loads(json.dumps(parameter.default))
            for parameter in model.parameters
            if not parameter.in_list
        }
        return model, {path: value for path, value in values.items() if path not in as_is or value != as_is[path]}

    def _lock_of(self, number: int) -> Path:
        return self._folder / "locks" / str(number)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one process at a time look at the study and change what is handed out."""
        with file_lock(self._folder / "locks" / "turn", wait=True):
            yield


def load_optuna() -> Any:
    """Return Optuna, which is silent but for warnings.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _name(model: Model, parameter: Parameter) -> str:
    return f"{model.name}: {parameter.path}"


def _encoded(parameter: Parameter, value: Any) -> Any:
    return value if isinstance(parameter.values, Between) else json.dumps(value)
