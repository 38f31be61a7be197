"""Files read as numbered rows: shards of Parquet or CSV, and other separated text, in pieces of bounded size."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import DataError, describe, unknown, verbatim
from recsys.sources import Rejects
from recsys.types import Bool, Int64

SUFFIXES = (".parquet", ".csv", ".csv.gz")
PIECE_ROWS = 65_536
PIECE_LINES = 16_384
LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file, as they stand there.

    Attributes:
        rows: the columns asked for; text files give strings, empty cells as null.
        file: the name to show for the file.
        numbers: `[rows]`, int64, 1-based line of a text file (its header counts) or row of a Parquet file.
    """

    rows: pa.RecordBatch
    file: str
    numbers: Int64

    def place(self, row: int) -> str:
        """Return `file:line` of one row."""
        return f"{self.file}:{self.numbers[row]}"


@dataclass(frozen=True)
class Shards:
    """One table in one or more Parquet or CSV files with the same columns.

    Attributes:
        files: in the order of their names.
        names: the columns, which every file has.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(path: str, where: str, required: Iterable[str]) -> Shards:
        """Return the file at a path, or the Parquet or CSV files of the folder there.

        Args:
            path: as the user wrote it; in a folder, names that begin with `.` or `_` are passed over.
            where: the setting that holds it, for messages.
            required: columns that must be there.

        Raises:
            DataError: nothing is there, no file has a row, a file cannot be read, a column is missing (the nearest is
                named), or the shards' formats or columns differ.
        """
        files = _find(path, where)
        schema = _schema(files[0])
        for file in files[1:]:
            _check_alike(_schema(file), schema, file, files[0])
        for name in required:
            if name not in schema.names:
                raise DataError(f"{path}: {unknown('column', name, schema.names)}")
        if not any(_has_rows(file) for file in files):
            raise DataError(describe(where, verbatim(f"no row in {path}"), "at least one", "Is it the right file?"))
        return Shards(tuple(files), tuple(schema.names))

    def pieces(self, names: Sequence[str], rejects: Rejects) -> Iterator[Piece]:
        """Yield the given columns of all files, piece by piece; malformed lines are counted in `rejects`."""
        for file in self.files:
            if _suffix(file) == ".parquet":
                yield from _parquet(file, names)
            else:
                yield from separated(lambda file=file: opened(file), str(file), rejects, names=names)


def separated(
    opened: Callable[[], TextIO],
    file: str,
    rejects: Rejects,
    *,
    names: Sequence[str],
    header: Sequence[str] | None = None,
    separator: str = ",",
) -> Iterator[Piece]:
    """Yield the columns of a text file as strings; empty cells are null, blank lines are no rows.

    Args:
        opened: opens the text; bytes that are not UTF-8 come as surrogates.
        file: the name to show for it.
        rejects: where lines with a wrong number of fields or not in UTF-8 are counted.
        names: the columns wanted.
        header: the columns' names; None means that the first line holds them.
        separator: between fields; one character follows CSV's quoting rules, longer ones know no quotes.

    Raises:
        DataError: the text cannot be read as CSV at all, such as after a quote that is never closed.
    """
    with opened() as stream:
        rows, first_line = _fields(stream, separator), 1
        if header is None:
            (header,), _ = next(_numbered(rows, file, 1, count=1))
            first_line += 1
        places = [list(header).index(name) for name in names]
        for lines, numbers in _numbered(rows, file, first_line):
            sizes = np.fromiter(map(len, lines), np.int64, len(lines))
            if (sizes != len(header)).any():
                short = np.flatnonzero((sizes != len(header)) & (sizes > 0))
                found = (f"{file}:{numbers[row]}: {sizes[row]} instead of {len(header)}" for row in short)
                rejects.add_all("wrong number of fields", len(short), found)
                lines, numbers = _chosen(lines, numbers, sizes == len(header))
            try:
                yield _piece(lines, numbers, names, places, file)
            except UnicodeEncodeError:
                readable = np.array([_is_utf8(fields) for fields in lines])
                found = (f"{file}:{numbers[row]}" for row in np.flatnonzero(~readable))
                rejects.add_all("not UTF-8", int((~readable).sum()), found)
                yield _piece(*_chosen(lines, numbers, readable), names, places, file)


def text(stream: io.BufferedIOBase, encoding: str) -> TextIO:
    """Return a byte stream as text for `separated`."""
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")


def _piece(lines: list[list[str]], numbers: Int64, names: Sequence[str], places: list[int], file: str) -> Piece:
    columns = list(zip(*lines, strict=True))
    arrays = [pa.array(columns[place] if columns else (), pa.string()) for place in places]
    arrays = [pc.replace_with_mask(array, pc.equal(array, ""), pa.scalar(None, pa.string())) for array in arrays]
    return Piece(pa.RecordBatch.from_arrays(arrays, names=list(names)), file, numbers)


def _chosen(lines: list[list[str]], numbers: Int64, mask: Bool) -> tuple[list[list[str]], Int64]:
    return [lines[row] for row in np.flatnonzero(mask)], numbers[mask]


@contextmanager
def opened(file: Path) -> Iterator[TextIO]:
    """Open a text file, packed by gzip or not; bytes that are not UTF-8 come as surrogates."""
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        yield stream


def _fields(stream: TextIO, separator: str) -> Iterator[list[str]]:
    """Return an iterator over rows; a blank line is a row without fields."""
    if len(separator) == 1:
        return csv.reader(stream, delimiter=separator)
    return (line.split(separator) if line else [] for line in (line.rstrip("\r\n") for line in stream))


def _numbered(
    rows: Iterator[list[str]], file: str, line: int, count: int = PIECE_LINES
) -> Iterator[tuple[list[list[str]], Int64]]:
    """Yield up to `count` rows at a time with the line that each begins at; `line` is that of the first."""
    try:
        while lines := list(islice(rows, count)):
            numbers = np.arange(line, line + len(lines))
            if getattr(rows, "line_num", numbers[-1]) != numbers[-1]:
                breaks = [sum(len(LINE_BREAK.findall(field)) for field in fields) for fields in lines]
                numbers[1:] += np.cumsum(breaks)[:-1]
                line += sum(breaks)
            line += len(lines)
            yield lines, numbers
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        advice = "Is a quote never closed, or the file cut off?"
        where = f"{file}:{getattr(rows, 'line_num', line)}"
        raise DataError(describe(where, verbatim(str(error)), "CSV", advice)) from None


def _is_utf8(fields: list[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(file: Path, names: Sequence[str]) -> Iterator[Piece]:
    first = 1
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(PIECE_ROWS, columns=list(names)):
                yield Piece(batch.select(list(names)), str(file), np.arange(first, first + batch.num_rows))
                first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(describe(f"{file}:{first}", verbatim(str(error)), "a whole Parquet file")) from None


def _schema(file: Path) -> pa.Schema:
    if file.stat().st_size == 0:
        raise DataError(describe(str(file), verbatim("an empty file"), "columns and rows"))
    if _suffix(file) == ".parquet":
        try:
            schema = pq.read_schema(file).remove_metadata()
        except pa.ArrowInvalid as error:
            raise DataError(describe(str(file), verbatim(str(error)), "a Parquet file")) from None
    else:
        with opened(file) as stream:
            (names,), _ = next(_numbered(_fields(stream, ","), str(file), 1, count=1), ([[]], None))
        schema = pa.schema([(name, pa.string()) for name in names])
    doubled = {name for name in schema.names if schema.names.count(name) > 1}
    if doubled or not schema.names:
        raise DataError(describe(str(file), sorted(doubled), "named columns, each name once"))
    return schema


def _find(path: str, where: str) -> list[Path]:
    root = Path(path)
    if not root.exists():
        advice = f"Relative paths start at {Path.cwd()}."
        raise DataError(describe(where, path, "an existing file or folder", advice))
    if not root.is_dir():
        if not _suffix(root):
            raise DataError(describe(where, path, f"a file that ends in one of {', '.join(SUFFIXES)}"))
        return [root]
    found = sorted(file for file in root.iterdir() if _suffix(file) and not file.name.startswith((".", "_")))
    if not found:
        raise DataError(describe(where, path, f"a folder with {', '.join(SUFFIXES)} files"))
    if len({_suffix(file) == ".parquet" for file in found}) > 1:
        raise DataError(describe(where, path, "shards of one format", "Keep Parquet and CSV in folders of their own."))
    return found


def _check_alike(schema: pa.Schema, first: pa.Schema, file: Path, first_file: Path) -> None:
    if not schema.equals(first):
        ours, theirs = (set(zip(each.names, map(str, each.types), strict=True)) for each in (schema, first))
        differing = ", ".join(f"{name} ({kind})" for name, kind in sorted(ours ^ theirs)) or "another order"
        expected = f"the columns and types of {first_file}"
        raise DataError(describe(str(file), verbatim(differing), expected, "Write all shards alike."))


def _has_rows(file: Path) -> bool:
    if _suffix(file) == ".parquet":
        return pq.read_metadata(file).num_rows > 0
    with opened(file) as stream:
        blocks = _numbered(_fields(stream, ","), str(file), 1)
        return len(list(islice((fields for lines, _ in blocks for fields in lines if fields), 2))) == 2


def _suffix(file: Path) -> str:
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), "")
