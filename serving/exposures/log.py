"""The log of one server process: what it shows and what comes of it, in one folder that all processes share."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from recsys.experiment.log import DROPS, EVENTS, EXPOSURES
from recsys.files import storage
from serving.exposures.event_log import EventLog
from serving.exposures.exposure_log import ExposureLog
from serving.exposures.reported import ReportedItems
from serving.exposures.segments import Segments
from serving.exposures.tokens import Tokens, key_in
from serving.settings import LogSettings


class Log:
    """Exposures and events, and the thread that writes the first and ends old segments of both; `close` it.

    Args:
        settings: with a folder.
        logger: hears when the log cannot be written.

    Raises:
        DataError: the key of the log is damaged.
        StorageError: the folder cannot be written.

    Attributes:
        exposures: takes lists.
        events: takes events.
        reported: knows the items that recent events are about, by user, of all processes of the log.
    """

    def __init__(self, settings: LogSettings, logger: Any) -> None:
        folder = settings.folder
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        tokens = Tokens(key_in(folder))
        pa.array([])  # imports pandas where that is installed: not with the first flush, while calls are answered
        size_bytes, age_s = settings.segment_bytes, settings.segment_s
        shown = Segments(folder / "exposures", EXPOSURES, size_bytes, age_s, logger)
        happened = Segments(folder / "events", EVENTS, size_bytes, age_s, logger)
        self._segments = (shown, happened)
        self.exposures = ExposureLog(tokens, shown, settings.max_waiting, logger)
        self.reported = ReportedItems(tokens, settings)
        self.reported.follow()
        self.events = EventLog(tokens, happened, self.reported, settings)
        self._drops, self._logger, self._told = folder / DROPS, logger, 0
        self._flush_s = settings.flush_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="exposures", daemon=True)
        self._thread.start()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many rows had which outcome so far, by log and outcome."""
        shown = {"written": self.exposures.written, "dropped": self.exposures.dropped}
        counts = {("exposures", outcome): count for outcome, count in shown.items()}
        return counts | {("events", outcome): count for outcome, count in self.events.counts.copy().items()}

    def close(self) -> None:
        """Write what waits and end the segments; nothing may be recorded after."""
        self._closing.set()
        self._thread.join()
        self.exposures.close()
        self._tell_drops()
        for segments in self._segments:
            segments.close()

    def _work(self) -> None:
        while not self._closing.wait(self._flush_s):
            self.exposures.flush()
            self._tell_drops()
            self.reported.follow()
            for segments in self._segments:
                segments.rest()

    def _tell_drops(self) -> None:
        """Say in the log itself how many lists it lacks, as soon as there is room for that."""
        lost = self.exposures.dropped - self._told
        if not lost:
            return
        told = {"time": datetime.now(UTC).isoformat(), "pid": os.getpid(), "exposures": lost}
        try:
            with open(self._drops, "ab", buffering=0) as file:
                file.write(f"{json.dumps(told)}\n".encode())
        except OSError:
            return
        self._told += lost
        self._logger.warning("exposures dropped", count=lost)
