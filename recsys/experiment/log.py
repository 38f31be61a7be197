"""The two logs that serving writes, what was shown and what came of it: their columns, and how to read them.

A log folder holds `exposures/` and `events/`. In each lie Parquet files (`*.parquet`) and Arrow IPC streams
(`*.arrow`), the segments that a server appends to before they are compacted; other names are passed over. The writer of
a segment holds a lock (flock) on it as long as it lives. A segment may end in the middle of a batch, because its writer
was killed, or in zeros, because its machine lost its power: what came before is read. Damage anywhere else is an error
that names the file, so that nothing is lost in silence; compacted files hold checksums for it, segments do not. A
segment that still lies beside the Parquet file that it was compacted into is not read: the file names it. `drops.jsonl`
says how many exposures servers could not log.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from recsys.errors import DataError
from twintower.errors import MissingError, describe, verbatim

VERSION = 1
"""Of both schemas. A reader refuses higher ones; columns that it does not know are passed over."""
VERSION_KEY = b"recsys.log_version"
"""Where a file's schema metadata holds its version; a file without it counts as version 1."""

SEGMENTS_KEY = b"recsys.segments"
"""Where a Parquet file's metadata names the segments that it was made from, one a line."""
TORN_KEY = b"recsys.torn_segments"
"""And how many of them ended in the middle of a batch."""
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Of timestamps; others are damage, and beyond Python's years."""
DROPS = "drops.jsonl"
"""Holds one JSON object for each time that exposures were dropped: `time`, `pid`, `exposures`."""

_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError)
"""What Arrow raises where a file is not what it should be; a name that is not UTF-8 is a ValueError."""
_METADATA = {VERSION_KEY: str(VERSION).encode()}
_MOMENT = pa.timestamp("us", tz="UTC")
_ASSIGNMENT = pa.struct(
    [
        ("experiment", pa.string()),
        ("arm", pa.string()),
        ("unit_kind", pa.string()),
        ("overridden", pa.bool_()),
    ]
)

