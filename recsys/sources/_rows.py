"""Raw columns become ids, times and weights; rows where that fails are set aside, each for its first reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys import spelling
from recsys.errors import DataError
from recsys.ids import id_texts
from recsys.sources import TIMESTAMP, WEIGHT, Rejects
from recsys.sources._files import Piece, plain_type
from recsys.types import Bool
from twintower.errors import describe, verbatim

TIME = pa.timestamp("us", "UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MIN_WEIGHT, MAX_WEIGHT = 1e-30, 1e30
"""Of an interaction: products of weights and losses, added up over a batch, are float32 numbers."""
DAY_US = timedelta(days=1) // MICROSECOND
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
YEAR_1971_US = (datetime(1971, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
UNIT_ENDS = (1e11, 1e14, 1e17)
"""Numbers up to the first end, in absolute value, are seconds since 1970, up to the second milliseconds, and so on."""
LONG_NUMBER = r"^\s*[+-]?0*[1-9]\d{15,}\s*$"
"""Digits that may be more than float64 holds: all whole numbers of up to fifteen it holds."""
DATES_AS_NUMBERS = "numbers that spell a date, but count as time since 1970"


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
        rejects: where broken rows are counted, and those whose time looks wrong.
        shapes: how other text columns are read.
    """
    odd_times = _OddTimes()
    for piece in pieces:
        sieve = _Sieve(piece, rejects)
        found = {}
        for role, column in roles.items():
            raw = piece.rows[column]
            found[role], reason = _role(role, raw, f"{piece.file}: {column}")
            sieve.require(found[role], reason, raw)
            if role == TIMESTAMP:
                for suspicion, rows in odd_times.of(_plain(raw), found[role]):
                    sieve.suspect(rows, suspicion, raw)
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


def timestamps(values: pa.Array, where: str) -> pa.Array:
    """Return times as timestamp[us] in UTC, null where unreadable or not in the years 1 to 9999.

    Times without a zone count as UTC.

    Args:
        values: timestamps, dates, ISO 8601 strings, or numbers (also as strings): seconds since 1970 up to 1e11 in
            absolute value, beyond that milliseconds, from 1e14 on microseconds, from 1e17 on nanoseconds.
        where: the file and column, for messages.

    Raises:
        DataError: another type.
    """
    values = _plain(values)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found = _temporal(values)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found = _since_epoch(values)
    elif pa.types.is_string(kind):
        found = _read_times(values)
    elif pa.types.is_null(kind):
        found = values.cast(TIME)
    else:
        raise DataError(describe(where, verbatim(str(kind)), "timestamps, dates, numbers or ISO 8601 strings"))
    instants = found.cast(pa.int64())
    usable = pc.and_(pc.greater_equal(instants, FIRST_US), pc.less_equal(instants, LAST_US))
    return pc.if_else(pc.fill_null(usable, False), found, pa.scalar(None, TIME))


