"""The write-ahead log of changes to the catalogue: one append-only file that all processes of a server share."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.errors import DataError, StorageError
from recsys.files import storage, sync_folder

MAGIC = b"RECSYS-1"
POSITION_FILE = "catalogue.position"
LOG_FILE = re.compile(r"catalogue-(0|[1-9]\d*)\.log")
HEADER = struct.Struct("<IIQ")
"""Length of the payload, CRC-32 of sequence and payload, sequence."""
SEQUENCE, SEQUENCE_OFFSET = struct.Struct("<Q"), 8
POSITION, LAST, COMPACTED, WORDS = 0, 1, 2, 3
"""Words of the shared counter: position, last sequence, bytes of the snapshot that the file began with."""
SIZE_BITS = 40
FILE_MODE = 0o640
ADVICE = (
    "Stop every process of this server, then restore the whole folder from a copy, or begin with an empty folder and "
    "upsert again."
)


@dataclass(frozen=True)
class Record:
    """One acknowledged change.

    Attributes:
        sequence: its place, 1 for the first; all records of a snapshot have that of the last change in it.
        payload: what was changed.
    """

    sequence: int
    payload: bytes


class CatalogueLog:
    """Records on disk before they are acknowledged, and a counter in shared memory that says how many there are.

    A record counts once the counter includes it, which happens after `fdatasync`; the unfinished record of a killed
    writer is cut off by the next one. A compacted log is another file; the counter names the one that counts. Writers
    of all processes take turns by a file lock; those of one process share one `fdatasync`. Readers need no lock. Safe
    for calls from several threads.

    Recovery never drops an acknowledged record: only an unfinished record at the end of the log is cut off. A log that
    is damaged anywhere else is refused, and so is a log without its counter, which alone shows that none of the last
    records is missing.

    Args:
        folder: of this one server, on a local disk; made if needed.

    Raises:
        DataError: the log is damaged before its end, or its counter is missing or damaged.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing, self._queueing = threading.Lock(), threading.Lock()
        self._queue: list[_Waiting] = []
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._shared = self._counter()
                self._recover()

    @property
    def position(self) -> int:
        """Which file counts, and how much of it; another number means that there is something to read."""
        return self._shared[POSITION]

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self.position % (1 << SIZE_BITS)

    @property
    def compacted_bytes(self) -> int:
        """Length of the snapshot that the file began with; 0 before the first."""
        return self._shared[COMPACTED]

    def append(self, payload: bytes) -> int:
        """Write a record and return its sequence when it is on disk.

        Raises:
            StorageError: writing failed; nothing was changed.
        """
        waiting = _Waiting(payload)
        with self._queueing:
            self._queue.append(waiting)
        with self._writing:
            if not waiting.done:
                with self._queueing:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        if waiting.error is not None:
            raise StorageError(str(waiting.error))
        return waiting.sequence

    def read(self, position: int = 0) -> tuple[list[Record], int]:
        """Return the records since a position, and the position that they reach.

        Args:
            position: as an earlier call returned it; 0 for all. Of a file that has been compacted since, all records of
                its successor are returned, also those that were read before.

        Raises:
            DataError: the log is damaged or gone.
        """
        while True:
            now = self.position
            path, size = self._at(now)
            start = position % (1 << SIZE_BITS) if position >> SIZE_BITS == now >> SIZE_BITS else 0
            start = max(start, len(MAGIC))
            try:
                with open(path, "rb") as file:
                    content = os.pread(file.fileno(), size - start, start)
            except FileNotFoundError:
                if now == self.position:
                    raise _damaged(path, 0) from None
                continue
            records, end = _parsed(content)
            if start + end != size:
                raise _damaged(path, start + end)
            return records, now

    def compact(self, fold: Callable[[Iterable[bytes]], Iterable[bytes]]) -> None:
        """Replace the file by a shorter one that says the same; writers wait, readers do not.

        Args:
            fold: returns fewer payloads with the effect of those given.

        Raises:
            StorageError: writing failed; the old file goes on.
        """
        with self._writing, self._alone(), storage(self._folder):
            records, now = self.read()
            last = self._shared[LAST]
            following = ((now >> SIZE_BITS) + 1) << SIZE_BITS
            path, _ = self._at(following)
            payloads = fold(record.payload for record in records)
            size = self._replace(path, [MAGIC, *(_framed(last, payload) for payload in payloads)])
            self._shared[COMPACTED] = size
            self._shared[POSITION] = following + size
            self._map.flush()
            self._at(now)[0].unlink()

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            with self._alone(), storage(self._folder):
                self._write(batch)
        except Exception as error:
            for waiting in batch:
                waiting.error = error
        for waiting in batch:
            waiting.done = True

    def _write(self, batch: list[_Waiting]) -> None:
        path, size = self._at(self.position)
        last = self._shared[LAST]
        with open(path, "r+b", buffering=0) as file:
            try:
                if os.fstat(file.fileno()).st_size != size:
                    file.truncate(size)  # what a killed writer left
                file.seek(size)
                content = b"".join(_framed(last + place, waiting.payload) for place, waiting in enumerate(batch, 1))
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
                os.fdatasync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
        self._shared[LAST] = last + len(batch)
        self._shared[POSITION] += len(content)
        for place, waiting in enumerate(batch, 1):
            waiting.sequence = last + place

    def _counter(self) -> memoryview:
        path, logs = self._folder / POSITION_FILE, self._generations()
        if not path.exists() and not logs:
            self._replace(path, [bytes(WORDS * 8)])
        if not path.exists() or path.stat().st_size != WORDS * 8:
            raise _miscounted(path, "one of another length" if path.exists() else "no file", logs)
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), WORDS * 8)
        # Aligned words: the processor reads and writes each as a whole.
        return memoryview(self._map).cast("Q")

    def _recover(self) -> None:
        """Count every whole record, and cut off one that was not written to its end."""
        (path, counted), logs = self._at(self.position), self._generations()
        if self.position == 0 and (not logs or (logs == [path] and path.stat().st_size <= len(MAGIC))):
            counted = self._replace(path, [MAGIC])  # a new folder
        elif path not in logs or counted < len(MAGIC):
            raise _miscounted(self._folder / POSITION_FILE, f"one that names byte {counted} of {path.name}", logs)
        with open(path, "r+b") as file:
            content = file.read()
            records, end = _parsed(content[len(MAGIC) :])
            whole = len(MAGIC) + end
            last = max((record.sequence for record in records), default=self._shared[LAST])
            if not content.startswith(MAGIC) or whole < counted or _has_record(content[whole:], last):
                raise _damaged(path, whole)
            for newer in (log for log in logs if _generation(log) > _generation(path)):
                if any(record.sequence > last for record in _parsed(newer.read_bytes()[len(MAGIC) :])[0]):
                    raise _miscounted(self._folder / POSITION_FILE, f"one that names {path.name}", logs)
            if last < self._shared[LAST]:
                got = f"one that counts {self._shared[LAST]} changes where {path.name} has {last}"
                raise _miscounted(self._folder / POSITION_FILE, got, logs)
            file.truncate(whole)
            os.fsync(file.fileno())
        for other in (*logs, *self._folder.glob(".catalogue*")):
            if other != path:
                other.unlink()
        sync_folder(self._folder)
        self._shared[LAST] = last
        self._shared[POSITION] = (self.position >> SIZE_BITS << SIZE_BITS) + whole
        self._map.flush()

    def _replace(self, path: Path, blocks: Iterable[bytes]) -> int:
        """Write a file under a temporary name, rename it when it is on disk, and return its length in bytes."""
        temporary = path.with_name(f".{path.name}")
        with open(temporary, "wb", opener=_opened) as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(temporary, path)
        sync_folder(self._folder)
        return size

    def _generations(self) -> list[Path]:
        """Return the files that are logs by their names, the newest last; a copy beside them is none."""
        return sorted((file for file in self._folder.iterdir() if LOG_FILE.fullmatch(file.name)), key=_generation)

    def _at(self, position: int) -> tuple[Path, int]:
        generation, size = divmod(position, 1 << SIZE_BITS)
        return self._folder / f"catalogue-{generation}.log", size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self._folder / "catalogue.lock", "wb", opener=_opened) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass
