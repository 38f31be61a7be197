"""Show what an ablation found: tables for a person, plain values for JSON, plots."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recsys import plots
from recsys.ablation.cells import Case
from recsys.ablation.rows import BASELINE
from recsys.ablation.tables import DECILES, SLICES, Ablation, Measured, Trial
from recsys.errors import InstallationError
from recsys.evaluation.slices import ALL
from recsys.files import write_atomically

WEIGHT = "self_supervision.objective.weight"
CAPTION = (
    "below each mean over seeds and cases: its relative gain over the baseline, with the paired 95 % interval "
    "(bootstrap over seeds and cases); * significant at 5 % after Holm's correction for all rows, metrics and slices; "
    "(reference): one of evaluation.baselines, never starred"
)


def titled(case: Case) -> str:
    """Return a case in words."""
    share = f"{100 * case.training_rate:g}% of the training data"
    if not case.logq:
        return share
    correction = "plain softmax" if case.logq == "none" else f"logQ from {case.logq}"
    return f"{share}, {correction}"


def render(ablation: Ablation, console: Console) -> None:
    """Print one table a case and slice, the settings that were chosen, and what follows for this data."""
    for case in ablation.cases:
        for slice in SLICES:
            found = [ablation.find(case, slice, name, ablation.metrics[0]) for name in ablation.subjects]
            if found[0] is None:
                console.print(f"{titled(case)}; slice {slice}: no test case.", soft_wrap=True)
                continue
            title = f"{ablation.name}: {titled(case)}; slice {slice}, {found[0].cases:,} cases, {found[0].seeds} seeds"
            table = Table(title=title, caption=CAPTION, title_justify="left", caption_justify="left")
            table.add_column("row", no_wrap=True)
            for metric in ablation.metrics:
                table.add_column(metric, justify="right")
            for name in ablation.subjects:
                cells = [_cell(ablation.find(case, slice, name, metric)) for metric in ablation.metrics]
                table.add_row(name, *cells, end_section=True)
            console.print(table)
    for case, by_row in ablation.chosen.items():
        chosen = Table(title=f"{titled(case)}: settings chosen on validation cases", title_justify="left")
        chosen.add_column("row", no_wrap=True)
        chosen.add_column("tried", justify="right", no_wrap=True)
        chosen.add_column("settings", overflow="fold")
        for name, settings in by_row.items():
            shown = "\n".join(f"{path} = {value}" for path, value in settings.items())
            tried = ablation.tried(case, name)
            chosen.add_row(name, str(tried), shown or "as in the run file")
        console.print(chosen)
    for sentence in verdicts(ablation):
        console.print(sentence, soft_wrap=True, markup=False)
    if ablation.notice:
        console.print(ablation.notice, soft_wrap=True)


def verdicts(ablation: Ablation) -> Iterator[str]:
    """Yield sentences: each variant over its row, which row gains most over the baseline, what else must be said."""
    variants = dict.fromkeys((entry.subject, entry.over) for entry in ablation.measured if entry.over != BASELINE)
    for case, metric, (name, like) in itertools.product(ablation.cases, ablation.metrics, variants):
        entry = ablation.find(case, ALL, name, metric, like)
        yield f"{titled(case)}, {metric}: {name} over {like}, which it starts from: {gain(entry)}."
    for case in ablation.cases:
        for metric in ablation.metrics:
            rows = [ablation.find(case, ALL, name, metric) for name in ablation.rivals]
            rows = [row for row in rows if row is not None and row.gain_low == row.gain_low]
            if not rows:
                continue
            best = max(rows, key=lambda row: (row.has_star and row.gain_rate > 0, row.gain_low))
            helps = best.has_star and best.gain_rate > 0
            word = "the most confident gain is" if helps else "no row gains significantly; the nearest is"
            yield f"{titled(case)}, {metric}: {word} {best.subject} with {gain(best)}."
    yield from ablation.remarks


def to_dict(ablation: Ablation) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "name": ablation.name,
        "notice": ablation.notice,
        "seconds": dict(ablation.seconds),
        "remarks": list(ablation.remarks),
        "references": list(ablation.references),
        "chosen": [
            {**asdict(case), "subject": name, "settings": dict(settings)}
            for case, by_row in ablation.chosen.items()
            for name, settings in by_row.items()
        ],
        "trials": [
            {**asdict(trial.case), "subject": trial.subject, "settings": dict(trial.chosen), **trial.values}
            for trial in ablation.trials
        ],
        "measured": [{**asdict(entry.case), **_flat(entry)} for entry in ablation.measured],
    }


def save(ablation: Ablation, folder: Path) -> list[Path]:
    """Write `ablation.json` and, where matplotlib is installed, the plots; return the files."""
    written = [folder / "ablation.json"]
    write_atomically(written[0], json.dumps(to_dict(ablation), indent=1) + "\n")
    with contextlib.suppress(InstallationError):
        written += plot(ablation, folder, "ablation")
    return written


def plot(ablation: Ablation, folder: Path, name: str) -> list[Path]:
    """Draw metric against weight, metric against dropout, and gain by popularity; return the PNG files.

    Args:
        ablation: what was found.
        folder: existing.
        name: begins the files' names.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    drawn = []
    for part, draw in (("weight", _draw_weight), ("dropout", _draw_dropout), ("popularity", _draw_popularity)):
        figure = draw(ablation)
        if figure is not None:
            drawn.append(folder / f"{name}-{part}.png")
            figure.savefig(drawn[-1], dpi=110)
    return drawn


