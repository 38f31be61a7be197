"""Files read as numbered rows: shards of Parquet or CSV, and other separated text, in pieces of bounded size."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys import spelling
from recsys.errors import DataError
from recsys.files import files_below
from recsys.sources import Rejects
from recsys.types import Bool, Int64
from twintower.errors import describe, unknown, verbatim

SUFFIXES = (".parquet", ".csv", ".csv.gz")
PIECE_ROWS = 65_536
PIECE_LINES = 16_384
MAX_CELL_LETTERS = 2**26
"""Of one CSV cell. A quote that is never closed makes one cell of all that follows, so that there must be an end."""
LINE_BREAK = re.compile(r"\r\n|\r|\n")
OTHER_SEPARATORS = "\t;|"
"""Where the only name of a column holds one of them, it separates the columns instead of the comma."""
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What Hive calls the folder of the rows without a value."""
TABLE_LOGS = ("_delta_log", ".hoodie")
"""Folders beside which Parquet files may hold deleted rows: only the table's own reader knows which."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encoding by the bytes that a text begins with; UTF-32 first, because it begins as UTF-16 does."""
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
}
"""What a file that is no text begins with."""
UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile)
"""What reading raises where a compressed file is cut off or is none; BadGzipFile is an OSError."""


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
class Encoding:
    """How text files are decoded.

    Attributes:
        name: of the codec, for files that do not begin with a byte order mark, which counts more.
        setting: the setting that holds it, for messages; empty where there is none.
    """

    name: str = "utf-8"
    setting: str = ""

    @property
    def advice(self) -> str:
        """What to do where bytes cannot be decoded, a sentence."""
        return f"Set {self.setting}, such as 'latin-1' or 'cp1252', or store the file as UTF-8." if self.setting else ""

    @contextmanager
    def opened(self, file: Path) -> Iterator[TextIO]:
        """Open a text file, compressed by gzip or not; bytes that cannot be decoded come as surrogates.

        Raises:
            DataError: it is cut off, or another format.
        """
        compressed = _suffix(file).endswith(".gz")
        try:
            with gzip.open(file) if compressed else file.open("rb") as stream:
                head = stream.read(8)
        except UNREADABLE as error:
            raise DataError(describe(str(file), verbatim(str(error)), "a whole file")) from None
        for mark, kind in OTHER_FORMATS.items():
            if head.startswith(mark):
                raise DataError(describe(str(file), verbatim(kind), "CSV text, as its name says"))
        marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
        with gzip.open(file) if compressed else file.open("rb") as stream:
            yield text(stream, marked or self.name)


UTF_8 = Encoding()


