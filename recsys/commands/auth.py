"""`recsys auth`: API keys for those who may call a server."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Make API keys for those who may call a server.", no_args_is_help=True)


@app.command("new-key")
def new_key(
    name: Annotated[str, typer.Argument(help="The caller's name: letters, digits, '_' and '-'.")],
    role: Annotated[
        Literal["read", "write", "operate"], typer.Option(help="What the caller may do; each includes those before.")
    ] = "read",
) -> None:
    """Make an API key, shown once on standard error and stored nowhere; standard out gets the lines for the auth file.

    So `recsys auth new-key shop >> auth.toml` adds a caller, and the key stays on your screen.
    """
    from serving.trust import callers
    from twintower.errors import SettingError, describe

    if not callers.NAME.fullmatch(name):
        raise SettingError(describe("NAME", name, "at most 64 letters, digits, '_' and '-'"))
    key = callers.new_key()
    print(f"API key of {name}, shown this once:\n\n{key}\n", file=sys.stderr)
    print(f'[callers.{name}]\nrole = "{role}"\nkeys_sha256 = ["{callers.digest_of(key)}"]')
