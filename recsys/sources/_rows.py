"""Raw columns become ids, times and weights; rows where that fails are set aside, each for its first reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import DataError, describe, verbatim
from recsys.sources import TIMESTAMP, WEIGHT, Rejects
from recsys.sources._files import Piece
from recsys.types import Bool

TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Shapes:
    """How the cells of text columns are read.

    Attributes:
        list_columns: columns whose text is split into a list of strings.
        list_separator: what stands between the parts.
        numeric_columns: columns whose text is a number.
    """

    list_columns: tuple[str, ...] = ()
    list_separator: str = "|"
    numeric_columns: tuple[str, ...] = ()


def interactions(
    pieces: Iterable[Piece], roles: Mapping[str, str], rejects: Rejects, shapes: Shapes | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield record batches in the form of `RawData.interactions`.

    Args:
        pieces: rows as found.
        roles: column as found, by its role: `item_id` and any of `query_id`, `timestamp` and `weight`. Other columns of
            the pieces stay as they are.
        rejects: where broken rows are counted.
        shapes: how other text columns are read.
    """
    for piece in pieces:
        sieve = _Sieve(piece, rejects)
        found = {}
        for role, column in roles.items():
            raw = piece.rows[column]
            found[role], reason = _role(role, raw, f"{piece.file}: {column}")
            sieve.require(found[role], reason, raw)
        others = _others(piece, set(roles.values()), sieve, shapes or Shapes())
        _refuse_clash(others, roles, piece.file)
        yield sieve.kept_rows({**found, **others})


def entities(
    pieces: Iterable[Piece], id_column: str, id_name: str, rejects: Rejects, shapes: Shapes | None = None
) -> pa.Table:
    """Return one row an entity in the form of `RawData.items` and `RawData.queries`.

    Args:
        pieces: rows as found, at least one piece.
        id_column: the column with the ids; it comes first in the result.
        id_name: the name it gets, `item_id` or `query_id`.
        rejects: where rows without an id and all but the first row of an id are counted.
        shapes: how other text columns are read.
    """
    batches = []
    seen: set[str] = set()
    for piece in pieces:
        sieve = _Sieve(piece, rejects)
        raw = piece.rows[id_column]
        found, reason = _role(id_name, raw, f"{piece.file}: {id_column}")
        sieve.require(found, reason, raw)
        others = _others(piece, {id_column}, sieve, shapes or Shapes())
        _refuse_clash(others, {id_name: id_column}, piece.file)
        sieve.require(_first_of(found.to_pylist(), sieve.kept, seen), f"{id_name} given twice", raw)
        batches.append(sieve.kept_rows({id_name: found, **others}))
    return pa.Table.from_batches(batches)


def ids(values: pa.Array, where: str) -> pa.Array:
    """Return ids as strings, null where there is none.

    Args:
        values: integers, strings, or floats that are whole numbers (as pandas leaves integers beside gaps).
        where: the file and column, for messages.

    Raises:
        DataError: another type, or floats with fractions.
    """
    values = _plain(values)
    if pa.types.is_floating(values.type):
        values = pc.replace_with_mask(values, pc.fill_null(pc.is_nan(values), False), pa.scalar(None, values.type))
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(describe(where, verbatim(str(error)), "integer or string ids")) from None
    if not (pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_null(values.type)):
        raise DataError(describe(where, verbatim(str(values.type)), "integer or string ids"))
    strings = values.cast(pa.string())
    return pc.replace_with_mask(strings, pc.fill_null(pc.equal(strings, ""), False), pa.scalar(None, pa.string()))


def timestamps(values: pa.Array, where: str) -> pa.Array:
    """Return times as timestamp[us] in UTC, null where unreadable; times without a zone count as UTC.

    Args:
        values: timestamps, dates, ISO 8601 strings, or numbers (also as strings): seconds since 1970 up to 1e11 in
            absolute value, beyond that milliseconds, from 1e14 on microseconds, from 1e17 on nanoseconds.
        where: the file and column, for messages.

    Raises:
        DataError: another type.
    """
    values = _plain(values)
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return values.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False).cast(TIME)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _since_epoch(values)
    if pa.types.is_string(kind):
        return _read_times(values)
    if pa.types.is_null(kind):
        return values.cast(TIME)
    raise DataError(describe(where, verbatim(str(kind)), "timestamps, dates, numbers or ISO 8601 strings"))


