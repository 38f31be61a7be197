"""`recsys ablate`: does the second task help on this data, and which part of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, RunFile, Work

QUICK = (
    "training.epochs=1",
    "ablation.seeds=[1, 2]",
    "ablation.trials=1",
    "ablation.baseline_trials=1",
    "ablation.resamples=200",
    "evaluation.max_cases=500",
)
"""A rehearsal: every step of the real thing, too little of each to conclude anything."""


def command(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Worker processes; 0 means one for each core.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
) -> None:
    """Compare rows with and without a second task on your data: tuned, several seeds, paired intervals. Resumes."""
    from recsys import config
    from recsys.ablation import show
    from recsys.ablation.ablate import ablate

    run = config.load(run_file, [*QUICK, *overrides] if quick else overrides)
    if quick:  # a search of the epochs would have its own way
        search = {path: values for path, values in run.ablation.baseline_search.items() if path != "training.epochs"}
        run = dataclasses.replace(run, ablation=dataclasses.replace(run.ablation, baseline_search=search))
    home = work / run.name / ("ablation-quick" if quick else "ablation")
    found = ablate(run, home, jobs)
    console = Console()
    show.render(found, console)
    for path in show.save(found, home):
        console.print(f"written: {path}", soft_wrap=True)
    console.print(f"watch the losses: tensorboard --logdir {home / 'cells'}", soft_wrap=True)
