"""`recsys index`: settle an index for a target recall and certify it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, ReleaseFolder

app = typer.Typer(help="Settle an index for a target recall and certify it.", no_args_is_help=True)


@app.callback()
def _words() -> None:
    """Settle an index for a target recall and certify it."""


@app.command()
def tune(
    folder: ReleaseFolder,
    target_recall: Annotated[float | None, typer.Option(min=0, max=1, help="Recall@k to certify.")] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Places of that recall.")] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
) -> None:
    """Tune the index of a release on its own query vectors; publishes a new release that shares all other parts."""
    from recsys.commands.release import show_release
    from recsys.export.release import find, open_release
    from recsys.pipeline import tune_release

    asked = [f"index.target_recall={target_recall}"] if target_recall is not None else []
    asked += [f"index.target_k={k}"] if k is not None else []
    tuned, _ = tune_release(open_release(find(folder)), [*asked, *overrides])
    console = Console()
    show_release(tuned, console)
    console.print(f"release: {tuned.folder}", soft_wrap=True)