def _draw_weight(ablation: Ablation) -> Any:
    """Each row's best validation metric at each weight of the second task, beside the baseline's."""
    return _draw_trials(ablation, lambda trial: trial.chosen.get(WEIGHT), "weight of the second task", "log")


def _draw_dropout(ablation: Ablation) -> Any:
    """Each row's best validation metric at each dropout rate."""

    def rate(trial: Trial) -> float | None:
        return next((value for path, value in trial.chosen.items() if path.endswith(".rate")), None)

    return _draw_trials(ablation, rate, "dropout rate", "linear")


def _draw_trials(ablation: Ablation, setting: Any, label: str, scale: str) -> Any:
    if all(setting(trial) is None for trial in ablation.trials):
        return None
    cases, metrics = ablation.cases, (ablation.metrics[0], ablation.metrics[-1])
    figure, axes = _axes(len(metrics), len(cases))
    for row, metric in enumerate(metrics):
        for column, case in enumerate(cases):
            axis = axes[row][column]
            trials = [trial for trial in ablation.trials if trial.case == case]
            for name in ablation.subjects:
                best: dict[float, float] = {}
                for trial in trials:
                    if trial.subject == name and setting(trial) is not None:
                        at = setting(trial)
                        best[at] = max(best.get(at, 0.0), trial.values[metric])
                if best:
                    axis.plot(sorted(best), [best[at] for at in sorted(best)], marker="o", markersize=3, label=name)
            tuned = max(trial.values[metric] for trial in trials if trial.subject == BASELINE)
            axis.axhline(tuned, color="black", linestyle="--", linewidth=1, label=BASELINE)
            axis.set(xscale=scale, xlabel=label, ylabel=f"{metric}, validation", title=titled(case))
    axes[0][0].legend(fontsize="x-small")
    return figure


def _draw_popularity(ablation: Ablation) -> Any:
    """Each row's relative gain in the last metric, by tenth of the catalog."""
    metric = ablation.metrics[-1]
    figure, axes = _axes(1, len(ablation.cases))
    for axis, case in zip(axes[0], ablation.cases, strict=True):
        for name in ablation.subjects:
            found = [ablation.find(case, slice, name, metric) for slice in DECILES]
            gains = [100 * entry.gain_rate if entry is not None else float("nan") for entry in found]
            if name != BASELINE:
                axis.plot(range(1, len(gains) + 1), gains, marker="o", markersize=3, label=name)
        axis.axhline(0, color="black", linestyle="--", linewidth=1)
        axis.set(xlabel="tenth of the catalogue, most popular first", ylabel=f"gain in {metric}, %", title=titled(case))
    axes[0][0].legend(fontsize="x-small")
    return figure


def _axes(rows: int, columns: int) -> tuple[Any, Any]:
    drawing = plots.figure(4.5 * columns, 3.5 * rows)
    return drawing, drawing.subplots(rows, columns, squeeze=False)


def _cell(entry: Measured | None) -> str:
    if entry is None:
        return ""
    return f"{entry.value:.4f}" if entry.subject == BASELINE else f"{entry.value:.4f}\n{gain(entry)}"


def gain(entry: Measured) -> str:
    """Return a relative gain with its interval in words, with its star."""
    if entry.gain_rate != entry.gain_rate:
        return f"the {entry.over} finds nothing"
    star = " *" if entry.has_star else ""
    return f"{entry.gain_rate:+.1%} [{_bound(entry.gain_low)}, {_bound(entry.gain_high)}]{star}"


def _bound(rate: float) -> str:
    return "no bound" if rate != rate else f"{rate:+.1%}"


def _flat(entry: Measured) -> dict[str, Any]:
    plain = asdict(entry)
    plain.pop("case")
    return {name: None if value != value else value for name, value in plain.items()}
