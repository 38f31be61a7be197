"""The command line: one module of `recsys.commands` is one word of `recsys …`."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from recsys import commands
from recsys.errors import InstallationError, InterruptedRun, install_line
from twintower.errors import TwintowerError, describe, verbatim

EXTRAS = {
    "auth": "serve",
    "demo": "demo",
    "experiment": "experiment",
    "explore": "web",
    "release": "serve",
    "serve": "serve",
    "top": "serve",
    "tune": "tune",
}
"""The extra that has what a command needs; `train` has it for all others."""


class Words(TyperGroup):
    """The commands; a missing package is reported with the extra that has it."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run a command.

        Raises:
            InstallationError: it needs a package that is not installed.
        """
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            needs = f"`recsys {ctx.invoked_subcommand}` needs the package {error.name!r}, which is not installed"
            run = install_line(EXTRAS.get(ctx.invoked_subcommand or "", "train"))
            raise InstallationError(f"{needs}. Run: {run}") from error


app = typer.Typer(
    name="recsys",
    cls=Words,
    help="Two-tower recommendation: train, release, index, serve, experiment.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)

for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda found: found.name):
    if module.name.startswith("_"):  # a part of a word
        continue
    word = importlib.import_module(f"recsys.commands.{module.name}")
    if hasattr(word, "app"):
        app.add_typer(word.app, name=module.name)
    else:
        app.command(module.name)(word.command)


def main() -> None:
    """Run the command line.

    SIGTERM is an interruption, too, so that half-written files are removed; training and serving take it their own way.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with one_message():
        app()


@contextmanager
def one_message() -> Iterator[None]:
    """Let a deliberate error within the block be one message and exit code 2, an interruption 130.

    So is an error of the operating system: a place that cannot be made, read or written is the caller's to change.
    """
    try:
        yield
    except InterruptedRun as error:
        Console(stderr=True).print(str(error), style="yellow", markup=False, soft_wrap=True)
        sys.exit(130)
    except (TwintowerError, OSError) as error:
        Console(stderr=True).print(f"error: {_told(error)}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)


def _told(error: TwintowerError | OSError) -> str:
    if isinstance(error, TwintowerError) or error.filename is None:
        return str(error)
    rule = "a place that can be made, read and written"
    return describe(str(error.filename), verbatim(str(error.strerror)), rule, "Name another, or mend this one.")


if __name__ == "__main__":
    main()
