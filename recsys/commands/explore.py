"""`recsys explore`: look at a release on a page of this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Ca, Certificate, Key, ReleaseFolder, TokenFile, UseTls, client_tls, token_of


def command(
    folder: ReleaseFolder,
    name: Annotated[str, typer.Option("--release", help="Label, name or fingerprint, in a folder of several.")] = "",
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="Ask this one; default: one of its own.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the page; 0 takes a free one.")] = 8080,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    tls: UseTls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Open a page where you pick a user or an item, like and dislike what is found, and watch the list change."""
    from recsys.export.release import find, open_release
    from serving.explore.run import explore

    console = Console()
    release = open_release(find(folder, name), verify=False)
    explore(
        release,
        server=server,
        tls=client_tls(tls, ca, certificate, key),
        token=token_of(token_file),
        port=port,
        browser=browser,
        say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
    )
