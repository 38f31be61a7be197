"""Segments: Arrow IPC streams that one process appends to, each held by a lock as long as its writer lives."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys.errors import StorageError
from recsys.files import storage

END = b"\xff\xff\xff\xff\0\0\0\0"
"""Marks the end of an Arrow IPC stream; one without it ended with its writer."""


class Segments:
    """Appends batches to the newest segment of this process, and begins another where it is long or old enough.

    What `write` has returned for is with the operating system: it survives the end of this process however it comes,
    not that of the machine. A batch that does not fit on the disk leaves nothing behind. Safe for calls from several
    threads.

    Args:
        folder: of all segments of one kind; made if needed.
        schema: of the batches.
        segment_bytes: a segment of this length gets no more batches.
        segment_s: nor does one of this age.
        logger: hears when writing fails, and when it succeeds again.
    """

    def __init__(self, folder: Path, schema: pa.Schema, segment_bytes: int, segment_s: float, logger: Any) -> None:
        self._folder, self._schema, self._logger = folder, schema, logger
        self._segment_bytes, self._segment_s = segment_bytes, segment_s
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size_bytes = self._number = 0
        self._opened_s = 0.0
        self._is_failing = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch.

        Raises:
            StorageError: there is no room, or the place may not be written; nothing was added.
        """
        content = batch.serialize()
        with self._lock:
            try:
                self._append(content)
            except OSError as error:
                self._tell(error)
                raise StorageError(str(error)) from error
            self._tell(None)

    def rest(self) -> None:
        """End the segment if it is old enough, so that it can be compacted though nothing more comes."""
        with self._lock:
            if self._file is not None and time.monotonic() - self._opened_s >= self._segment_s:
                self._end()

    def close(self) -> None:
        """End the segment."""
        with self._lock:
            self._end()

    def _append(self, content: pa.Buffer) -> None:
        if self._file is not None and (
            self._size_bytes >= self._segment_bytes
            or time.monotonic() - self._opened_s >= self._segment_s
            or os.fstat(self._file).st_nlink == 0  # somebody has removed it
        ):
            self._end()
        with storage(self._folder):
            if self._file is None:
                self._begin()
            self._put(content)

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._number += 1
            started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            path = self._folder / f"{started}-{os.getpid()}-{self._number}.arrow"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                break
            os.close(file)  # a compaction was faster and took it for that of a dead writer
        self._file, self._size_bytes, self._opened_s = file, 0, time.monotonic()
        try:
            self._put(self._schema.serialize())
        except OSError:
            path.unlink(missing_ok=True)
            self._drop()
            raise

    def _put(self, content: pa.Buffer) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            self._cut()
            raise
        self._size_bytes += len(content)

    def _cut(self) -> None:
        """Remove what was written of a batch; a reader stops at half of one."""
        try:
            os.ftruncate(self._file, self._size_bytes)
        except OSError:
            self._drop()

    def _end(self) -> None:
        if self._file is None:
            return
        try:
            os.write(self._file, END)
        except OSError:
            self._cut()
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tell(self, error: OSError | None) -> None:
        if error is not None and not self._is_failing:
            self._logger.error("log not written", log=self._folder.name, reason=str(error))
        elif error is None and self._is_failing:
            self._logger.info("log written again", log=self._folder.name)
        self._is_failing = error is not None
