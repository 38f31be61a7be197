"""Log lines: one JSON object a line, written by a thread that nobody waits for."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from io import RawIOBase
from typing import Any, BinaryIO

import structlog

from serving.telemetry import calls

GATHER_S = 0.02
"""How long lines gather before they are written together: a thread that wakes for each line takes time from calls."""


class BackgroundFile:
    """A file whose writers never wait: a thread of its own writes, and what comes faster than it can is dropped.

    Once there is room again, a line says how many were dropped. Safe for calls from several threads.

    Args:
        file: unbuffered; may block or fail for as long as it likes.
        max_lines: lines that may wait.
    """

    def __init__(self, file: RawIOBase | BinaryIO, max_lines: int) -> None:
        self._file, self._max_lines = file, max_lines
        self._lines: deque[bytes] = deque()
        self._some = threading.Event()
        self._lock = threading.Lock()
        self._closing = False
        self._dropped = self._told = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._dropped

    def write(self, line: bytes) -> int:
        """Take a line, or drop it."""
        if len(self._lines) >= self._max_lines:
            self._drop(1)
        else:
            self._lines.append(line)
            if not self._some.is_set():
                self._some.set()
        return len(line)

    def flush(self) -> None:
        """Nothing: lines are written as soon as they can be."""

    def close(self, wait_s: float) -> None:
        """Write what waits, for at most that many seconds; the file stays open."""
        self._closing = True
        self._some.set()
        self._thread.join(wait_s)

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count

    def _work(self) -> None:
        while not (self._closing and not self._lines):
            self._some.wait()
            if not self._closing:
                time.sleep(GATHER_S)
            self._some.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if self._dropped > self._told:
                told, self._told = self._dropped - self._told, self._dropped
                lines.append(b'{"level": "warning", "event": "log lines dropped", "dropped": %d}\n' % told)
            try:
                self._write(b"".join(lines))
            except OSError:
                # The reader has gone or the disk is full: calls go on without a log.
                self._drop(len(lines))

    def _write(self, block: bytes) -> None:
        while block:
            written = self._file.write(block)
            if written is None:  # it does not block, and is full
                time.sleep(GATHER_S)
            block = block[written or 0 :]


class Logger(structlog.make_filtering_bound_logger("info")):  # type: ignore[misc]
    """A structlog logger that also takes lines that are made already."""

    def line(self, line: bytes) -> None:
        """Write a line as it is."""
        self._logger.msg(line)


def make_logger(file: BinaryIO | BackgroundFile) -> Logger:
    """Return a logger that writes to a binary stream and needs no global configuration.

    Each line has `timestamp` (ISO 8601, UTC), `level`, `event`, the fields of the call, and the request id, caller and
    release of the call being worked on.
    """
    return structlog.wrap_logger(
        structlog.BytesLogger(file),
        processors=[
            _with_the_call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _as_bytes,
        ],
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )


def _with_the_call(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    call = calls.current()
    if call.request_id:
        event.setdefault("request_id", call.request_id)
    if call.caller:
        event.setdefault("caller", call.caller)
    if call.release is not None:
        event.setdefault("release", call.release.name)
    return event


def _as_bytes(_logger: Any, _method: str, event: dict[str, Any]) -> bytes:
    # ASCII: whatever a caller's text holds (halves of characters, escape sequences, marks of direction) is escaped.
    return json.dumps(event, default=str).encode()
