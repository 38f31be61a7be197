"""From a release folder to a serving process, and its orderly end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from recsys.errors import SettingError, describe
from recsys.files import write_atomically
from serving.logs import make_logger
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Releases
from serving.server import Server
from serving.settings import ServerSettings


def serve(folder: Path, settings: ServerSettings, *, name: str = "", port_file: Path | None = None) -> None:
    """Serve the releases of a folder until SIGTERM or SIGINT.

    The port is bound first, health says NOT_SERVING, the release is checked, loaded and warmed with its golden queries;
    then health says SERVING and the port file appears. From then on the folder is watched (see `ReleaseFolder`).

    Args:
        folder: a release, or a folder of releases.
        settings: where to listen and what to allow.
        name: a label, release name or fingerprint that is served in place of `stable`.
        port_file: gets the real port as text once the server is ready; removed at the end.

    Raises:
        SettingError: the port is taken.
        MissingError: no such release.
        ReleaseError: the release is damaged, mixed, or does not answer its golden queries.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    logger = make_logger(sys.stderr.buffer)
    release_folder = ReleaseFolder(folder, Releases(), settings, logger, name=name)
    release_folder.said()
    if port_file is not None and not port_file.parent.is_dir():
        raise SettingError(describe("--port-file", str(port_file), "a file in an existing folder"))
    server = Server(settings, logger, release_folder)
    if port_file is not None:
        # One left by a server that was killed would name a port where nobody answers.
        port_file.unlink(missing_ok=True)
    try:
        started = time.perf_counter()
        release_folder.load()
        server.ready()
        if port_file is not None:
            write_atomically(port_file, f"{server.port}\n")
        release = server.releases.retriever().release
        logger.info(
            "serving",
            address=server.address,
            release=release.name,
            fingerprint=release.fingerprint,
            load_s=round(time.perf_counter() - started, 3),
        )
        release_folder.start()
        stopping.wait()
        logger.info("draining", drain_s=settings.drain_s)
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        release_folder.stop()
        server.stop()
    logger.info("stopped")
