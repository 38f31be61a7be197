"""The one spelling of a value: the same whatever type carries it and whatever else is in its column, batch or file.

A column holds text or numbers, which its Arrow type decides. In a column of numbers, every value is a number: a truth
value is 1 or 0, a date or timestamp is seconds since 1970 (UTC; without a time zone it counts as UTC), a time of day is
seconds since midnight, a duration is seconds, and text that spells one of these counts as that number. In a column of
text, text stays as it is and other values are spelled out. Null and NaN are missing everywhere.

| value | in a column of numbers | in a column of text |
|---|---|---|
| `5`, `5.0`, `Decimal("5.00")` | `5` | `5` |
| `4006381333931.0`, `1e23` | `4006381333931`, `99999999999999991611392` | the same |
| `-0.0`, float32 `0.1`, `1e-5` | `0`, `0.1`, `0.00001` | the same |
| `"5.0"`, `"1e3"` | `5`, `1000` | `5.0`, `1e3` |
| `True` | `1` | `true` |
| `date(2026, 1, 1)`, midnight of that day | `1767225600` | `2026-01-01` |
| `datetime(2026, 1, 1, 12, 30, 0, 500000)` | `1767270600.5` | `2026-01-01 12:30:00.5` |
| `time(12, 30)` | `45000` | `12:30:00` |
| `timedelta(minutes=1.5)` | `90` | `90` |
| `UUID(int=1)` | | `00000000-0000-0000-0000-000000000001` |
| null, NaN | missing | missing |

Whole numbers are spelled exactly, fractions as the shortest decimal that their type reads back as the same number. The
numbers of a float32 or float16 column are compared at that precision, so that both `0.1` and the float64 that is
nearest to its float32 find the value.
"""

from __future__ import annotations

import datetime
import enum
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.types import Bool, Int32, Int64
from twintower.errors import describe, verbatim
from twintower.spelling import (
    DIGITS,
    READABLE,
    Moment,
    Number,
    PlainValue,
    TimeOfDay,
    exact,
    is_readable,
    moment,
    plain_value,
    scaled,
    shortest,
    spell_number,
    spell_plain,
    time_of_day,
)

LIST_ROWS = 8192
"""Lists whose values are looked at together: embeddings have hundreds each."""
STATE_KEY = b"values"
_DAY_S = 86_400

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CLOCK = r"[0-9]{2}(?::[0-9]{2}(?::[0-9]{2})?)?"
_FRACTION = r"(?P<fraction>\.[0-9]{1,9})?"
_TIME = re.compile(
    rf"(?P<minutes>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[T ]{_CLOCK})?){_FRACTION}"
    rf"(?P<zone>Z|[+-]{_CLOCK.replace(':[', ':?[')})?"
)
_TIME_OF_DAY = re.compile(rf"(?P<minutes>{_CLOCK}){_FRACTION}")
_WORDS: Mapping[str, int | float] = {"true": 1, "false": 0, "nan": float("nan")} | {
    f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "infinity")
}


