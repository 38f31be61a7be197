"""`recsys serve`: answer queries over gRPC from a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.commands import ReleaseFolder


def command(
    folder: ReleaseFolder,
    name: Annotated[str, typer.Option("--release", help="Label, name or fingerprint, in a folder of several.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 50051,
    port_file: Annotated[Path | None, typer.Option(help="Gets the real port once the server is ready.")] = None,
    worker_threads: Annotated[int, typer.Option(help="Calls worked on at the same time.")] = 4,
    drain_s: Annotated[float, typer.Option(help="Seconds that running calls get after SIGTERM.")] = 10.0,
    max_k: Annotated[int, typer.Option(help="Most items for each query.")] = 1000,
    max_batch: Annotated[int, typer.Option(help="Most queries in one batch.")] = 1024,
) -> None:
    """Serve a release until SIGTERM or SIGINT; ready once its golden queries are answered as written."""
    from recsys.registry import parse
    from serving.bootstrap import serve
    from serving.settings import ServerSettings

    limits = {"worker_threads": worker_threads, "drain_s": drain_s, "max_k": max_k, "max_batch": max_batch}
    settings = parse(ServerSettings, {"host": host, "port": port, **limits}, "server")
    serve(folder, settings, name=name, port_file=port_file)
