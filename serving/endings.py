"""How a serving process hears that it must end, and how it says where it is."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from recsys.errors import SettingError, describe


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def stop_with_parent(stopping: threading.Event) -> None:
    """Set an event when the process at the other end of standard input is gone."""

    def wait() -> None:
        # Not through sys.stdin, whose lock a thread that waits would keep from the interpreter at its end.
        os.read(0, 1)
        stopping.set()

    threading.Thread(target=wait, name="parent", daemon=True).start()


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