@dataclass(frozen=True)
class Shard:
    """One file of a table.

    Attributes:
        file: its path.
        schema: its columns.
        partition: what the folders' names say of its rows (Hive: `day=2/`): text or None by column.
    """

    file: Path
    schema: pa.Schema
    partition: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Shards:
    """One table in one or more Parquet or CSV files with the same columns.

    Attributes:
        shards: in the order of their paths.
        schema: the columns, which every file has or its folder names; of columns that had to be there, the type may
            differ from file to file and is that of the first one.
        free: those columns.
        encoding: of CSV files.
    """

    shards: tuple[Shard, ...]
    schema: pa.Schema
    free: frozenset[str]
    encoding: Encoding = UTF_8

    @staticmethod
    def of(path: str, where: str, required: Iterable[str], encoding: Encoding = UTF_8) -> Shards:
        """Return the file at a path, or all Parquet or all CSV files below the folder there.

        Folders named `column=value` (Hive partitions) give a column of text, null for files outside of them. Where the
        files have that column, too, theirs counts, and must agree with the folder's name.

        Args:
            path: as the user wrote it; in a folder, names that begin with `.` or `_` are passed over, every other file
                must be a shard.
            where: the setting that holds it, for messages.
            required: columns that must be there. Their values are brought to one type row by row, so that shards may
                differ in it; those of other columns must have a type that holds the values of all shards.
            encoding: of CSV files.

        Raises:
            DataError: nothing is there, no file has a row, a file cannot be read, a column is missing (the nearest is
                named), or the shards' formats or columns differ.
        """
        free = frozenset(required)
        shards = _with_partitions(
            [Shard(file, _schema(file, encoding), partition) for file, partition in _find(path, where).items()]
        )
        schema = _common_schema(shards, free)
        for name in required:
            if name not in schema.names:
                advice = _separator_advice(schema.names)
                raise DataError(f"{path}: {unknown('column', name, schema.names)}{advice}")
        if not any(_has_rows(shard.file, encoding) for shard in shards):
            raise DataError(describe(where, verbatim(f"no row in {path}"), "at least one", "Is it the right file?"))
        return Shards(tuple(shards), schema, free, encoding)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return self.schema.names

    def pieces(self, names: Sequence[str], rejects: Rejects) -> Iterator[Piece]:
        """Yield the given columns of all files, piece by piece; malformed lines are counted in `rejects`.

        Raises:
            DataError: a file is damaged, a value does not fit the type that all shards share, or a column says
                something else than the name of its folder.
        """
        for shard in self.shards:
            found = [name for name in names if name in shard.schema.names]
            if _suffix(shard.file) == ".parquet":
                pieces = _parquet(shard.file, found)
            else:
                opened = lambda shard=shard: self.encoding.opened(shard.file)  # noqa: E731
                pieces = separated(opened, str(shard.file), rejects, names=found, encoding=self.encoding)
            for piece in pieces:
                columns = [self._column(name, piece, shard) for name in names]
                yield Piece(pa.RecordBatch.from_arrays(columns, names=list(names)), piece.file, piece.numbers)

    def _column(self, name: str, piece: Piece, shard: Shard) -> pa.Array:
        if name not in shard.schema.names:
            return pa.repeat(pa.scalar(shard.partition[name], pa.string()), len(piece.numbers))
        values = piece.rows[name]
        if name in shard.partition:
            _check_partition(values, shard.partition[name], f"{piece.file}: {name}")
        kind = self.schema.field(name).type
        if name in self.free or values.type.equals(kind):
            return values
        try:
            return spelling.cast(values, kind)
        except pa.ArrowInvalid as error:
            rule, advice = f"values that fit {kind}, as other shards need", "Write all shards with the same types."
            raise DataError(describe(f"{piece.file}: {name}", verbatim(str(error)), rule, advice)) from None


def separated(
    opened: Callable[[], TextIO],
    file: str,
    rejects: Rejects,
    *,
    names: Sequence[str],
    header: Sequence[str] | None = None,
    separator: str = ",",
    encoding: Encoding = UTF_8,
) -> Iterator[Piece]:
    """Yield the columns of a text file as strings; empty cells are null, blank lines are no rows.

    Args:
        opened: opens the text; bytes that cannot be decoded come as surrogates.
        file: the name to show for it.
        rejects: where lines are counted that have a wrong number of fields, quotes that cannot be read (every line that
            such a quote spans) or bytes that cannot be decoded.
        names: the columns wanted.
        header: the columns' names; None means that the first line holds them.
        separator: between fields; one character follows CSV's quoting rules, longer ones know no quotes.
        encoding: of the text, for messages.

    Raises:
        DataError: the text cannot be read at all: no header, a column is missing, or the file is cut off.
    """
    with opened() as stream:
        lines = _Lines(stream, separator, file, rejects)
        header = lines.header(encoding) if header is None else header
        for name in names:
            if name not in header:
                raise DataError(f"{file}: {unknown('column', name, header)}")
        places = [list(header).index(name) for name in names]
        for rows, numbers in lines.blocks():
            sizes = np.fromiter(map(len, rows), np.int64, len(rows))
            if (sizes != len(header)).any():
                short = np.flatnonzero((sizes != len(header)) & (sizes > 0))
                found = (f"{file}:{numbers[row]}: {sizes[row]} instead of {len(header)}" for row in short)
                rejects.add_all("wrong number of fields", len(short), found)
                rows, numbers = _chosen(rows, numbers, sizes == len(header))
            try:
                yield _piece(rows, numbers, names, places, file)
            except UnicodeEncodeError:
                readable = np.array([_is_decoded(fields) for fields in rows])
                reason = f"not {encoding.name.upper()}" + (f", see {encoding.setting}" if encoding.setting else "")
                found = (f"{file}:{numbers[row]}" for row in np.flatnonzero(~readable))
                rejects.add_all(reason, int((~readable).sum()), found)
                yield _piece(*_chosen(rows, numbers, readable), names, places, file)


