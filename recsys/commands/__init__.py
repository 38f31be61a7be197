"""One file, one word of `recsys …`: a `command` function, or an `app` with words of its own.

Heavy imports stand inside the functions, so that `recsys --help` answers at once.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

RunFile = Annotated[Path, typer.Argument(metavar="RUN", help="A run file (TOML), or the name of a shipped one.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting.")]
ReleaseFolder = Annotated[Path, typer.Argument(metavar="RELEASE", help="A release, or a folder of releases.")]
Releases = Annotated[Path, typer.Option("--releases", metavar="FOLDER", help="Where releases are written.")]
Work = Annotated[Path, typer.Option("--work", metavar="FOLDER", help="Where prepared data and checkpoints lie.")]


def program() -> str:
    """Return how the reader can call this program again: `recsys`, or its path where that is not on the search path."""
    return "recsys" if shutil.which("recsys") else sys.argv[0]
