"""From a release folder to a serving process, and its orderly end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from recsys.export.release import find
from recsys.files import write_atomically
from recsys.retrieval import Retriever
from serving.endings import check_port_file, stop_on_signals, stop_with_parent
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings


def serve(folder: Path, settings: ServerSettings, *, name: str = "", port_file: Path | None = None) -> None:
    """Serve a release until SIGTERM or SIGINT.

    The port is bound first, health says NOT_SERVING, the release is checked, loaded and warmed with its golden queries;
    then health says SERVING and the port file appears.

    Args:
        folder: a release, or a folder of releases.
        settings: where to listen and what to allow.
        name: a label, release name or fingerprint where the folder holds several.
        port_file: gets the real port as text once the server is ready; removed at the end.

    Raises:
        SettingError: the port is taken.
        MissingError: no such release.
        ReleaseError: the release is damaged, mixed, or does not answer its golden queries.
    """
    stopping = stop_on_signals()
    if settings.port_is_shared:
        stop_with_parent(stopping)
    logger = make_logger(sys.stderr.buffer)
    release_folder = find(folder, name)
    check_port_file(port_file)
    server = Server(settings, logger)
    try:
        started = time.perf_counter()
        retriever = Retriever.load(release_folder)
        retriever.warm()
        server.install(retriever)
        if port_file is not None:
            write_atomically(port_file, f"{server.port}\n")
        logger.info(
            "serving",
            address=server.address,
            release=retriever.release.name,
            fingerprint=retriever.release.fingerprint,
            load_s=round(time.perf_counter() - started, 3),
        )
        stopping.wait()
        logger.info("draining", drain_s=settings.drain_s)
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        server.stop()
    logger.info("stopped")