class ValueKind(enum.StrEnum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "number"
    FLOAT32 = "float32"
    """Numbers, compared at that precision."""
    FLOAT16 = "float16"
    """Numbers, compared at that precision."""


@dataclass(frozen=True)
class Spelled:
    """A column as its distinct spellings.

    Attributes:
        texts: distinct spellings.
        rows: `[rows]`, int32, the index into `texts`; -1 where the value is missing.
    """

    texts: tuple[str, ...]
    rows: Int32

    @property
    def is_missing(self) -> Bool:
        """Where there is no value, `[rows]`."""
        return self.rows < 0

    def to_list(self) -> list[str | None]:
        """Return the spelling of every row; None where the value is missing."""
        texts = (*self.texts, None)
        return [texts[row] for row in self.rows]


@dataclass(frozen=True)
class Spelling:
    """How the values of one column are spelled.

    Attributes:
        column: its name, for messages.
        kind: what it holds.
    """

    column: str
    kind: ValueKind = ValueKind.TEXT

    @classmethod
    def of(cls, column: str, type_: pa.DataType, *, in_lists: bool = False) -> Spelling:
        """Return the spelling of a column of an Arrow type.

        Args:
            column: its name.
            type_: its type; dictionary, run-end encoded and extension types count as what they hold.
            in_lists: whether the values may be in lists.

        Raises:
            DataError: a type that holds no single values (nested, binary, intervals), with column and type.
        """
        plain = plain_type(type_)
        kind = value_kind(plain.value_type if in_lists and is_list(plain) else plain)
        if kind is not None:
            return cls(column, kind)
        expected, advice = f"one value in each row: {READABLE}", ""
        if in_lists:
            expected += "; or a list of them"
        elif is_list(plain):
            advice = "Use kind 'multi_categorical' for lists of values, 'embedding' for vectors."
        if any(test(plain) for test in _BINARY):
            advice = "Store the column as text."
        raise DataError(describe(column, verbatim(str(type_)), expected, advice))

    @classmethod
    def restore(cls, column: str, state: pa.Table) -> Spelling:
        """Return the spelling whose `metadata` a table has."""
        return cls(column, ValueKind((state.schema.metadata or {})[STATE_KEY].decode()))

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """What `restore` needs, as metadata of a table."""
        return {STATE_KEY: self.kind.encode()}

    def spell(self, value: Any) -> str | None:
        """Return the spelling of one Python value; None where it is missing.

        Raises:
            DataError: not one text, number, truth value or time.
        """
        if type(value) is str:
            return value if self.kind is ValueKind.TEXT else self._spell(value)
        return self._spell(_plain_value(value, self.column))

    def spell_list(self, value: Any) -> Sequence[str]:
        """Return the spellings of a list of Python values, or of a single one; missing ones are left out.

        Raises:
            DataError: one of them is not a text, number, truth value or time.
        """
        values = value if isinstance(value, (list, tuple, np.ndarray)) else (value,)
        if self.kind is ValueKind.TEXT and set(map(type, values)) == {str}:
            return values
        return [text for text in map(self.spell, values) if text is not None]

    def spell_column(self, values: pa.Array | pa.ChunkedArray) -> Spelled:
        """Return the spellings of a column; each distinct value is spelled once.

        Raises:
            DataError: as `of`.
        """
        Spelling.of(self.column, values.type)
        rows, distinct = _distinct(values)
        index: dict[str, int] = {}
        places = np.full(len(distinct) + 1, -1, np.int32)
        for place, text in enumerate(map(self._spell, distinct)):
            if text is not None:
                places[place] = index.setdefault(text, len(index))
        return Spelled(tuple(index), places[rows])

    def spell_lists(self, values: pa.Array | pa.ChunkedArray) -> tuple[Int64, Spelled]:
        """Return lists as row lengths, `[rows]`, int64, and the spellings of their values, missing ones left out.

        A value that is not in a list counts as a list of one.

        Raises:
            DataError: as `of`.
        """
        array = plain(flat(values))
        if is_list(array.type):
            owners = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
            spelled = self.spell_column(pc.list_flatten(array))
        else:
            owners, spelled = np.arange(len(array)), self.spell_column(array)
        present = ~spelled.is_missing
        lengths = np.bincount(owners[present], minlength=len(array)).astype(np.int64)
        return lengths, Spelled(spelled.texts, spelled.rows[present])

    def number(self, value: Any) -> float:
        """Return one Python value as a number; NaN where it is missing.

        Raises:
            DataError: not a number, truth value or time, nor text that spells one.
        """
        return self._float(_plain_value(value, self.column))

    def numbers(self, values: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
        """Return a column as numbers, `[rows]`, float64; NaN where missing.

        Raises:
            DataError: as `of`, or text that spells no number.
        """
        Spelling.of(self.column, values.type)
        array = plain(flat(values))
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            numbers = _float64(array)
            narrow = _NARROW.get(self.kind, array.type)
            return numbers if narrow.equals(array.type) else _float64(pa.array(numbers).cast(narrow, safe=False))
        rows, distinct = _distinct(array)
        return np.array([*map(self._float, distinct), np.nan])[rows]

    def _spell(self, value: Any) -> str | None:
        """Return the spelling of what `_plain_value` gives."""
        number = value if self.kind is ValueKind.TEXT else self._number(value)
        try:
            if self.kind is ValueKind.TEXT or isinstance(number, str):
                return spell_plain(number)
            return spell_number(number)
        except ValueError as error:
            raise DataError(describe(self.column, number, str(error))) from None

    def _float(self, value: Any) -> float:
        number = self._number(value)
        if isinstance(number, str):
            raise DataError(describe(self.column, number, "a number, or a time such as 2026-12-31 12:30:00"))
        return np.nan if number is None else _as_float(number)

    def _number(self, value: Any) -> Number | str | None:
        """Return what `_plain_value` gives as a number, at the column's precision; text that is none stays as it is."""
        if isinstance(value, str):
            number = _read_number(value)
            if number is None:
                return value
        else:
            number = value.seconds if isinstance(value, (Moment, TimeOfDay)) else value
        if self.kind in _NARROW and number is not None:
            with np.errstate(over="ignore"):
                return shortest(_NARROW[self.kind].to_pandas_dtype()(_as_float(number)))
        return number


def _plain_value(value: Any, column: str) -> PlainValue:
    """Return a Python value as `plain_value` does, also a scalar of another library that Arrow reads.

    Raises:
        DataError: not one text, number, truth value or time.
    """
    with suppress(ValueError):
        return plain_value(value)
    try:
        array = pa.array([value], from_pandas=True)
        Spelling.of(column, array.type)
    except (pa.ArrowException, DataError, TypeError, ValueError, OverflowError):
        raise DataError(describe(column, value, f"one value: {READABLE}")) from None
    return None if array.null_count else _plain_values(plain(array))[0]


def is_missing(value: Any) -> bool:
    """Return whether a raw Python value is missing: null, NaN, or a list without any other value."""
    if value is None or isinstance(value, (str, int)):
        return value is None
    if isinstance(value, (list, tuple, np.ndarray)):
        return all(map(is_missing, value))
    try:
        plain_value = _plain_value(value, "")
    except DataError:
        return False
    return plain_value is None or plain_value != plain_value


def value_kind(type_: pa.DataType) -> ValueKind | None:
    """Return what a column of an Arrow type holds, one value a row; None for lists and other types that do not.

    A column of nulls holds text.
    """
    plain = plain_type(type_)
    return next((kind for kind, tests in _KINDS.items() if any(test(plain) for test in tests)), None)


def missing_rows(values: pa.Array | pa.ChunkedArray) -> Bool:
    """Return where a column of any type has no value, `[rows]`: null, NaN, or a list without any other value."""
    array = plain(flat(values))
    if is_list(array.type):
        pieces = (array.slice(start, LIST_ROWS) for start in range(0, len(array), LIST_ROWS))
        return np.concatenate([np.zeros(0, bool), *map(_missing_lists, pieces)])
    missing = pc.is_null(array, nan_is_null=pa.types.is_floating(array.type))
    return missing.to_numpy(zero_copy_only=False)


def as_python(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as raw values by column, which a request may carry and which are spelled as there.

    Text, whole numbers and truth values stay what they are; a fraction is the float64 of its spelling; other numbers
    and times are text. Lists are lists of these.

    Raises:
        DataError: as `Spelling.of`.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for name in table.column_names:
        for row, value in zip(rows, _column_as_python(table[name], name), strict=True):
            row[name] = value
    return rows


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values that a dictionary, run-end encoded, view or extension type holds."""
    if isinstance(type_, pa.UuidType):
        return pa.string()
    if isinstance(type_, pa.Bool8Type):
        return pa.bool_()
    if isinstance(type_, pa.BaseExtensionType):
        return plain_type(type_.storage_type)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    if pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(type_.value_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_decimal32(type_) or pa.types.is_decimal64(type_):
        return pa.decimal128(type_.precision, type_.scale)
    return type_


def plain(values: pa.Array) -> pa.Array:
    """Return an array as one of its `plain_type`."""
    type_ = values.type
    if isinstance(type_, pa.UuidType):
        encoded = values.storage.dictionary_encode()
        texts = [str(uuid.UUID(bytes=each)) for each in encoded.dictionary.to_pylist()]
        return pa.array(texts, pa.string()).take(encoded.indices)
    if isinstance(type_, pa.Bool8Type):
        return values.storage.cast(pa.bool_())
    if isinstance(type_, pa.BaseExtensionType):
        return plain(values.storage)
    if pa.types.is_dictionary(type_):
        return plain(values.dictionary).take(values.indices)
    if pa.types.is_run_end_encoded(type_):
        return plain(pc.run_end_decode(values))
    if pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_):
        # Arrow's own cast (26.0) returns arrays whose offsets are not those of their rows.
        return _lists(values, pc.list_flatten(values))
    wanted = plain_type(type_)
    return values if wanted.equals(type_) else values.cast(wanted)


def cast(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return an array as one of a type that holds its values, spelled as they were: a float32 `0.1` as `0.1`.

    Args:
        values: of any type.
        type_: a plain one.

    Raises:
        pyarrow.ArrowException: the type does not hold the values.
    """
    array = plain(values)
    if is_list(array.type) and is_list(type_) and not pa.types.is_fixed_size_list(array.type):
        return _lists(array, cast(pc.list_flatten(array), type_.value_type)).cast(type_)
    if type_.equals(array.type):
        return array
    if pa.types.is_floating(array.type) and pa.types.is_floating(type_):
        doubles = pa.array(_float64(array), mask=array.is_null().to_numpy(zero_copy_only=False))
        return doubles.cast(type_, safe=False)
    if pa.types.is_decimal(array.type) and pa.types.is_float64(type_):
        rows, distinct = _distinct(array)
        for number in distinct:
            if exact(float(number)) != number:
                raise pa.ArrowInvalid(f"{number} is no double")
        return pa.array([*map(float, distinct), None], type_).take(pa.array(rows % (len(distinct) + 1)))
    return array.cast(type_)


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one contiguous array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def is_list(type_: pa.DataType) -> bool:
    """Return whether a plain type is one of lists."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def read_time(text: str) -> Decimal:
    """Return a point in time as seconds since 1970, UTC, exactly.

    Args:
        text: ISO 8601: a date, or a date and a time with up to nine decimals of a second; without a zone UTC.

    Raises:
        ValueError: it is none.
    """
    matched = _TIME.fullmatch(text)
    if matched is None:
        raise ValueError(f"no time: {text!r}")
    since = moment(datetime.datetime.fromisoformat(matched["minutes"] + (matched["zone"] or "")))
    return since.seconds + Decimal(matched["fraction"] or 0)


def _missing_lists(array: pa.Array) -> Bool:
    owners = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
    present = ~missing_rows(pc.list_flatten(array))
    return np.bincount(owners[present], minlength=len(array)) == 0


def read_time_of_day(text: str) -> Decimal:
    """Return a time of day as seconds since midnight, exactly.

    Args:
        text: ISO 8601, with up to nine decimals of a second.

    Raises:
        ValueError: it is none.
    """
    matched = _TIME_OF_DAY.fullmatch(text)
    if matched is None:
        raise ValueError(f"no time of day: {text!r}")
    since = time_of_day(datetime.time.fromisoformat(matched["minutes"]))
    return since.seconds + Decimal(matched["fraction"] or 0)


def _column_as_python(values: pa.Array | pa.ChunkedArray, name: str) -> list[Any]:
    array = plain(flat(values))
    if is_list(array.type):
        found = _column_as_python(pc.list_flatten(array), name)
        ends = np.cumsum(pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)).tolist()
        present = array.is_valid().to_pylist()
        bounds = zip([0, *ends[:-1]], ends, present, strict=True) if ends else ()
        return [found[start:end] if is_present else None for start, end, is_present in bounds]
    if pa.types.is_floating(array.type):
        return [None if number != number else number for number in _float64(array).tolist()]
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        return array.to_pylist()
    return Spelling(name).spell_column(array).to_list()


def _lists(values: pa.Array, elements: pa.Array) -> pa.Array:
    """Return lists of the lengths and nulls that `values` has, with other elements."""
    ends = np.cumsum(pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    return pa.LargeListArray.from_arrays([0, *ends], elements, mask=values.is_null())


_KINDS: Mapping[ValueKind, tuple[Callable[[pa.DataType], bool], ...]] = {
    ValueKind.TEXT: (pa.types.is_null, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    ValueKind.FLOAT32: (pa.types.is_float32,),
    ValueKind.FLOAT16: (pa.types.is_float16,),
    ValueKind.NUMBER: (
        pa.types.is_integer,
        pa.types.is_float64,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_time,
        pa.types.is_duration,
    ),
}
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
_NARROW: Mapping[ValueKind, pa.DataType] = {ValueKind.FLOAT32: pa.float32(), ValueKind.FLOAT16: pa.float16()}


def _plain_values(array: pa.Array) -> list[Any]:
    """Return an array without nulls as `_plain_value` gives each value."""
    type_ = array.type
    if pa.types.is_floating(type_):
        return _float64(array).tolist()
    if pa.types.is_date32(type_):
        return [Moment(days * _DAY_S, 0) for days in array.cast(pa.int32()).to_pylist()]
    if pa.types.is_date64(type_):
        return [Moment(count, 3) for count in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_timestamp(type_):
        return [Moment(count, DIGITS[type_.unit]) for count in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_time(type_):
        counts = array.cast(pa.int32() if pa.types.is_time32(type_) else pa.int64()).to_pylist()
        return [TimeOfDay(count, DIGITS[type_.unit]) for count in counts]
    if pa.types.is_duration(type_):
        return [scaled(count, DIGITS[type_.unit]) for count in array.cast(pa.int64()).to_pylist()]
    return array.to_pylist()


def _distinct(values: pa.Array | pa.ChunkedArray) -> tuple[Int32, list[Any]]:
    """Return for each row the index of its value among the distinct ones, -1 for null, and these as Python values."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    encoded = pa.chunked_array([plain(chunk) for chunk in chunks], plain_type(values.type)).dictionary_encode()
    if not encoded.num_chunks:
        return np.zeros(0, np.int32), []
    # The chunks share one dictionary, which grows from chunk to chunk.
    dictionary = encoded.chunk(encoded.num_chunks - 1).dictionary
    indices = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return np.concatenate(indices), _plain_values(dictionary)


def _float64(array: pa.Array) -> NDArray[np.float64]:
    """Return integers or floats as float64, a fraction as its type's shortest decimal, null as NaN."""
    if pa.types.is_float16(array.type):
        numbers = array.fill_null(np.nan).to_numpy(zero_copy_only=False)
        bits, rows = np.unique(numbers.view(np.uint16), return_inverse=True)
        return np.array([shortest(number) for number in bits.view(np.float16)])[rows]
    numbers = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    if pa.types.is_float32(array.type):
        rows = np.flatnonzero(np.isfinite(numbers) & (numbers != np.trunc(numbers)))
        if len(rows):
            texts = array.take(pa.array(rows)).cast(pa.string())
            numbers = numbers.copy()
            numbers[rows] = texts.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return numbers


def _read_number(text: str) -> Number | None:
    """Return the number, truth value (1 or 0) or time (in seconds) that a text spells; None where it spells none."""
    text = text.strip()
    if matched := _NUMBER.fullmatch(text):
        if matched[2]:  # scientific notation is how floats are written
            number = float(text)
            return number if np.isfinite(number) else None
        exact = Decimal(text)
        return exact if is_readable(exact) else None
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    for read in (read_time, read_time_of_day):
        with suppress(ValueError, OverflowError):
            return read(text)
    return None


def _as_float(number: Number) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
