"""Lines of the log that callers could cause at will: few of each kind are written, the others counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from serving.runtime.deadlines import Deadlines


class Sampled:
    """Decides which lines are written: the first few of each kind in a window of time. Safe for calls from threads.

    Where there were more, a line at the end of the window says how many of each kind were not written.

    Args:
        logger: a structlog logger.
        deadlines: ends the windows.
        lines: of each kind that are written in a window.
        window_s: length of a window, seconds.
    """

    def __init__(self, logger: Any, deadlines: Deadlines, lines: int = 10, window_s: float = 1.0) -> None:
        self._logger, self._deadlines = logger, deadlines
        self._lines, self._window_s = lines, window_s
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def takes(self, event: str, **fields: str) -> bool:
        """Count a line, whose kind is its event with some of its fields; return whether it is written."""
        kind = event, frozenset(fields.items())
        with self._lock:
            if not self._counts:
                self._deadlines.after(self._window_s, self._end)
            self._counts[kind] += 1
            return self._counts[kind] <= self._lines

    def _end(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, Counter()
        for (event, fields), count in counts.items():
            if count > self._lines:
                self._logger.warning("lines left out", of=event, count=count - self._lines, **dict(fields))
