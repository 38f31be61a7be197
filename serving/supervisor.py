"""Several worker processes behind one port: started together, replaced when one dies, drained together."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from recsys.files import write_atomically
from recsys.registry import plain
from serving.endings import check_port_file, ended, stop_on_signals
from serving.logs import make_logger
from serving.runtime.release_folder import labelled
from serving.settings import ServerSettings, address, address_taken
from twintower.errors import TwintowerError

POLL_S = 0.1
STABLE_S = 60.0
"""A worker that has lived so long is replaced at once when it dies."""
LONGEST_PAUSE_S = 10.0
KILL_AFTER_S = 10.0
"""Seconds beyond `drain_s` after which a worker that does not stop is killed."""


@dataclass
class _Worker:
    """One place in the group.

    Attributes:
        number: of the place, from 0.
        port_file: where its process says that it is ready.
        process: that runs at the moment.
        started: when, in `time.monotonic` seconds.
        deaths: in a row, without a stable life in between.
        due: when the next process may start.
    """

    number: int
    port_file: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = field(default=0.0)


def supervise(folder: Path, settings: ServerSettings, *, name: str = "", port_file: Path | None = None) -> None:
    """Serve a release with several processes until SIGTERM or SIGINT.

    Args:
        folder: a release, or a folder of releases.
        settings: of each server; `processes` says how many.
        name: a label, release name or fingerprint where the folder holds several.
        port_file: gets the real port as text once every process serves; removed at the end.

    Raises:
        SettingError: the port is taken.
        MissingError: no such release.
        TwintowerError: a process could not start.
    """
    stopping = stop_on_signals()
    labelled(folder, settings.releases.labels, name)
    check_port_file(port_file)
    group = Supervisor(folder, settings, name, make_logger(sys.stderr.buffer))
    try:
        group.run(stopping, port_file)
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        group.stop()


class Supervisor:
    """Keeps `settings.processes` servers running on one port, which the kernel shares out among them by connection.

    Each worker is a whole server that maps the same release files. This process loads no release and answers no call.

    Args:
        folder: a release, or a folder of releases.
        settings: of each server.
        name: a label, release name or fingerprint where the folder holds several.
        logger: a structlog logger.

    Raises:
        SettingError: the address is taken, or not one of this machine.
    """

    def __init__(self, folder: Path, settings: ServerSettings, name: str, logger: Any) -> None:
        self._logger, self._settings = logger, settings
        self._socket, self.port = _reserve(settings)
        self._scratch = tempfile.TemporaryDirectory(prefix="recsys-serve-")
        scratch = Path(self._scratch.name)
        telemetry = settings.telemetry
        self._metrics_folder: Path | None = None
        if telemetry.metrics_port is not None:
            self._metrics_folder = telemetry.metrics_folder or scratch / "metrics"
            telemetry = replace(telemetry, metrics_port=None, metrics_folder=self._metrics_folder)
        orders_file = settings.releases.orders_file or scratch / "orders.json"
        of_worker = replace(
            settings,
            port=self.port,
            processes=1,
            port_is_shared=True,
            telemetry=telemetry,
            releases=replace(settings.releases, orders_file=orders_file),
        )
        file = scratch / "settings.toml"
        write_atomically(file, tomli_w.dumps(plain(of_worker)))
        self._command = [sys.executable, "-m", "serving.worker", str(scratch), str(file), str(folder), name]
        self._workers = [_Worker(number, scratch / f"{number}.port") for number in range(settings.processes)]

    @property
    def address(self) -> str:
        """Host and the real port."""
        return address(self._settings.host, self.port)

    @property
    def is_ready(self) -> bool:
        """Whether every worker has said that it serves."""
        return all(worker.port_file.exists() for worker in self._workers)

    def run(self, stopping: threading.Event, port_file: Path | None) -> None:
        """Keep the workers running until told to stop.

        Args:
            stopping: ends it.
            port_file: gets the real port as text once every worker serves.

        Raises:
            TwintowerError: a worker could not start before the group was ever ready; what it said is in the log.
        """
        with ExitStack() as opened:
            metrics = self._expose(opened)
            self._keep_running(stopping, port_file, metrics)

    def _keep_running(self, stopping: threading.Event, port_file: Path | None, metrics: dict[str, str]) -> None:
        was_ready = False
        while not stopping.is_set():
            for worker in self._workers:
                self._look_after(worker, was_ready)
            if not was_ready and self.is_ready:
                was_ready = True
                if port_file is not None:
                    write_atomically(port_file, f"{self.port}\n")
                self._logger.info("serving", address=self.address, processes=len(self._workers), **metrics)
            stopping.wait(POLL_S)

    def _expose(self, opened: ExitStack) -> dict[str, str]:
        """Show the figures of all workers at the one port of metrics; return its address for the log."""
        if self._metrics_folder is None:
            return {}
        from serving.telemetry.exposition import expose
        from serving.telemetry.workers import registry_of

        self._metrics_folder.mkdir(parents=True, exist_ok=True)
        for left in self._metrics_folder.glob("*.db"):
            left.unlink()  # by the workers of a server before this one: they would never be ready again
        exposition = expose(registry_of(self._metrics_folder), self._settings.telemetry)
        opened.callback(exposition.close)
        return {"metrics": exposition.address}

    def stop(self) -> None:
        """Let every worker drain, kill those that do not, and give the port back."""
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_s + KILL_AFTER_S
        for process in running:
            if not ended(process, max(0.0, deadline - time.monotonic())):
                self._logger.error("worker killed", pid=process.pid)
        self._socket.close()
        self._scratch.cleanup()

    def _look_after(self, worker: _Worker, was_ready: bool) -> None:
        now = time.monotonic()
        if worker.process is not None and worker.process.poll() is not None:
            code, lived_s = worker.process.returncode, now - worker.started
            self._logger.error("worker died", worker=worker.number, exit_code=code, lived_s=round(lived_s, 3))
            if not was_ready:
                raise TwintowerError(
                    f"worker {worker.number} ended with exit code {code} before it served; see its log."
                )
            if self._metrics_folder is not None:
                from prometheus_client import multiprocess

                multiprocess.mark_process_dead(worker.process.pid, self._metrics_folder)
            worker.process = None
            worker.port_file.unlink(missing_ok=True)
            worker.deaths = 0 if lived_s > STABLE_S else worker.deaths + 1
            worker.due = now + (min(2.0**worker.deaths * POLL_S, LONGEST_PAUSE_S) if worker.deaths else 0.0)
        if worker.process is None and now >= worker.due:
            # A signal of the terminal reaches the supervisor alone, which then ends its workers in order. However it
            # ends itself, its end of the pipe closes and tells them.
            worker.process = subprocess.Popen(
                [*self._command, str(worker.port_file)], stdin=subprocess.PIPE, start_new_session=True
            )
            worker.started = now


def _reserve(settings: ServerSettings) -> tuple[socket.socket, int]:
    """Return a socket that holds the port without listening, and the port; workers bind it beside that."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without sharing, so that another server on this port is found.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((settings.host, settings.port))
        port = probe.getsockname()[1]
    except OSError:
        raise address_taken(settings) from None
    finally:
        probe.close()
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((settings.host, port))
    return held, port
