"""Turn the segments that servers have ended into Parquet files; killed at any moment, no row is lost or read twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.experiment.log import (
    LOGS,
    SEGMENTS_KEY,
    TORN_KEY,
    batches,
    compacted,
    counting,
    parquet_metadata,
    segments_in,
)
from recsys.files import exclusive, storage, sync_folder
from recsys.progress import task
from twintower.errors import MissingError, describe, verbatim

FILE_BYTES = 512 * 1024 * 1024
"""Segments of one Parquet file, together; zstd makes a tenth to a third of it."""
FILE_SEGMENTS = 256
"""Segments of one Parquet file: each stays open until the file stands."""
ROW_GROUP_BYTES = 64 * 1024 * 1024
"""Held in memory before they are written."""


@dataclass(frozen=True)
class Compacted:
    """What became of the segments of one subfolder.

    Attributes:
        rows: that were moved.
        segments: that are gone, those that an interrupted compaction had left included.
        torn_segments: of those moved, which ended in the middle of a batch.
        living_segments: that a server writes to; they stay.
        files: Parquet files that were written.
    """

    rows: int = 0
    segments: int = 0
    torn_segments: int = 0
    living_segments: int = 0
    files: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def compact(folder: str | Path) -> dict[str, Compacted]:
    """Move the rows of all ended segments of a log to Parquet files (zstd). Servers may write to the log meanwhile.

    A file names the segments that it was made from, under a temporary name until it is whole and on disk; readers pass
    over segments that a file names. So a segment counts until the file has its name, and never after.

    Args:
        folder: of the log.

    Returns:
        What was done, by subfolder.

    Raises:
        MissingError: it is no log.
        RefusedError: another compaction of it is running.
        DataError: a Parquet file is damaged; or a segment is, before its end, or is of a newer version, or lacks a
            column: those before it are done.
        StorageError: no room; what was not done stays as it was.
    """
    folder = Path(folder)
    if not any((folder / name).is_dir() for name in LOGS):
        raise MissingError(describe(str(folder), verbatim("no exposures"), "a log folder with exposures/"))
    with storage(folder), exclusive(folder, "another process compacts it. Wait for it."):
        return {name: _compact(folder / name, schema) for name, schema in LOGS.items()}


def _compact(folder: Path, schema: pa.Schema) -> Compacted:
    for path in folder.glob(".*.parquet"):
        path.unlink()  # by a compaction that was killed: nobody else works here
    done = frozenset[str]().union(
        *(compacted(path, parquet_metadata(path))[0] for path in folder.glob("[!.]*.parquet"))
    )
    left = [path for path in (folder / name for name in done) if path.exists()]
    for path in left:
        path.unlink()
    segments = counting(segments_in(folder), done)
    total = Compacted(segments=len(left))
    with task(f"compact {folder.name}", len(segments), "segments") as running:
        for group in _groups(segments):
            total += _moved(folder, schema, group)
            running.advance(len(group))
    return total


def _groups(segments: Sequence[Path]) -> Iterator[list[Path]]:
    group, size = [], 0
    for path in segments:
        if group and (size >= FILE_BYTES or len(group) == FILE_SEGMENTS):
            yield group
            group, size = [], 0
        group.append(path)
        size += path.stat().st_size
    if group:
        yield group


def _moved(folder: Path, schema: pa.Schema, group: Sequence[Path]) -> Compacted:
    with ExitStack() as held:
        ended = [path for path in group if _is_held(held.enter_context(open(path, "rb")))]
        living = len(group) - len(ended)
        if not ended:
            return Compacted(living_segments=living)
        path = folder / f"{ended[0].stem}.parquet"
        temporary = path.with_name(f".{path.name}")
        try:
            rows, torn = _write(temporary, schema, ended)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        for segment in ended:
            segment.unlink()
        return Compacted(rows, len(ended), torn, living, files=1)


def _is_held(file: BinaryIO) -> bool:
    """Lock a segment until it is closed; return False where its writer lives."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, schema: pa.Schema, segments: Sequence[Path]) -> tuple[int, int]:
    """Write all rows of segments; return how many, and how many segments are torn."""
    rows = torn = 0
    with open(path, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            waiting, size_bytes = [], 0
            for batch in chain.from_iterable(batches(segment, schema) for segment in segments):
                if batch is None:
                    torn += 1
                    continue
                waiting.append(batch)
                rows, size_bytes = rows + len(batch), size_bytes + batch.nbytes
                if size_bytes >= ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(waiting, schema))
                    waiting, size_bytes = [], 0
            writer.write_table(pa.Table.from_batches(waiting, schema))
            writer.add_key_value_metadata({SEGMENTS_KEY: "\n".join(s.name for s in segments), TORN_KEY: str(torn)})
        file.flush()
        os.fsync(file.fileno())
    return rows, torn