class _Waiting:
    """A record that waits to be written."""

    payload: bytes
    sequence: int = 0
    done: bool = False
    error: Exception | None = None


def _framed(sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), _checksum(sequence, payload), sequence) + payload


def _checksum(sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(SEQUENCE.pack(sequence)))


def _parsed(content: bytes) -> tuple[list[Record], int]:
    """Return the whole records at the beginning, and where the last one ends."""
    records, end = [], 0
    while end + HEADER.size <= len(content):
        length, checksum, sequence = HEADER.unpack_from(content, end)
        payload = content[end + HEADER.size : end + HEADER.size + length]
        if len(payload) != length or checksum != _checksum(sequence, payload):
            break
        records.append(Record(sequence, payload))
        end += HEADER.size + length
    return records, end


def _has_record(content: bytes, last: int) -> bool:
    """Return whether a whole record begins anywhere in these bytes.

    Args:
        content: what follows the whole records at the beginning of a log.
        last: the sequence of the last of them.
    """
    starts = len(content) - HEADER.size + 1
    if starts < 1:
        return False
    # Views of the headers that would begin at each byte.
    lengths = np.ndarray(starts, "<u4", content, 0, (1,))
    sequences = np.ndarray(starts, "<u8", content, SEQUENCE_OFFSET, (1,))
    fits = lengths <= np.arange(starts - 1, -1, -1)
    fits &= (sequences >= max(last, 1)) & (sequences <= last + starts)
    return any(_parsed(content[start : start + HEADER.size + lengths[start]])[0] for start in np.flatnonzero(fits))


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def _generation(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


def _miscounted(counter: Path, got: str, logs: Sequence[Path]) -> DataError:
    names = ", ".join(log.name for log in logs) or "the log"
    return DataError(
        f"{counter}: got {got}, expected the counter of {names}. Without it, acknowledged changes that are missing at "
        f"the end of the log cannot be detected. {ADVICE}"
    )


def _damaged(path: Path, end: int) -> DataError:
    return DataError(f"{path}: damaged after byte {end}, where acknowledged changes stood. {ADVICE}")