def weights(values: pa.Array, where: str) -> pa.Array:
    """Return weights as float32, null where they are missing or not between `MIN_WEIGHT` and `MAX_WEIGHT`.

    Raises:
        DataError: neither numbers nor strings.
    """
    values = _plain(values)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    elif pa.types.is_string(values.type):
        values = _numbers(values)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
        raise DataError(describe(where, verbatim(str(values.type)), "numbers"))
    numbers = values.cast(pa.float32(), safe=False)
    smallest, largest = (pa.scalar(bound, pa.float32()) for bound in (MIN_WEIGHT, MAX_WEIGHT))
    usable = pc.and_(pc.greater_equal(numbers, smallest), pc.less_equal(numbers, largest))
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
        places = (f"{self._piece.place(row)}: {_shown(shown, row)}" for row in broken)
        self._rejects.add_all(reason, len(broken), places)
        self.kept &= whole

    def suspect(self, odd: Bool, reason: str, shown: pa.Array) -> None:
        """Count whole rows that are odd, and keep them."""
        rows = np.flatnonzero(self.kept & odd)
        places = (f"{self._piece.place(row)}: {_shown(shown, row)}" for row in rows)
        self._rejects.suspects.add_all(reason, len(rows), places)

    def kept_rows(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Return the whole rows of the given columns."""
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        return batch if self.kept.all() else batch.filter(pa.array(self.kept))


def _shown(values: pa.Array, row: int) -> str:
    """Return one value for a message."""
    try:
        value = values[row].as_py()
    except (ValueError, OverflowError):  # a time beyond Python's years
        value = values.slice(row, 1).cast(pa.string())[0].as_py()
    return repr(value) if value is None or isinstance(value, str) else str(value)


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
        return weights(raw, where), f"weight not a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
    return id_texts(raw, where), f"{role} missing"


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
                _refuse_inexact(raw, f"{piece.file}: {name}")
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
    return spelling.cast(values, plain_type(values.type))


def _numbers(strings: pa.Array) -> pa.Array:
    """Return text as float64, null where it is no number."""
    return pl.from_arrow(strings).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False).to_arrow()


def _refuse_inexact(strings: pa.Array, path: str) -> None:
    """Refuse digits of a whole number that float64 does not hold.

    Raises:
        DataError: names the column and the number.
    """
    long = strings.filter(pc.fill_null(pc.match_substring_regex(strings, LONG_NUMBER), False))
    for text in long.to_pylist():
        if Decimal(text.strip()) != float(text):
            advice = "Leave the column out of numeric_columns, or store it as int64 in Parquet."
            raise DataError(describe(path, verbatim(text.strip()), "numbers that float64 holds exactly", advice))


def _temporal(values: pa.Array) -> pa.Array:
    """Return times and dates as timestamp[us] in UTC, null where that type has no room for them."""
    kind = values.type
    if pa.types.is_date(kind):
        unit_us, ticks = (DAY_US, values.cast(pa.int32())) if pa.types.is_date32(kind) else (1000, values)
    else:
        unit_us, ticks = {"s": 1_000_000, "ms": 1000, "us": 1, "ns": 1}[kind.unit], values
    numbers = pc.fill_null(ticks.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    numbers = numbers // 1000 if kind == pa.timestamp("ns", getattr(kind, "tz", None)) else numbers
    fits = np.abs(numbers) <= LAST_US // unit_us
    known = values.is_valid().to_numpy(zero_copy_only=False)
    return pa.array(np.where(fits, numbers, 0) * unit_us, mask=~(fits & known)).cast(TIME)


def _unit(size: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which of `UNITS` numbers of this absolute value are in."""
    return np.digitize(size, UNIT_ENDS, right=True)


def _since_epoch(values: pa.Array) -> pa.Array:
    """Return numbers as timestamp[us] in UTC; whole ones exactly, with nanoseconds rounded down as `_temporal` does."""
    known = values.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    size = np.abs(numbers.astype(np.float64))
    readable = known & (size < 2.0**63)
    unit, numbers = _unit(size), np.where(readable, numbers, 0)
    if pa.types.is_integer(values.type):
        whole = numbers.astype(np.int64) * np.array([10**6, 10**3, 1, 1])[unit] // np.array([1, 1, 1, 1000])[unit]
    else:
        whole = np.round(numbers * np.array([1e6, 1e3, 1.0, 1e-3])[unit]).astype(np.int64)
    return pa.array(whole, mask=~readable).cast(TIME)


def _read_times(strings: pa.Array) -> pa.Array:
    for kind in (pa.timestamp("us"), TIME):
        try:
            return strings.cast(kind).cast(TIME)
        except pa.ArrowInvalid:
            continue
    numbers = _numbers(strings)
    texts = pc.if_else(numbers.is_valid(), pa.scalar(None, pa.string()), strings).dictionary_encode()
    dated = pa.array([_instant_us(text) for text in texts.dictionary.to_pylist()], pa.int64())
    whole = pl.from_arrow(strings).cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False).to_arrow()
    return pc.coalesce(_since_epoch(whole), _since_epoch(numbers), dated.cast(TIME).take(texts.indices))


def _instant_us(text: str) -> int | None:
    """Return the microseconds since 1970 of an ISO 8601 text; None where it is none."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


class _OddTimes:
    """Times of one column that were read, but hardly are what was meant."""

    def __init__(self) -> None:
        self._unit: int | None = None
        self._latest_us = (datetime.now(UTC) - EPOCH) // MICROSECOND + DAY_US

    def of(self, raw: pa.Array, times: pa.Array) -> Iterator[tuple[str, Bool]]:
        """Yield what is odd, and a mask of the rows where it is; each row has at most one oddity.

        Args:
            raw: the column as found.
            times: the same as timestamps.
        """
        known = times.is_valid().to_numpy(zero_copy_only=False)
        instants = pc.fill_null(times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        numbers = _raw_numbers(raw)
        spelled = known & _spell_dates(numbers)
        yield DATES_AS_NUMBERS, spelled
        early = known & ~spelled & (instants < YEAR_1971_US)
        yield "before 1971", early
        late = known & ~spelled & (instants > self._latest_us)
        yield "in the future", late
        plain = known & ~np.isnan(numbers) & ~(spelled | early | late)
        units = _unit(np.abs(numbers))
        if self._unit is None and plain.any():
            self._unit = int(units[plain][0])
        if self._unit is not None:
            yield f"not in {UNITS[self._unit]}, as the first number of the column", plain & (units != self._unit)


def _raw_numbers(raw: pa.Array) -> NDArray[np.float64]:
    """Return a column of times as the numbers that it holds, NaN where it holds something else."""
    numbers = _numbers(raw) if pa.types.is_string(raw.type) else raw
    if not (pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)):
        return np.full(len(raw), np.nan)
    return pc.fill_null(numbers.cast(pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False)


def _spell_dates(numbers: NDArray[np.float64]) -> Bool:
    """Mark numbers whose digits are those of a date: 20260131, 202601312359 or 20260131235959."""
    found = np.zeros(len(numbers), bool)
    for below in (1.0, 1e4, 1e6):
        day = np.floor(numbers / below)
        year, month, day_of_month = np.floor(day / 1e4), np.floor(day / 100) % 100, day % 100
        is_date = (year >= 1900) & (year < 2200) & (month >= 1) & (month <= 12) & (day_of_month >= 1)
        found |= is_date & (day_of_month <= 31) & (numbers % 1 == 0)
    return found
