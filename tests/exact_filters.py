"""What a condition on a number or a time means, value by value in plain Python, and columns to compare with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from twintower.spelling import is_column_number

TWO_53, TWO_63, TWO_64 = 2**53, 2**63, 2**64
WHOLE = [0, 1, -1, 100, 255, 2**24, 2**31, TWO_53, -TWO_53, TWO_63, -TWO_63, TWO_64, 10**18, 10**37, 10**75]
WHOLE = [number + near for number in WHOLE for near in (-2, -1, 0, 1, 2)]
FRACTIONS = [
    0.1,
    -0.1,
    0.5,
    19.99,
    1 / 3,
    1e-7,
    2.0**52 + 0.5,
    123456.789,
    1e300,
    5e-324,
    1e22,
    1e23,
    math.inf,
    -math.inf,
]
DECIMALS = ["0.1", "0.10", "0.100000000000000001", "19.99", "-19.995", "0.5", "9007199254740993.5", "1e-20", "1e38"]
DECIMALS = [Decimal(text) for text in DECIMALS] + [Decimal.from_float(0.1), Decimal.from_float(19.99)]
MOMENTS = [0, 86_400 * 10**9, 1_704_067_200 * 10**9, 1_704_067_200_123_456_789, 1_704_067_200_123_456_000, -(10**9)]
MOMENTS = [moment + near for moment in MOMENTS for near in (-(10**9), -1000, -1, 0, 1, 1000, 10**9)]
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMAL_TYPES = [pa.decimal32(9, 2), pa.decimal64(18, 0), pa.decimal128(38, 2), pa.decimal128(38, 20)]
DECIMAL_TYPES += [pa.decimal128(5, -2), pa.decimal256(76, 0), pa.decimal256(76, 60)]
NUMBERS = [*INTEGERS, *FLOATS, *DECIMAL_TYPES]
TIMES = [pa.date32(), pa.date64(), *map(pa.timestamp, UNITS), pa.timestamp("ns", "UTC"), pa.timestamp("us", "+05:30")]
SIDES = {"any_of": {0}, "minimum": {0, 1}, "exclusive_minimum": {1}, "maximum": {-1, 0}, "exclusive_maximum": {-1}}
RULES = ("none_of", *SIDES)


@dataclass(frozen=True)
class Column:
    """A column of each type, with what its values are in Python.

    Attributes:
        array: of Arrow.
        values: the same, exactly: numbers, times in seconds since 1970; None where there is none.
    """

    array: pa.Array
    values: tuple[Any, ...]


def asked_numbers(column: Column) -> st.SearchStrategy[Any]:
    """Numbers of every Python type: those of the column, others next to where some type ends, and any."""
    own = [near for value in column.values if value is not None for near in _spellings(value, column.array.type)]
    return st.one_of(
        *([st.sampled_from(own)] if own else []),
        st.sampled_from([*WHOLE, *FRACTIONS, *DECIMALS]),
        st.integers(-(2**65), 2**65),
        st.floats(allow_nan=False),
        st.floats(allow_nan=False, width=32),
        st.decimals(-(10**20), 10**20, places=3),
        st.sampled_from(WHOLE).filter(lambda number: abs(number) < 2**1000).map(float),
    )


def asked_times(draw: st.DrawFn) -> tuple[str, Fraction]:
    """Return a time as text and as seconds since 1970."""
    nanoseconds = draw(st.sampled_from(MOMENTS) | st.integers(-(2**62), 2**62))
    text = str(np.datetime64(nanoseconds, "ns"))
    zone, ahead_s = draw(st.sampled_from([("", 0), ("Z", 0), ("+05:30", 19_800), ("-01:00", -3600)]))
    return text + zone, Fraction(nanoseconds, 10**9) - ahead_s


def column(kind: pa.DataType, raw: list[Any]) -> Column:
    """Return a column of a type; times are given as the integers that Arrow stores."""
    if kind in TIMES:
        step = _step(kind)
        array = pa.array(raw, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)
        return Column(array, tuple(None if each is None else each * step for each in raw))
    array = pa.array(raw, kind)
    return Column(array, tuple(None if each is None or each != each else each for each in array.to_pylist()))


@st.composite
def columns(draw: st.DrawFn, kind: pa.DataType) -> Column:
    """A column of a type, dictionary-encoded or not."""
    held = st.none() | st.sampled_from(near_the_ends(kind))
    if kind in FLOATS:
        width = {"e": 16, "f": 32, "d": 64}[np.dtype(kind.to_pandas_dtype()).char]
        held |= st.floats(width=width).map(kind.to_pandas_dtype())
    made = column(kind, draw(st.lists(held, min_size=1, max_size=12)))
    if draw(st.booleans()) and not (pa.types.is_decimal(kind) or kind == pa.float16()):
        return Column(made.array.dictionary_encode(), made.values)
    return made


def side(value: Any, asked: Any, kind: pa.DataType) -> int:
    """Return -1, 0 or 1 where a value of a column is less than, equal to or more than what is asked.

    They are numbers, compared exactly; but a float with a fraction may also be spelled as briefly as its type allows.
    """
    if isinstance(asked, float) and math.isinf(asked):
        return 0 if value == asked else 1 if asked < 0 else -1
    if asked != int(asked) and not isinstance(asked, Fraction):
        spelling = Decimal(repr(asked)) if isinstance(asked, float) else asked
        if not pa.types.is_floating(kind):
            asked = spelling
        elif Decimal(str(kind.to_pandas_dtype()(value))) == spelling:
            return 0
        elif isinstance(asked, Decimal) and Decimal(repr(float(asked))) == asked:
            asked = float(asked)
    if isinstance(value, float) and math.isinf(value):
        return 1 if value > 0 else -1
    exact, other = Fraction(value), Fraction(asked)
    return (exact > other) - (exact < other)


def passes(value: Any, rule: str, asked: list[Any], kind: pa.DataType) -> bool:
    """Return whether a value passes a rule of a condition."""
    sides = [] if value is None else [side(value, each, kind) for each in asked]
    if rule == "none_of":
        return 0 not in sides
    allowed = {
        "any_of": {0},
        "minimum": {0, 1},
        "exclusive_minimum": {1},
        "maximum": {-1, 0},
        "exclusive_maximum": {-1},
    }
    return bool(allowed[rule] & set(sides))


def _spellings(value: Any, kind: pa.DataType) -> list[Any]:
    """Return a number of a column as other types have it, as its own type spells it, and numbers next to it."""
    if isinstance(value, float) and math.isinf(value):
        return [value]
    found = [value, float(value), int(value), int(value) + 1]
    if isinstance(value, float):
        narrow = kind.value_type if pa.types.is_dictionary(kind) else kind
        shortest = str(narrow.to_pandas_dtype()(value))
        found += [float(shortest), Decimal(shortest), Decimal.from_float(value), math.nextafter(value, math.inf)]
    return [number for number in found if is_column_number(number)]


def near_the_ends(kind: pa.DataType) -> list[Any]:
    """Return values that a column of a type can hold, many of them next to where some type ends."""
    if kind in TIMES:
        return [math.floor(Fraction(moment, 10**9) / _step(kind)) for moment in MOMENTS]
    if kind in FLOATS:
        with np.errstate(over="ignore"):
            return [kind.to_pandas_dtype()(number) for number in [*FRACTIONS, *map(float, WHOLE)]]
    return [number for number in [*WHOLE, *DECIMALS] if _fits(number, kind)]


def _fits(number: Any, kind: pa.DataType) -> bool:
    try:
        (held,) = pa.array([Decimal(number) if pa.types.is_decimal(kind) else number], kind).to_pylist()
    except (pa.ArrowException, OverflowError, TypeError):
        return False
    return held == number


def _step(kind: pa.DataType) -> Fraction:
    if pa.types.is_date32(kind):
        return Fraction(86_400)
    return Fraction(1, 1000 if pa.types.is_date64(kind) else UNITS[kind.unit])
