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
    require_signature: Annotated[
        list[Path], typer.Option(metavar="KEY", help="A public key that must have signed each release; repeatable.")
    ] = [],  # noqa: B006
    settings_file: Annotated[Path | None, typer.Option("--settings", help="A TOML file of server settings.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Serve a release until SIGTERM or SIGINT; ready once its golden queries are answered as written."""
    from serving.settings import load

    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    if require_signature:
        given["signature"] = {"keys": require_signature}
    settings = load(settings_file, overrides, given)
    if settings.processes > 1:
        from serving.supervisor import supervise as serve
    else:
        from serving.bootstrap import serve
    serve(folder, settings, name=name, port_file=port_file)
