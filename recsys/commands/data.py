"""`recsys data`: look at a run's data before training on it."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from itertools import compress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from recsys.commands import Overrides, RunFile, Work

app = typer.Typer(help="Look at a run's data before training on it.", no_args_is_help=True)


class WeightedBy(StrEnum):
    """What an item counts for."""

    items = "items"
    interactions = "interactions"


@app.callback()
def _words() -> None:
    """Look at a run's data before training on it."""


@app.command()
def describe(run_file: RunFile, overrides: Overrides = []) -> None:  # noqa: B006 - typer reads the default
    """Report counts, power law, missing values, duplicates, unknown ids, cardinalities, times, and warn about leaks.

    Makes every check that training makes of the data; exit code 2 means that training would stop.
    """
    from recsys import config
    from recsys.data.describe import describe_data, render

    report = describe_data(config.load(run_file, overrides))
    render(report, Console())
    if report.problems:
        raise typer.Exit(2)


@app.command()
def dependence(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
    weighted_by: Annotated[
        WeightedBy, typer.Option("--weighted-by", help="Count each item once, or as often as it is met in training.")
    ] = WeightedBy.items,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the heat maps into a PNG file, too.")
    ] = None,
) -> None:
    """Show how much the item features tell about each other (mutual information), as heat maps."""
    from recsys import config
    from recsys.augmentations.correlated_mask import CorrelatedMask
    from recsys.data.dependence import measure_dependence, plot, render
    from recsys.data.encoders import ids_of
    from recsys.data.prepare import prepare
    from recsys.files import exclusive, storage
    from recsys.views import Fields

    run = config.load(run_file, overrides)
    home = work / run.name
    with storage(home):
        home.mkdir(parents=True, exist_ok=True)
    with exclusive(home):
        prepared = prepare(run, home / "prepared")
        encoders = {name: prepared.item_encoders[name] for name in run.item.features}
        by_items = weighted_by is WeightedBy.items
        found = measure_dependence(encoders, prepared.item_codes, None if by_items else prepared.item_counts)
    console = Console()
    counting = "each counted once" if by_items else "each counted as often as it is met in training"
    console.print(f"[bold]{escape(run.name)}[/bold]: item features over {prepared.item_count:,} items, {counting}")
    if prepared.notice:
        console.print(escape(prepared.notice))
    ids = ids_of(encoders)
    render(found, console, ids)
    if len(encoders) - len(ids) >= 2:
        fields = Fields(tuple(encoders), ids, frozenset(), lambda measure, _: getattr(found, measure))
        patterns = Counter(tuple(compress(fields.names, masked)) for masked in CorrelatedMask().patterns(fields))
        for hidden, seeds in patterns.items():
            others = [name for name in fields.content if name not in hidden]
            sides = f"correlated_mask hides {', '.join(hidden)} in one view, {', '.join(others)} in the other"
            told = f"{sides}: {seeds} of {patterns.total()} draws."
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    if plot_file is not None:
        plot(found, plot_file)
        console.print(f"plot: {plot_file}", markup=False, soft_wrap=True)
