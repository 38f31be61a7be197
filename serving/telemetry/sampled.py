"""Lines of the log that somebody outside could cause at will: few of each kind are written, the others counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from serving.runtime.deadlines import Deadlines

LINES, EVERY_S = 10, 1.0


class Sampled:
    """Says which lines are written: of each kind the first 10 in a second. Safe for calls from several threads.

    Where there were more, a line says at the end of the second how many of each kind were not written.

    Args:
        logger: a structlog logger.
        deadlines: says when the second ends.
    """

    def __init__(self, logger: Any, deadlines: Deadlines) -> None:
        self._logger, self._deadlines = logger, deadlines
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def takes(self, event: str, method: str, code: str) -> bool:
        """Count a line of a kind; return whether it is written."""
        with self._lock:
            if not self._counts:
                self._deadlines.after(EVERY_S, self._end)
            self._counts[event, method, code] += 1
            return self._counts[event, method, code] <= LINES

    def _end(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, Counter()
        for (event, method, code), count in counts.items():
            if count > LINES:
                self._logger.warning("lines left out", of=event, method=method, code=code, count=count - LINES)
