"""Run the trials of a study: train on the training part, judge on the validation cases."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys import config, progress
from recsys.config import Run
from recsys.data.decisions import decide, has_closed_form
from recsys.data.prepare import Prepared, prepare, reencoded, version
from recsys.errors import DataError, InterruptedRun, StorageError
from recsys.evaluation.held_out import held_out
from recsys.files import file_lock, storage
from recsys.metrics.ranking import parse
from recsys.pipeline import Validator
from recsys.stack import tf
from recsys.training.loop import Validation, fit
from recsys.training.model import TwoTowerModel
from recsys.tuning.space import Model, description_of, models_of
from recsys.tuning.study import DATABASE, FINISHED, RunningTrial, Study, Trial, load_optuna
from twintower.errors import describe, verbatim

DEFAULT_TRIALS = 30
GO_ON = "Run the same command to go on."
UNTRIED = ("ablation", "evaluation", "index", "reformulation", "release")
"""Sections of a run file that no trial reads."""


@dataclass(frozen=True)
class Tuning:
    """What a study found so far.

    Attributes:
        run: the run that is tuned.
        models: all that are tried, by name, the run file's own first.
        trials: those that have ended, in order.
        database: the file of the study.
        is_interrupted: whether a signal ended the search.
    """

    run: Run
    models: Mapping[str, Model]
    trials: tuple[Trial, ...]
    database: Path
    is_interrupted: bool = False

    @property
    def metric(self) -> str:
        """What trials are compared by, on the validation cases."""
        return self.run.training.validation_metric

    @property
    def best(self) -> Trial:
        """The finished trial with the best metric; of equal ones the first."""
        return max(self._finished, key=lambda trial: trial.metric)

    @property
    def as_is(self) -> Trial | None:
        """The trial of the run file as it is; None where it failed."""
        first = next(iter(self._finished))
        return first if first.number == 1 else None

    @property
    def _finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == FINISHED]

    def tables_of(self, trial: Trial) -> dict[str, Any]:
        """Return the run file of a trial."""
        return self.models[trial.model].with_values(trial.values)


def tune(
    tables: Mapping[str, Any],
    home: Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    tries: Sequence[str] = (),
) -> Tuning:
    """Search the settings of a run; an interrupted study goes on where it stopped.

    The first trials are the run file as it is, and each kind of objective that suits it with its default settings; the
    tree-structured Parzen estimator of Optuna proposes the others. A trial is trained on the training part alone, and
    judged on the validation cases. Test cases are taken out of the data before.

    Args:
        tables: the run file, as it was written.
        home: holds the study and the prepared data; made if needed.
        trials: of the study, those of earlier calls and of other processes included. Left out: 30, or any number where
            `minutes` is given.
        minutes: after which this call ends; a trial that runs then is trained by the next call.
        tries: `path=values` strings: see `recsys.tuning.space.models_of`.

    Raises:
        DataError: there is no validation case, the study is one of another run, or every trial failed.
        SettingError: the run file or one of `tries` is wrong.
        InterruptedRun: stopped before a trial had finished.
        StorageError: the folder cannot be written.
    """
    load_optuna()  # before anything is read
    base = config.from_tables(tables)
    parse(base.training.validation_metric, "training.validation_metric")
    with storage(home):
        home.mkdir(parents=True, exist_ok=True)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    limit = trials if trials is not None else DEFAULT_TRIALS if minutes is None else math.inf
    try:
        search = _Search(base, tables, home, tries, deadline)
    except KeyboardInterrupt:
        raise InterruptedRun(f"interrupted before the first trial. {GO_ON}") from None
    try:
        is_interrupted = search.run_until(limit)
    except KeyboardInterrupt:
        is_interrupted = True
    return search.outcome(is_interrupted)


class _TimeIsOverError(Exception):
    """The call must end."""


class _HopelessError(Exception):
    """The trial is worse than most."""


class _Search:
    def __init__(self, base: Run, tables: Mapping[str, Any], home: Path, tries: Sequence[str], deadline: float) -> None:
        self._home, self._deadline = home, deadline
        self._prepared, self._run = _prepared(base, home)
        self._models = models_of(
            tables,
            self._run,
            has_closed_form=has_closed_form(self._prepared),
            has_times=self._prepared.parts["train"].timestamp is not None,
            tries=tries,
        )
        plain = config.plain_tables(self._run)
        deciding = {name: table for name, table in plain.items() if name not in UNTRIED}
        deciding["evaluation"] = {"exclude_seen": self._run.evaluation.exclude_seen}
        deciding["the data"] = version(self._run)
        deciding["the search (--try)"] = description_of(self._models)
        self._study = Study(home, self._models, self._run.seed, deciding)

    def run_until(self, limit: float) -> bool:
        """Run trials until there are `limit`, or the time is over; return whether a signal ended this."""
        while time.monotonic() < self._deadline and (running := self._study.ask(limit)) is not None:
            with running:
                description = f"trial {running.number}" + (f" of {limit}" if limit < math.inf else "")
                try:
                    with progress.one_line(description):
                        self._run_trial(running)
                except InterruptedRun:
                    return True
                except _TimeIsOverError:
                    return False
            self._report(running.number)
        return False

    def outcome(self, is_interrupted: bool) -> Tuning:
        """Return what was found.

        Raises:
            InterruptedRun: no trial has finished yet.
            DataError: no trial could finish.
        """
        found = self._study.trials()
        if not any(trial.state == FINISHED for trial in found):
            failed = [trial for trial in found if trial.reason]
            if failed and not is_interrupted:
                raise DataError(f"all {len(failed)} trials failed. Trial 1: {failed[0].reason}")
            raise InterruptedRun(f"{self._home}: no trial of the study has finished yet. {GO_ON}")
        return Tuning(self._run, self._models, tuple(found), self._home / DATABASE, is_interrupted)

    def _run_trial(self, running: RunningTrial) -> None:
        """Train and judge a trial, and record what came of it."""
        folder = self._home / "trials" / str(running.number)
        try:
            metric = self._metric(running, folder)
        except _HopelessError:
            running.stop_early()
        except (InterruptedRun, StorageError, _TimeIsOverError):
            raise
        except Exception as error:  # whatever it is, other settings may be free of it
            running.fail(str(error) or type(error).__name__)
        else:
            if math.isfinite(metric):
                running.finish(metric)
            else:
                running.fail(describe(self._run.training.validation_metric, metric, "a finite number"))
        shutil.rmtree(folder, ignore_errors=True)

    def _metric(self, running: RunningTrial, folder: Path) -> float:
        tf.keras.backend.clear_session()
        run = replace(config.from_tables(running.model.with_values(running.values)), evaluation=self._run.evaluation)
        data = self._data_of(run)
        validator = Validator(run, held_out(run, data, "validation", run.training.validation_cases))

        def validate(model: TwoTowerModel) -> float:
            if time.monotonic() > self._deadline:
                raise _TimeIsOverError
            return validator(model)

        def watch(looks: Sequence[Validation]) -> None:
            if running.is_hopeless([look.metric for look in looks]):
                raise _HopelessError

        with storage(folder):
            return validator(fit(run, data, folder, validate, watch=watch).model)

    def _data_of(self, run: Run) -> Prepared:
        """Return the data with the features of a run; rows are read once for all trials."""
        wanted = version(run)
        if wanted == version(self._run):
            return self._prepared
        if run.query.entity == "features":
            with file_lock(self._home / ".prepare", wait=True):
                return _without_test(prepare(run, self._home / f"prepared-{wanted[:16]}"))
        return reencoded(run, self._prepared)

    def _report(self, number: int) -> None:
        found = self._study.trials()
        trial = next(trial for trial in found if trial.number == number)
        finished = [each for each in found if each.state == FINISHED]
        outcome = trial.reason or f"{self._run.training.validation_metric} {trial.metric:.4f}"
        best = max(finished, key=lambda each: each.metric, default=None)
        behind = "" if best is None else f"; best {best.metric:.4f} (trial {best.number})"
        progress.inform(f"trial {number}: {trial.model}: {trial.state}, {outcome}{behind}")


def _prepared(base: Run, home: Path) -> tuple[Prepared, Run]:
    """Return the data without their test part, and the run with nothing left to them.

    Raises:
        DataError: there is no validation case.
    """
    with file_lock(home / ".prepare", wait=True):
        prepared = prepare(base, home / "prepared")
    run, decisions = decide(base, prepared)
    for sentence in decisions:
        progress.inform(sentence)
    if not held_out(run, prepared, "validation").cases.reachable.rows.size:
        advice = "Give more data or a larger split.validation_rate or validation_count."
        raise DataError(describe("split", verbatim("no validation case"), "at least one", advice))
    return _without_test(prepared), run


def _without_test(prepared: Prepared) -> Prepared:
    nothing = prepared.parts["test"].take(np.zeros(0, np.int64))
    return replace(prepared, parts={**prepared.parts, "test": nothing})
