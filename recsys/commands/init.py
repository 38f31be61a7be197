"""`recsys init`: data in, run file out."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import program


def command(
    interactions: Annotated[str, typer.Argument(help="Parquet or CSV file or folder: one row an interaction.")] = "",
    items: Annotated[str, typer.Option(help="The same: one row an item.")] = "",
    users: Annotated[str, typer.Option(help="The same: one row a query entity, such as a user.")] = "",
    query_column: Annotated[str, typer.Option(help="The interactions' column with the query entity.")] = "",
    item_column: Annotated[str, typer.Option(help="The interactions' column with the item id.")] = "",
    time_column: Annotated[str, typer.Option(help="The interactions' column with the time.")] = "",
    source: Annotated[str, typer.Option(help="A kind of source instead of files, such as 'wikispeedia'.")] = "",
    overrides: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting of that source.")] = [],  # noqa: B006 - typer reads the default
    out: Annotated[Path, typer.Option(help="Where the run file is written.")] = Path("run.toml"),
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Train a model that reads the order of histories beside one that does not, and write the run file of "
            "the one that is better on validation cases.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Look at your data and write a run file for it, with the reason for each choice in a comment."""
    from recsys import config
    from recsys.init import Named, run_file_for_files, run_file_for_source
    from twintower.errors import SettingError, describe

    if bool(interactions) == bool(source):
        raise SettingError(describe("INTERACTIONS", interactions, "a file or folder, or --source, and not both"))
    if out.exists() and not force:
        raise SettingError(describe("--out", str(out), "a new file", "Name another, or write over it with --force."))
    if not out.parent.is_dir():
        raise SettingError(describe("--out", str(out), "a file in a folder that exists", f"Make {out.parent} first."))
    with TemporaryDirectory() as folder:
        compare_in = Path(folder) if compare else None
        if source:
            text = run_file_for_source(source, config.overridden({}, overrides), source, compare_in)
        else:
            named = Named(interactions, items, users, query_column, item_column, time_column)
            text = run_file_for_files(named, Path(interactions).name.split(".")[0], compare_in)
    out.write_text(text, encoding="utf-8")
    console = Console()
    console.print(f"run file: {out}", soft_wrap=True)
    console.print(f"look at the data: {program()} data describe {out}", soft_wrap=True)
    console.print(f"train: {program()} train {out}", soft_wrap=True)