def weights(values: pa.Array, where: str) -> pa.Array:
    """Return weights as float32, null where they are missing, not finite or not positive.

    Raises:
        DataError: neither numbers nor strings.
    """
    values = _plain(values)
    if pa.types.is_string(values.type):
        values = _numbers(values)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
        raise DataError(describe(where, verbatim(str(values.type)), "numbers"))
    numbers = values.cast(pa.float32(), safe=False)
    usable = pc.and_(pc.is_finite(numbers), pc.greater(numbers, 0))
    return pc.if_else(pc.fill_null(usable, False), numbers, pa.scalar(None, pa.float32()))


class _Sieve:
    """Which rows of a piece are still whole."""

    def __init__(self, piece: Piece, rejects: Rejects) -> None:
        self.kept: Bool = np.ones(piece.rows.num_rows, bool)
        self._piece = piece
        self._rejects = rejects

    def require(self, valid: pa.Array | Bool, reason: str, shown: pa.Array) -> None:
        """Set aside the rows that are null in `valid` (or false, for a mask)."""
        whole = valid if isinstance(valid, np.ndarray) else valid.is_valid().to_numpy(zero_copy_only=False)
        broken = np.flatnonzero(self.kept & ~whole)
        places = (f"{self._piece.place(row)}: {shown[row].as_py()!r}" for row in broken)
        self._rejects.add_all(reason, len(broken), places)
        self.kept &= whole

    def kept_rows(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Return the whole rows of the given columns."""
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        return batch if self.kept.all() else batch.filter(pa.array(self.kept))


def _first_of(values: list[str | None], kept: Bool, seen: set[str]) -> Bool:
    """Mark the kept rows whose value was not seen before, and remember their values."""
    first = np.zeros(len(values), bool)
    for row in np.flatnonzero(kept):
        if values[row] not in seen:
            seen.add(values[row])
            first[row] = True
    return first


def _role(role: str, raw: pa.Array, where: str) -> tuple[pa.Array, str]:
    if role == TIMESTAMP:
        return timestamps(raw, where), "timestamp missing or unreadable"
    if role == WEIGHT:
        return weights(raw, where), "weight not a positive number"
    return ids(raw, where), f"{role} missing"


def _others(piece: Piece, taken: set[str], sieve: _Sieve, shapes: Shapes) -> dict[str, pa.Array]:
    found = {}
    for name in piece.rows.schema.names:
        if name in taken:
            continue
        raw = values = _plain(piece.rows[name])
        if pa.types.is_string(raw.type):
            if name in shapes.list_columns:
                values = pc.split_pattern(raw, shapes.list_separator)
            elif name in shapes.numeric_columns:
                values = _numbers(raw)
                readable = pc.or_(values.is_valid(), raw.is_null()).to_numpy(zero_copy_only=False)
                sieve.require(readable, f"{name} not a number", raw)
        found[name] = values
    return found


def _refuse_clash(others: Mapping[str, pa.Array], roles: Mapping[str, str], file: str) -> None:
    for role, column in roles.items():
        if role in others:
            advice = f"That name is needed for {column!r}; rename the other column."
            raise DataError(
                describe(file, verbatim(f"a column named {role!r} beside {column!r}"), "one of them", advice)
            )


def _plain(values: pa.Array) -> pa.Array:
    kind = _plain_type(values.type)
    return values if kind.equals(values.type) else values.cast(kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    return kind


def _numbers(strings: pa.Array) -> pa.Array:
    """Return text as float64, null where it is no number."""
    return pl.from_arrow(strings).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False).to_arrow()


def _since_epoch(values: pa.Array) -> pa.Array:
    numbers = pc.fill_null(values.cast(pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False)
    size = np.abs(numbers)
    scale = np.select([size <= 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
    readable = np.isfinite(numbers)
    whole = np.where(readable, np.round(np.where(readable, numbers, 0) * scale), 0).astype(np.int64)
    return pa.array(whole, mask=~readable).cast(TIME)


def _read_times(strings: pa.Array) -> pa.Array:
    for kind in (pa.timestamp("us"), TIME):
        try:
            return strings.cast(kind).cast(TIME)
        except pa.ArrowInvalid:
            continue
    numbers = _numbers(strings)
    texts = pc.if_else(numbers.is_valid(), pa.scalar(None, pa.string()), strings).dictionary_encode()
    dated = pa.array([_time(text) for text in texts.dictionary.to_pylist()], TIME).take(texts.indices)
    return pc.coalesce(_since_epoch(numbers), dated)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
