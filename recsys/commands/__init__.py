"""One file, one word of `recsys …`: a `command` function, or an `app` with words of its own; `_` begins a part of one.

Heavy imports stand inside the functions, so that `recsys --help` answers at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twintower.errors import SettingError, describe

if TYPE_CHECKING:
    from twintower.client import Client
    from twintower.tls import ClientTls

RunFile = Annotated[Path, typer.Argument(metavar="RUN", help="A run file (TOML), or the name of a shipped one.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting.")]
ReleaseFolder = Annotated[Path, typer.Argument(metavar="RELEASE", help="A release, or a folder of releases.")]
Releases = Annotated[Path, typer.Option("--releases", metavar="FOLDER", help="Where releases are written.")]
Work = Annotated[Path, typer.Option("--work", metavar="FOLDER", help="Where prepared data and checkpoints lie.")]

UseTls = Annotated[bool, typer.Option("--tls", help="Encrypt the connection; the options below do so, too.")]
Ca = Annotated[Path | None, typer.Option(help="PEM file of the authorities that vouch for the server.")]
Certificate = Annotated[Path | None, typer.Option(help="PEM file of your own certificate, where the server asks.")]
Key = Annotated[Path | None, typer.Option(help="PEM file of its private key.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with an API key or a JWT; without it the variable RECSYS_TOKEN counts.")
]


def client_tls(use: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> ClientTls | None:
    """Return how a command's options say that the connection is encrypted; None for not at all."""
    from twintower.tls import ClientTls

    return ClientTls(ca, certificate, key) if use or ca or certificate or key else None


def token_of(file: Path | None) -> str:
    """Return the token in a file, or without one that of the environment; no option has it, because others see those.

    Raises:
        SettingError: the file is missing or empty.
    """
    if file is None:
        return os.environ.get("RECSYS_TOKEN", "").strip()
    token = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
    if not token:
        raise SettingError(describe("--token-file", str(file), "a file with an API key or a JWT"))
    return token


def connected(
    target: str,
    timeout_s: float,
    use_tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    token_file: Path | None,
) -> Client:
    """Return a client of a server as a command's options describe the connection.

    Raises:
        SettingError: a file of these is missing or wrong.
    """
    from twintower.client import Client

    tls = client_tls(use_tls, ca, certificate, key)
    return Client(target, timeout_s=timeout_s, tls=tls, token=token_of(token_file))


def program() -> str:
    """Return how the reader can call this program again: `recsys`, or its path where that is not on the search path."""
    return "recsys" if shutil.which("recsys") else sys.argv[0]
