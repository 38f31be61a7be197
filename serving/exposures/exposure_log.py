"""What was shown: taken in a few microseconds on the thread that answers, written by another one."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import pyarrow as pa

from serving.exposures import columns
from serving.exposures.columns import Shown
from serving.exposures.exposure import Exposure
from serving.exposures.segments import Segments
from serving.exposures.tokens import Tokens

BATCH_ROWS = 500
"""Rows that become columns at once: the interpreter is held for a fraction of a millisecond, and calls go on."""


class ExposureLog:
    """Lists that wait to be written, bounded. `record` is safe for calls from several threads, `flush` for one.

    Args:
        tokens: gives a token to each list.
        segments: where rows go.
        max_waiting: lists that may wait; further ones are dropped and counted.
        logger: hears of rows that cannot be written whatever the disk does.
    """

    def __init__(self, tokens: Tokens, segments: Segments, max_waiting: int, logger: Any) -> None:
        self._tokens, self._segments, self._max_waiting, self._logger = tokens, segments, max_waiting, logger
        self._waiting: deque[Shown] = deque()
        self._batch: pa.RecordBatch | None = None
        self._lock = threading.Lock()
        self._written = self._dropped = 0

    @property
    def written(self) -> int:
        """Lists in the log of this process so far."""
        return self._written

    @property
    def dropped(self) -> int:
        """Lists that are not in the log, because the disk was full or slow for too long."""
        return self._dropped

    def record(self, exposure: Exposure, user_id: str = "") -> str:
        """Take a list that is being shown; return its token, empty where it was dropped.

        Args:
            exposure: the list.
            user_id: whom events of the list are about; empty where unknown.
        """
        if len(self._waiting) >= self._max_waiting:
            self._drop(1)
            return ""
        time_us = time.time_ns() // 1000
        token = self._tokens.new(time_us, user_id)
        self._waiting.append(Shown(time_us, token, exposure))
        return token

    def flush(self) -> None:
        """Write what waits; what finds no room waits on."""
        left = len(self._waiting)  # not what comes meanwhile, or this would not end
        while self._batch is not None or left > 0:
            if self._batch is None:
                rows = [self._waiting.popleft() for _ in range(min(left, BATCH_ROWS))]
                left -= len(rows)
                self._batch = self._columns(rows)
            if self._batch is not None:
                try:
                    self._segments.write(self._batch)
                except OSError:
                    return
                self._written += len(self._batch)
                self._batch = None

    def close(self) -> None:
        """Write what waits, and count as dropped what finds no room."""
        self.flush()
        lost = len(self._waiting) + (len(self._batch) if self._batch is not None else 0)
        self._drop(lost)

    def _columns(self, rows: list[Shown]) -> pa.RecordBatch | None:
        try:
            return columns.exposures(rows)
        except Exception:
            # A mistake of ours, which may cost these rows but not the log, and no call.
            self._logger.exception("exposures lost", count=len(rows))
            self._drop(len(rows))
            return None

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
