"""How a serving process ends, by signals or with its supervisor, and the file with its port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from twintower.errors import SettingError, describe


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


class Parent:
    """The supervisor of a worker process, which holds the other end of the worker's standard input.

    A worker whose supervisor is gone ends: at once while it loads, later in order, as after SIGTERM. It then removes
    the supervisor's folder, which nothing else does after SIGKILL.

    Args:
        folder: with the files that supervisor and workers share; it belongs to them alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._is_gone = False
        self._stopping: threading.Event | None = None
        threading.Thread(target=self._wait, name="parent", daemon=True).start()

    def stop_with_it(self, stopping: threading.Event) -> None:
        """Set an event when the supervisor is gone, instead of ending at once."""
        with self._lock:
            self._stopping = stopping

    def clean_up(self) -> None:
        """Remove the folder if the supervisor is gone."""
        if self._is_gone:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        # Not through sys.stdin, whose lock a thread that waits would keep from the interpreter at its end.
        os.read(0, 1)
        with self._lock:
            self._is_gone = True
            if self._stopping is not None:
                self._stopping.set()
                return
            self.clean_up()
            os._exit(1)  # nothing waits for an answer yet, and what loads cannot be interrupted


def ended(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Wait for a process that was told to end; kill one that has not ended after so many seconds, and return False."""
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def check_port_file(port_file: Path | None) -> None:
    """Remove a port file that an earlier server left: it would name a port where nobody answers.

    Raises:
        SettingError: it has no folder.
    """
    if port_file is None:
        return
    if not port_file.parent.is_dir():
        raise SettingError(describe("--port-file", str(port_file), "a file in an existing folder"))
    port_file.unlink(missing_ok=True)
