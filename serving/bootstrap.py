"""From a release folder to a serving process, and its orderly end."""

from __future__ import annotations

import gc
import sys
import time
from io import FileIO
from pathlib import Path

from threadpoolctl import threadpool_limits

from recsys.files import write_atomically
from serving.endings import Parent, check_port_file, stop_on_signals
from serving.logs import BackgroundFile, make_logger
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Releases
from serving.server import Server
from serving.settings import ServerSettings

SWITCH_S = 0.0005
"""How long one thread keeps the interpreter while others wait for it. With Python's own 5 ms a short call beside four
long ones takes two to three times as long."""
LAST_LINES_S = 2.0
"""Time that the last log lines get to be read."""


def serve(
    folder: Path,
    settings: ServerSettings,
    *,
    name: str = "",
    port_file: Path | None = None,
    parent: Parent | None = None,
) -> None:
    """Serve the releases of a folder until SIGTERM or SIGINT.

    The port is bound first, health says NOT_SERVING, the release is checked, loaded and warmed with its golden queries;
    then health says SERVING and the port file appears. From then on the folder is watched (see `ReleaseFolder`).
    A shared port is bound last, when the server is ready: the kernel gives every listener a share of the connections.

    Args:
        folder: a release, or a folder of releases.
        settings: where to listen and what to allow.
        name: a label, release name or fingerprint that is served in place of `stable`.
        port_file: gets the real port as text once the server is ready; removed at the end.
        parent: the supervisor of this process; None where there is none.

    Raises:
        SettingError: the port is taken, or the experiment file is broken or cannot be served.
        MissingError: no such release.
        ReleaseError: the release is damaged, mixed, or does not answer its golden queries.
    """
    sys.setswitchinterval(SWITCH_S)
    # Calls are many: threads of one product of matrices would wait for each other on cores that others need.
    threadpool_limits(1, "blas")
    stopping = stop_on_signals()
    # Its own descriptor, without the buffer that everything else in the process shares and could block on.
    log = BackgroundFile(FileIO(sys.stderr.fileno(), "w", closefd=False), settings.telemetry.max_log_lines)
    logger = make_logger(log)
    release_folder = ReleaseFolder(folder, Releases(), settings, logger, name=name)
    release_folder.said()
    check_port_file(port_file)
    server = Server(settings, logger, release_folder)
    server.observation.watch(log_drops=lambda: log.dropped)
    try:
        if not settings.port_is_shared:
            server.listen()
        started = time.perf_counter()
        release_folder.load()
        server.experiments.load()
        load_s = time.perf_counter() - started
        # What is there now stays: 370,000 objects, of which a release adds a hundred. To look through them for garbage,
        # as Python did every ten thousand calls, stops all calls for a quarter of a second.
        gc.collect()
        gc.freeze()
        if parent is not None:
            parent.stop_with_it(stopping)
        server.ready()
        if settings.port_is_shared:
            server.listen()
        if port_file is not None:
            write_atomically(port_file, f"{server.port}\n")
        release = server.releases.retriever().release
        logger.info(
            "serving",
            address=server.address,
            release=release.name,
            fingerprint=release.fingerprint,
            load_s=round(load_s, 3),
            **({"metrics": server.observation.metrics_address} if server.observation.metrics_address else {}),
        )
        release_folder.start()
        server.experiments.start()
        stopping.wait()
        logger.info("draining", drain_s=settings.drain_s)
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        release_folder.stop()
        server.stop()
        logger.info("stopped")
        log.close(LAST_LINES_S)
        if parent is not None:
            parent.clean_up()
