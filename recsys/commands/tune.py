"""`recsys tune`: run file in, better run file out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, RunFile, Work, program


def command(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of the study, earlier ones included. Default: 30.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Time after which this command ends.")] = None,
    tries: Annotated[
        list[str],
        typer.Option(
            "--try", metavar="PATH=VALUES", help="Other values for a setting: [64, 96], or {low = 0.1, high = 0.5}."
        ),
    ] = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
    restart: Annotated[bool, typer.Option("--restart", help="Throw away the study of an earlier call.")] = False,
) -> None:
    """Search the settings that are best on validation cases; write a run file. Resumes; processes can share a study."""
    from recsys import config

    tables = config.overridden(config.tables_of(run_file), overrides)
    home = work / config.from_tables(tables).name / "tuning"
    from recsys.tuning import show  # brings TensorFlow: a mistake in the run file is reported before
    from recsys.tuning.tune import tune

    if restart:
        shutil.rmtree(home, ignore_errors=True)
    found = tune(tables, home, trials=trials, minutes=minutes, tries=tries)
    console = Console()
    show.render(found, console)
    for path in show.save(found, home):
        console.print(f"written: {path}", soft_wrap=True)
    console.print(f"train it: {program()} train {home / 'tuned.toml'}", soft_wrap=True)
    if found.is_interrupted:
        raise typer.Exit(130)
