"""`recsys serve`: answer queries over gRPC from a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.commands import Overrides, ReleaseFolder


def command(
    folder: ReleaseFolder,
    name: Annotated[str, typer.Option("--release", help="Label, name or fingerprint, in a folder of several.")] = "",
    host: Annotated[str | None, typer.Option(help="Address to listen on; the default is this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one; the default is 50051.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Gets the real port once the server is ready.")] = None,
    settings_file: Annotated[Path | None, typer.Option("--settings", help="A TOML file of server settings.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Serve a release until SIGTERM or SIGINT; ready once its golden queries are answered as written."""
    from serving import settings
    from serving.bootstrap import serve

    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    serve(folder, settings.load(settings_file, overrides, given), name=name, port_file=port_file)
