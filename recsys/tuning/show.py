"""Show what a study found: a table for a person, plain values for JSON, a plot, and the run file of the best trial."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

from recsys import plots
from recsys.errors import InstallationError
from recsys.files import write_atomically
from recsys.pipeline import changed_settings
from recsys.tuning.study import FAILED, FINISHED, STOPPED_EARLY, Trial
from recsys.tuning.tune import Tuning

SHOWN = 10
"""Rows of the table: the best trials."""


def render(tuning: Tuning, console: Console) -> None:
    """Print the best trials, how many there were, and what the best one gained."""
    finished = sorted(_with_state(tuning, FINISHED), key=lambda trial: -trial.metric)
    table = Table(title=f"{tuning.run.name}: best trials", title_justify="left")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column(f"{tuning.metric}, validation", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("objective")
    table.add_column("settings", overflow="fold")
    for trial in finished[:SHOWN]:
        settings = "\n".join(f"{path} = {_toml(value)}" for path, value in trial.values.items())
        table.add_row(
            str(trial.number), f"{trial.metric:.4f}", f"{trial.seconds:.0f}", trial.model, settings or "as it is"
        )
    console.print(table, markup=False)
    for sentence in verdict(tuning):
        console.print(sentence, soft_wrap=True, markup=False)


def verdict(tuning: Tuning) -> list[str]:
    """Return sentences: how many trials there were, why some failed, and what the best one gained."""
    stopped, failed = len(_with_state(tuning, STOPPED_EARLY)), _with_state(tuning, FAILED)
    ended = "The search was interrupted." if tuning.is_interrupted else "The search ended."
    counts = f"{len(tuning.trials)}, of which {stopped} were stopped early and {len(failed)} failed"
    sentences = [f"{ended} Trials that ended: {counts}."]
    sentences += [f"Trial {trial.number} ({trial.model}) failed: {trial.reason}" for trial in failed]
    return [*sentences, _gain(tuning)]


def save(tuning: Tuning, folder: Path) -> list[Path]:
    """Write `tuned.toml`, `tuning.json` and, where matplotlib is installed, `tuning.png`; return the files."""
    written = [folder / "tuned.toml", folder / "tuning.json"]
    write_atomically(written[0], run_file(tuning))
    write_atomically(written[1], json.dumps(to_dict(tuning), indent=1) + "\n")
    with contextlib.suppress(InstallationError):
        written.append(plot(tuning, folder / "tuning.png"))
    return written


def run_file(tuning: Tuning) -> str:
    """Return the run file of the best trial, with what was found in a comment."""
    best, tables = tuning.best, tuning.tables_of(tuning.best)
    before = dict(next(iter(tuning.models.values())).tables)
    tables["name"] = f"{tuning.run.name}-tuned"
    changed = changed_settings({**before, "name": tables["name"]}, tables)
    lines = [
        f"Found by `recsys tune`: trial {best.number} of {len(tuning.trials)} of the study {tuning.database}.",
        _gain(tuning),
        "Training follows the training part and the validation cases alone: test cases were not looked at.",
        f"Changed: {', '.join(changed) or 'nothing'}.",
    ]
    return "".join(f"# {line}\n" for line in lines) + "\n" + tomli_w.dumps(tables)


def to_dict(tuning: Tuning) -> dict[str, Any]:
    """Return all trials as plain values."""
    trials = [asdict(trial) for trial in tuning.trials]
    for trial in trials:
        if trial["metric"] != trial["metric"]:
            trial["metric"] = None
    return {"name": tuning.run.name, "metric": tuning.metric, "best": tuning.best.number, "trials": trials}


def plot(tuning: Tuning, path: Path) -> Path:
    """Draw the metric of every trial, by objective, and the best one so far; return the PNG file.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    figure = plots.figure(8, 4.5)
    axis = figure.subplots()
    for name in tuning.models:
        for state, marker in ((FINISHED, "o"), (STOPPED_EARLY, "x")):
            trials = [trial for trial in _with_state(tuning, state) if trial.model == name]
            if trials:
                label = name if state == FINISHED else f"{name}, {state}"
                numbers, metrics = [trial.number for trial in trials], [trial.metric for trial in trials]
                axis.scatter(numbers, metrics, marker=marker, label=label)
    finished = _with_state(tuning, FINISHED)
    highest = [max(each.metric for each in finished[: count + 1]) for count in range(len(finished))]
    axis.step([trial.number for trial in finished], highest, where="post", color="black", linewidth=1, label="best")
    axis.set(xlabel="trial", ylabel=f"{tuning.metric}, validation", title=tuning.run.name)
    axis.legend(fontsize="x-small", loc="lower right")
    figure.savefig(path, dpi=110)
    return path


def _gain(tuning: Tuning) -> str:
    best, as_is = tuning.best, tuning.as_is
    found = f"{tuning.metric} on validation cases: {best.metric:.4f}"
    if as_is is None:
        return f"{found}; the run file as it was failed."
    if best is as_is:
        return f"{found}, of the run file as it was: no other settings are better."
    return f"{found}; the run file as it was: {as_is.metric:.4f}."


def _with_state(tuning: Tuning, state: str) -> list[Trial]:
    return [trial for trial in tuning.trials if trial.state == state]


def _toml(value: Any) -> str:
    return tomli_w.dumps({"value": value}).strip().removeprefix("value = ")
