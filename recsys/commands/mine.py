"""`recsys mine`: write the first results of many queries, which a reformulator or another training learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, ReleaseFolder, Work


def command(
    folder: ReleaseFolder,
    run_file: Annotated[Path | None, typer.Argument(metavar="RUN", help="Default: the release's own run file.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file; default: <work>/<run>/mined-<part>.arrow.")] = None,
    part: Annotated[
        str, typer.Option(help="validation, for reformulators, test, to judge them, or train, for hard negatives.")
    ] = "validation",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="First results of each query.")] = 20,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
) -> None:
    """Write the first results of a part's queries and what would have been right; an interrupted call goes on."""
    from recsys import config
    from recsys.export.release import find, open_release
    from recsys.reformulation import mine
    from twintower.errors import SettingError, describe

    if part not in ("validation", "test", "train"):
        raise SettingError(describe("--part", part, "validation, test or train"))
    release = open_release(find(folder))
    run = config.load(run_file or release.folder / "run.toml", overrides)
    path = out or work / run.name / f"mined-{part}.arrow"
    mined = mine(release, run, part=part, k=k, out=path, work=work)
    console = Console()
    console.print(f"{len(mined):,} queries, {mined.relevant.sizes.mean():.1f} relevant items each", soft_wrap=True)
    console.print(f"written: {path}", soft_wrap=True)