def text(stream: io.BufferedIOBase, encoding: str) -> TextIO:
    """Return a byte stream as text for `separated`."""
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")


class _Lines:
    """The rows of a text with the line that each begins at; lines whose quotes cannot be read are counted.

    Args:
        stream: the text.
        separator: between fields.
        file: the name to show for it.
        rejects: where those lines are counted.
    """

    def __init__(self, stream: TextIO, separator: str, file: str, rejects: Rejects) -> None:
        self._rows = _fields(stream, separator)
        self._line = 1
        self._file, self._rejects = file, rejects

    def header(self, encoding: Encoding) -> list[str]:
        """Return the first row: names of columns.

        Raises:
            DataError: there is none, it cannot be decoded, or a name is missing or stands twice.
        """
        rows, failure = self._read(1)
        where = f"{self._file}:1"
        if failure is not None:
            raise DataError(describe(where, verbatim(str(failure)), "a line with the names of the columns"))
        names = rows[0] if rows else []
        if not _is_decoded(names):
            shown = ",".join(names).encode("utf-8", "surrogateescape")
            raise DataError(describe(where, shown, f"column names in {encoding.name.upper()}", encoding.advice))
        if any("\0" in name for name in names):
            advice = f"Is it UTF-16 without a byte order mark? Set {encoding.setting}." if encoding.setting else ""
            raise DataError(describe(where, ",".join(names), "column names without NUL letters", advice))
        _check_names(names, where)
        self._line = getattr(self._rows, "line_num", 1) + 1
        return names

    def blocks(self, count: int = PIECE_LINES) -> Iterator[tuple[list[list[str]], Int64]]:
        """Yield up to `count` rows at a time with the line that each begins at; a blank line is a row without fields.

        Raises:
            DataError: the file is cut off, or cannot be decoded.
        """
        while True:
            rows, failure = self._read(count)
            if rows or failure is not None:
                numbers = np.arange(self._line, self._line + len(rows))
                if rows and getattr(self._rows, "line_num", numbers[-1]) != numbers[-1]:
                    breaks = [sum(len(LINE_BREAK.findall(cell)) for cell in fields) for fields in rows]
                    numbers[1:] += np.cumsum(breaks)[:-1]
                    self._line += sum(breaks)
                self._line += len(rows)
                yield rows, numbers
            if failure is not None:
                broken = range(self._line, self._rows.line_num + 1)
                found = (f"{self._file}:{line}: {failure}" for line in broken)
                self._rejects.add_all("quotes that cannot be read", len(broken), found)
                self._line = self._rows.line_num + 1
            elif not rows:
                return

    def _read(self, count: int) -> tuple[list[list[str]], csv.Error | None]:
        """Return the next rows, and what stopped them where quotes cannot be read."""
        rows: list[list[str]] = []
        try:
            rows.extend(islice(self._rows, count))
        except csv.Error as error:
            return rows, error
        except (*UNREADABLE, UnicodeError) as error:
            where = f"{self._file}:{getattr(self._rows, 'line_num', self._line) + 1}"
            raise DataError(describe(where, verbatim(str(error)), "a whole text file, in one encoding")) from None
        return rows, None


def _fields(stream: TextIO, separator: str) -> Iterator[list[str]]:
    """Return an iterator over rows; a blank line is a row without fields."""
    if len(separator) == 1:
        csv.field_size_limit(MAX_CELL_LETTERS)
        return csv.reader(stream, delimiter=separator, strict=True)
    return (line.split(separator) if line else [] for line in (line.rstrip("\r\n") for line in stream))


