"""`recsys data`: look at a run's data before training on it."""

from __future__ import annotations

import typer
from rich.console import Console

from recsys.commands import Overrides, RunFile

app = typer.Typer(help="Look at a run's data before training on it.", no_args_is_help=True)


@app.callback()
def _words() -> None:
    """Look at a run's data before training on it."""


@app.command()
def describe(run_file: RunFile, overrides: Overrides = []) -> None:  # noqa: B006 - typer reads the default
    """Report counts, power law, missing values, duplicates, unknown ids, cardinalities, times, and warn about leaks."""
    from recsys import config
    from recsys.data.describe import describe_data, render

    render(describe_data(config.load(run_file, overrides)), Console())
