"""A server in a process of its own, as commands and benchmarks need one for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.endings import ended
from twintower.client import Client
from twintower.errors import TwintowerError

STOP_S = 60.0
"""What a server gets to end its calls before it is killed."""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        address: host and port.
        pid: of the process that was started; worker processes are its children.
        log: the file that it writes its log to.
        start_s: seconds from its start until it was ready.
    """

    address: str
    pid: int
    log: Path
    start_s: float


@contextmanager
def running(release: Path, scratch: Path, *, start_s: float, settings: Sequence[str] = ()) -> Iterator[Running]:
    """Serve a release on a free port while the block runs.

    Args:
        release: its folder, or a folder of releases.
        scratch: gets `server.port` and `server.log`.
        start_s: seconds that the server may take to start.
        settings: `key=value` or `section.key=value` each.

    Raises:
        TwintowerError: it did not start; what it logged is a note of the error.
    """
    port_file, log = scratch / "server.port", scratch / "server.log"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "serving", str(release), "--port", "0", "--port-file", str(port_file)]
    command += [word for setting in settings for word in ("--set", setting)]
    started = time.monotonic()
    with open(log, "wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)
    try:
        while not port_file.exists():
            if server.poll() is not None or time.monotonic() > started + start_s:
                error = TwintowerError(f"the server did not start; see {log}.")
                error.add_note(log.read_text(encoding="utf-8", errors="replace"))
                raise error
            time.sleep(0.1)
        address = f"127.0.0.1:{port_file.read_text().strip()}"
        yield Running(address, server.pid, log, time.monotonic() - started)
    finally:
        server.send_signal(signal.SIGTERM)
        ended(server, STOP_S)


@contextmanager
def served(release: Path, scratch: Path, *, start_s: float, settings: Sequence[str] = ()) -> Iterator[Client]:
    """Serve a release while the block runs, as `running`; yield a client of it."""
    with (
        running(release, scratch, start_s=start_s, settings=settings) as server,
        Client(server.address, timeout_s=10.0) as client,
    ):
        yield client