def _piece(rows: list[list[str]], numbers: Int64, names: Sequence[str], places: list[int], file: str) -> Piece:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(columns[place] if columns else (), pa.string()) for place in places]
    arrays = [pc.replace_with_mask(array, pc.equal(array, ""), pa.scalar(None, pa.string())) for array in arrays]
    return Piece(pa.RecordBatch.from_arrays(arrays, names=list(names)), file, numbers)


def _chosen(rows: list[list[str]], numbers: Int64, mask: Bool) -> tuple[list[list[str]], Int64]:
    return [rows[row] for row in np.flatnonzero(mask)], numbers[mask]


def _is_decoded(fields: list[str]) -> bool:
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
                batch.validate(full=True)  # text that is not UTF-8 would be found by whatever looks at it first
                yield Piece(batch.select(list(names)), str(file), np.arange(first, first + batch.num_rows))
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(describe(f"{file}:{first}", verbatim(str(error)), "a whole Parquet file")) from None


def _schema(file: Path, encoding: Encoding) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        DataError: it is empty, damaged or something else, or its columns' names are.
    """
    if file.stat().st_size == 0:
        raise DataError(describe(str(file), verbatim("an empty file"), "columns and rows"))
    if _suffix(file) == ".parquet":
        try:
            schema = pq.read_schema(file).remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise DataError(describe(str(file), verbatim(str(error)), "a Parquet file")) from None
        _check_names(schema.names, str(file))
        return schema
    with encoding.opened(file) as stream:
        return pa.schema([(name, pa.string()) for name in _Lines(stream, ",", str(file), Rejects()).header(encoding)])


def _check_names(names: Sequence[str], where: str) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled or not names:
        raise DataError(describe(where, doubled, "named columns, each name once"))


def _separator_advice(names: Sequence[str]) -> str:
    """Return what to do where a required column is missing because another character separates the columns."""
    other = next((each for each in OTHER_SEPARATORS if len(names) == 1 and each in names[0]), None)
    return f" Separate columns by commas instead of {other!r}." if other else ""


def _has_rows(file: Path, encoding: Encoding) -> bool:
    if _suffix(file) == ".parquet":
        return pq.read_metadata(file).num_rows > 0
    with encoding.opened(file) as stream:
        lines = _Lines(stream, ",", str(file), Rejects())
        lines.header(encoding)
        return any(fields for rows, _ in lines.blocks(2) for fields in rows)


def _find(path: str, where: str) -> dict[Path, dict[str, str | None]]:
    """Return the files at or below a path, each with what its folders' names say.

    Raises:
        DataError: nothing is there, or something that is no shard.
    """
    root = Path(path)
    if not root.exists():
        advice = f"Relative paths start at {Path.cwd()}."
        raise DataError(describe(where, path, "an existing file or folder", advice))
    if not root.is_dir():
        if not _suffix(root) or not root.is_file():
            raise DataError(describe(where, path, f"a file that ends in one of {', '.join(SUFFIXES)}"))
        return {root: {}}
    found: dict[Path, Path] = {}
    try:
        for file in files_below(root):
            if not _suffix(file) or not file.is_file():
                rule = f"only {', '.join(SUFFIXES)} files, each once, in {path}"
                advice = "Move it elsewhere, or begin its name with '_', which is passed over."
                raise DataError(describe(where, str(file), rule, advice))
            if (same := found.setdefault(file.resolve(), file)) is not file:
                advice = "Its rows would count twice; remove the link."
                raise DataError(describe(where, str(file), f"a file of its own, not {same} again", advice))
    except OSError as error:
        raise DataError(describe(where, verbatim(f"{error.strerror}: {error.filename}"), "a readable folder")) from None
    files = list(found.values())
    if not files:
        raise DataError(describe(where, path, f"a folder with {', '.join(SUFFIXES)} files"))
    if len({_suffix(file) == ".parquet" for file in files}) > 1:
        one, other = (
            next(file.relative_to(root) for file in files if (_suffix(file) == ".parquet") is kind)
            for kind in (True, False)
        )
        advice = "Keep Parquet and CSV in folders of their own."
        raise DataError(describe(where, verbatim(f"{one} beside {other}"), "shards of one format", advice))
    for folder in {folder for file in files for folder in file.parents if folder.is_relative_to(root)}:
        for name in TABLE_LOGS:
            if (folder / name).exists():
                advice = "Its files may hold deleted rows: write the table to Parquet with its own reader."
                raise DataError(describe(where, str(folder / name), "plain files", advice))
    return {file: _partition(file.parent.relative_to(root), where) for file in files}


def _partition(folder: Path, where: str) -> dict[str, str | None]:
    """Return what the names of a folder and of those above it say (`day=2`, percent-encoded).

    Raises:
        DataError: two of them name the same column, or a name is not percent-encoded UTF-8.
    """
    found: dict[str, str | None] = {}
    for part in folder.parts:
        name, equals, value = part.partition("=")
        if name and equals:
            try:
                name, value = (unquote(each, errors="strict") for each in (name, value))
            except UnicodeDecodeError:
                raise DataError(describe(where, str(folder), "folder names in percent-encoded UTF-8")) from None
            if name in found:
                raise DataError(describe(where, str(folder), f"one folder for the column {name!r}"))
            found[name] = None if value == NO_PARTITION else value
    return found


def _with_partitions(shards: list[Shard]) -> list[Shard]:
    """Return the shards with every partition column of any of them, null where a file lies outside of its folders."""
    names = dict.fromkeys(name for shard in shards for name in shard.partition)
    return [
        Shard(
            shard.file,
            shard.schema,
            {
                name: shard.partition.get(name)
                for name in names
                if name in shard.partition or name not in shard.schema.names
            },
        )
        for shard in shards
    ]


def _check_partition(values: pa.Array, text: str | None, where: str) -> None:
    """Refuse values that are not what the name of their folder says.

    Raises:
        DataError: one is something else.
    """
    values = spelling.cast(values, plain_type(values.type))
    try:
        expected = pa.scalar(text, pa.string()).cast(values.type)
        wrong = values.is_valid() if text is None else pc.fill_null(pc.not_equal(values, expected), True)
    except pa.ArrowException:
        wrong = pa.repeat(True, len(values))
    if pc.any(wrong, min_count=0).as_py():
        got, rule = values[pc.index(wrong, True).as_py()].as_py(), f"{text!r}, as its folder is named"
        raise DataError(describe(where, got, rule, "Rename the column or the folder."))


def _common_schema(shards: list[Shard], free: frozenset[str]) -> pa.Schema:
    """Return the columns of all shards, with types that hold the values of each.

    Raises:
        DataError: a shard lacks a column that another has, or two have types without a common one.
    """
    first, common = shards[0].file, _full_schema(shards[0])
    for shard in shards[1:]:
        schema = _full_schema(shard)
        if differing := sorted(set(schema.names) ^ set(common.names)):
            raise DataError(describe(str(shard.file), differing, f"the columns of {first}", "Write all shards alike."))
        for place, name in enumerate(common.names):
            one, other = common.field(place), schema.field(name)
            if name in free or one.type.equals(other.type):
                continue
            try:
                merged = pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive")
            except pa.ArrowException:
                got, rule = f"{name} ({other.type})", f"the types of {first} ({one.type})"
                advice = "Write all shards with the same types."
                raise DataError(describe(str(shard.file), verbatim(got), rule, advice)) from None
            common = common.set(place, _wide_enough(merged.field(0), one, other))
    return common


def _wide_enough(merged: pa.Field, *fields: pa.Field) -> pa.Field:
    """Return Arrow's common field of two, with doubles where it has narrower floats for decimals."""
    if pa.types.is_floating(merged.type) and any(pa.types.is_decimal(field.type) for field in fields):
        return merged.with_type(pa.float64())
    return merged


def _full_schema(shard: Shard) -> pa.Schema:
    """Return the plain types of a shard's columns, those that its folders name at the end."""
    own = [pa.field(field.name, plain_type(field.type)) for field in shard.schema]
    return pa.schema([*own, *((name, pa.string()) for name in shard.partition if name not in shard.schema.names)])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that every column of the same values gets: text is string, lists are list, nothing is encoded."""
    kind = spelling.plain_type(kind)
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def _suffix(file: Path) -> str:
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), "")