EXPOSURES = pa.schema(
    [
        ("timestamp", _MOMENT),
        ("request_id", pa.string()),
        ("token", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("held_out", pa.bool_()),
        ("assignments", pa.list_(_ASSIGNMENT)),
        ("release", pa.string()),
        ("reformulator", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("positions", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("propensities", pa.list_(pa.float64())),
        ("teams", pa.list_(pa.string())),
        ("slate_policy", pa.string()),
        ("slate_parameter", pa.float64()),
        ("slate_propensity", pa.float64()),
        ("candidate_ids", pa.list_(pa.string())),
        ("candidate_scores", pa.list_(pa.float32())),
    ],
    metadata=_METADATA,
)
"""One row for each list that was served.

    timestamp           when it was served, by the server's clock
    request_id          of the call
    token               unique; comes back with every event about this list
    user_id session_id  who asked, null where unknown; an assignment names the one that was hashed
    held_out            whether no experiment may take the unit
    assignments         experiments that the request was in, as `assignment.Assignment` without its settings
    release             the fingerprint of the release, 64 hex digits
    reformulator        the one that was applied, null for none
    item_ids            what was shown, `[k]`
    positions           place of each, 0 = best, `[k]`
    scores              inner products, `[k]`
    propensities        probability of each item at its place, 0..1, `[k]`; null where the list was not randomised and
                        where it is left to be computed offline from the candidates
    teams               arm that contributed each item of an interleaved list, `[k]`; null elsewhere
    slate_policy        `plackett_luce`, `epsilon_swap`, or null for a list that was not randomised
    slate_parameter     its temperature or epsilon
    slate_propensity    probability of exactly this list, 0..1
    candidate_ids       items that the policy could have shown, best first; bounded; null where not randomised
    candidate_scores    their scores
"""

EVENTS = pa.schema(
    [
        ("event_id", pa.string()),
        ("token", pa.string()),
        ("kind", pa.string()),
        ("item_id", pa.string()),
        ("value", pa.float64()),
        ("timestamp", _MOMENT),
    ],
    metadata=_METADATA,
)
"""One row for each outcome.

    event_id    chosen by the client; the same id again is the same event again
    token       of the list that it is about
    kind        such as `click`, `like`, `purchase`
    item_id     which item of the list; null where the outcome is about the whole list
    value       such as money or seconds; null where there is none
    timestamp   when it happened, by the client's clock
"""

LOGS = {"exposures": EXPOSURES, "events": EVENTS}
"""The schema of each subfolder."""


@dataclass(frozen=True)
class Log:
    """A log folder as it was when it was opened, not read yet; what servers add later is not in it.

    Attributes:
        folder: where it lies.
        exposures: rows of `EXPOSURES`, lazy.
        events: rows of `EVENTS`, lazy.
        exposure_rows: how many there are, repeats counted.
        event_rows: how many there are, repeats counted.
        torn_segments: segments that end in the middle of a batch, compacted ones included.
        dropped_exposures: lists that servers could not log.
    """

    folder: Path
    exposures: pl.LazyFrame
    events: pl.LazyFrame
    exposure_rows: int
    event_rows: int
    torn_segments: int
    dropped_exposures: int


def open_log(folder: str | Path) -> Log:
    """Open a log folder; nothing is read but schemas and row counts.

    Args:
        folder: holds `exposures/` and, where anything came of them, `events/`.

    Raises:
        MissingError: the folder has no file of exposures.
        DataError: a file is damaged, of a newer version, or lacks a column. Damaged rows of a Parquet file are found
            when they are read: then reading `exposures` or `events` raises it.
    """
    folder = Path(folder)
    exposures, exposure_rows, torn = _open(folder / "exposures", EXPOSURES)
    if exposure_rows == 0:
        raise MissingError(
            describe(str(folder), verbatim("no exposures"), "a log folder with exposures/*.parquet or *.arrow")
        )
    events, event_rows, torn_events = _open(folder / "events", EVENTS)
    return Log(folder, exposures, events, exposure_rows, event_rows, torn + torn_events, _dropped(folder / DROPS))


def parquet_metadata(path: Path) -> pq.FileMetaData:
    """Return the metadata of a Parquet file.

    Raises:
        DataError: it is damaged, or something else.
    """
    try:
        return pq.read_metadata(path)
    except _DAMAGE as error:
        raise DataError(f"{path}: not a Parquet file: {_first_line(error)}. Remove it or write it again.") from None


def compacted(path: Path, metadata: pq.FileMetaData) -> tuple[frozenset[str], int]:
    """Return which segments a Parquet file was made from, and how many of them were torn.

    Args:
        path: of the file.
        metadata: of it.

    Raises:
        DataError: it is damaged.
    """
    pairs = metadata.metadata or {}
    try:
        names = pairs.get(SEGMENTS_KEY, b"").decode().splitlines()
        return frozenset(names), int(pairs.get(TORN_KEY, b"0"))
    except ValueError as error:
        raise _damaged(path, error) from None


def segments_in(folder: Path) -> list[Path]:
    """Return the segments of a folder, those that were compacted included, in the order of their names.

    Whoever reads the log asks this before looking at Parquet files: what a compaction moves in between would be missed.
    """
    return sorted(path for path in folder.glob("[!.]*.arrow") if path.is_file())


def counting(segments: Sequence[Path], done: Collection[str]) -> list[Path]:
    """Return those segments that count: not compacted, and begun; one without a byte may still be removed.

    Args:
        segments: from `segments_in`.
        done: names of those that were compacted.
    """
    with _at_rest():
        return [path for path in segments if path.name not in done and path.stat().st_size]


def batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch | None]:
    """Yield the whole batches of a segment, with the columns of a schema; then None if it ends in the middle of one.

    Raises:
        DataError: it is damaged, of a newer version, or lacks a column.
    """
    with _at_rest():
        file, size_bytes = pa.OSFile(str(path)), path.stat().st_size
    with file:
        try:
            reader = pa.ipc.open_stream(file)
        except _DAMAGE as error:
            _refuse_unless_torn(path, file, size_bytes, error)
            yield None
            return
        _check(path, reader.schema, schema)
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                # A stream that was closed ends with a marker; one that was killed between two batches just ends.
                if _refuse_unless_torn(path, file, size_bytes, "more follows the end of its stream"):
                    yield None
                return
            except _DAMAGE as error:
                _refuse_unless_torn(path, file, size_bytes, error)
                yield None
                return
            yield _sound(path, batch, schema)


def is_written(path: Path) -> bool:
    """Tell whether the writer of a segment lives."""
    with _at_rest(), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _at_rest() -> Iterator[None]:
    """Turn the disappearance of a segment into one error."""
    try:
        yield
    except FileNotFoundError as error:
        gone = DataError(f"{error.filename}: gone: the log was compacted meanwhile. Run the command again.")
        raise gone from None


def _dropped(path: Path) -> int:
    total = 0
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # half a line, written where the disk was full
            total += int(json.loads(line)["exposures"])
    return total


def _open(folder: Path, schema: pa.Schema) -> tuple[pl.LazyFrame, int, int]:
    segments = segments_in(folder)
    files = sorted(folder.glob("[!.]*.parquet"))
    rows, torn, done = 0, 0, frozenset()
    for path in files:
        metadata = parquet_metadata(path)
        try:
            found = metadata.schema.to_arrow_schema()
        except _DAMAGE as error:
            raise _damaged(path, error) from None
        _check(path, found, schema)
        names, were_torn = compacted(path, metadata)
        rows, torn, done = rows + metadata.num_rows, torn + were_torn, done | names
    whole = {}
    for path in counting(segments, done):
        whole[path] = 0
        for batch in batches(path, schema):
            if batch is not None:
                rows, whole[path] = rows + len(batch), whole[path] + 1
            elif not is_written(path):
                torn += 1
    wanted = pl.from_arrow(schema.empty_table()).schema
    if not files and not whole:
        return pl.LazyFrame(schema=wanted), rows, torn
    return register_io_source(_source(files, whole, schema), schema=wanted), rows, torn


def _source(
    files: Sequence[Path], whole: Mapping[Path, int], schema: pa.Schema
) -> Callable[..., Iterator[pl.DataFrame]]:
    """Return a source of Parquet files and of the first batches of segments, so many of each: not of later ones.

    Arrow reads the files, too: what Polars does with damaged ones ranges from errors that name no file to a panic.
    """

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        left, chosen = n_rows, pa.schema([schema.field(name) for name in with_columns or schema.names])
        compacted_rows = chain.from_iterable(_parquet_batches(path, chosen) for path in files)
        living = chain.from_iterable(islice(batches(path, schema), count) for path, count in whole.items())
        for batch in chain(compacted_rows, living):
            frame = pl.from_arrow(batch)
            if left is not None:
                frame = frame.head(left)
                left -= len(frame)
            frame = frame if predicate is None else frame.filter(predicate)
            yield frame if with_columns is None else frame.select(with_columns)
            if left == 0:
                return
        pa.default_memory_pool().release_unused()  # Polars has an allocator of its own

    return source


def _parquet_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file that was checked, with the columns of a schema.

    Raises:
        DataError: it is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=schema.names):
                yield _sound(path, batch, schema)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _sound(path: Path, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch of exactly this schema that Polars can trust: wrong offsets or names would end the process there.

    Raises:
        DataError: it is damaged.
    """
    try:
        batch.validate(full=True)
        columns = [batch[field.name].cast(field.type) for field in schema]
    except pa.ArrowException as error:
        raise _damaged(path, error) from None
    for field, column in zip(schema, columns, strict=True):
        if field.type == _MOMENT:
            limits = pc.min_max(column.cast(pa.int64()))
            if limits["min"].is_valid and not (
                EARLIEST.timestamp() * 1e6 <= limits["min"].as_py() and limits["max"].as_py() < LATEST.timestamp() * 1e6
            ):
                raise _damaged(path, f"{field.name} out of the years {EARLIEST.year} to {LATEST.year - 1}")
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _refuse_unless_torn(path: Path, file: pa.NativeFile, size_bytes: int, told: Exception | str) -> bool:
    """Pass where reading a segment stopped at its very end: its writer was killed, or is writing.

    Returns:
        Whether zeros follow: a machine that lost its power leaves them where it had not written yet.

    Raises:
        DataError: it stopped before.
    """
    with _at_rest():
        now_bytes = path.stat().st_size  # shorter where a living writer took back what did not fit on the disk
    left_bytes = min(size_bytes, now_bytes) - file.tell()
    if left_bytes > 0 and file.read(left_bytes).strip(b"\0"):
        raise _damaged(path, told) from None
    return left_bytes > 0


def _damaged(path: Path, told: Exception | str) -> DataError:
    return DataError(f"{path}: damaged: {_first_line(told)}. Remove it or bring it back from a copy.")


def _check(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    version = (found.metadata or {}).get(VERSION_KEY, b"1").decode(errors="replace")
    if not version.isdecimal() or int(version) > VERSION:
        advice = "It was written by a newer version of this program: read it with that one."
        raise DataError(describe(f"{path}: log version", verbatim(version), f"at most {VERSION}", advice))
    try:
        for field in wanted:
            place = found.get_field_index(field.name)
            got = "nothing" if place < 0 else _plain(found.types[place])
            if got != field.type:
                raise DataError(describe(f"{path}: column {field.name}", verbatim(str(got)), f"{field.type}"))
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from None


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that `EXPOSURES` and `EVENTS` use for the same values."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_timestamp(kind) and kind.tz == "+00:00":
        return pa.timestamp(kind.unit, "UTC")
    return kind


def _first_line(told: Exception | str) -> str:
    return str(told).partition("\n")[0].rstrip(".")
