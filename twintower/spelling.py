"""The one spelling of a single Python value, as training data has it: the same whatever type carries the value.

Text stays as it is. A truth value is `true` or `false`. A number is its shortest decimal; whole numbers are exact. A
date is `2026-01-01`, a time `2026-01-01 12:30:00` (UTC unless it names a zone), a duration its seconds. None, NaN and
NaT are missing. `recsys.spelling` does the same for whole columns and has a table of examples.
"""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

READABLE = "text, a number, a truth value, a date, a time or a duration"
MAX_DIGITS = 400
"""Before or after the decimal point; float64 needs up to 309 before and 340 after it, decimal256 76."""
MAX_COLUMN_DIGITS = 76
"""Before or after the decimal point of a number in a column; decimal256, the widest type of a column, holds as many."""
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Decimals of a second that each unit of time counts."""

Number = int | float | Decimal
_INFINITY = float("inf")
_LIMIT = 10**MAX_DIGITS
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST_S = (datetime.datetime.min.replace(tzinfo=datetime.UTC) - _EPOCH) // datetime.timedelta(seconds=1)
_LAST_S = (datetime.datetime.max.replace(tzinfo=datetime.UTC) - _EPOCH) // datetime.timedelta(seconds=1)
_DAY_S = 86_400
_COARSE_UNITS = ("Y", "M", "W", "D", "h", "m")
"""Of NumPy's times: longer than a second."""
_MICROSECOND = datetime.timedelta(microseconds=1)


class Moment(NamedTuple):
    """A point in time: `count` units of `10 ** -digits` seconds since 1970, UTC."""

    count: int
    digits: int

    @property
    def seconds(self) -> Decimal:
        """Seconds since 1970, exactly."""
        return scaled(self.count, self.digits)

    @property
    def text(self) -> str:
        """ISO 8601 with a space; the date alone at midnight; the seconds outside the years 1 to 9999."""
        seconds, fraction = divmod(self.count, 10**self.digits)
        if not _FIRST_S <= seconds <= _LAST_S:
            return _positional(self.seconds)
        text = (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat(sep=" ")[:19]
        return text[:10] if not fraction and seconds % _DAY_S == 0 else text + _fraction_text(fraction, self.digits)


class TimeOfDay(NamedTuple):
    """A time of day: `count` units of `10 ** -digits` seconds since midnight."""

    count: int
    digits: int

    @property
    def seconds(self) -> Decimal:
        """Seconds since midnight, exactly."""
        return scaled(self.count, self.digits)

    @property
    def text(self) -> str:
        """ISO 8601; the seconds where there is no such time of day."""
        seconds, fraction = divmod(self.count, 10**self.digits)
        if not 0 <= seconds < _DAY_S:
            return _positional(self.seconds)
        hour, rest = divmod(seconds, 3600)
        return f"{hour:02}:{rest // 60:02}:{rest % 60:02}{_fraction_text(fraction, self.digits)}"


PlainValue = str | bool | Number | Moment | TimeOfDay | None


def spell(value: Any) -> str | None:
    """Return the spelling of a value in a column of text; None where it is missing.

    Raises:
        ValueError: not one text, number, truth value or time.
    """
    return value if type(value) is str else spell_plain(plain_value(value))


def spell_plain(value: PlainValue) -> str | None:
    """Return the spelling of what `plain_value` returns, in a column of text.

    Raises:
        ValueError: a number of too many digits.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Moment, TimeOfDay)):
        return value.text
    return spell_number(value)


def spell_number(number: Number | None) -> str | None:
    """Return a number's spelling: digits, with a point only where there is a fraction; None for NaN.

    Raises:
        ValueError: a number of more than `MAX_DIGITS` digits.
    """
    if number is None or number != number:
        return None
    if not isinstance(number, float) and not is_readable(number):
        raise ValueError(f"a number of at most {MAX_DIGITS} digits")
    number = exact(number)
    if isinstance(number, int):
        return str(int(number))  # a truth value is a number here
    return _positional(number) if isinstance(number, Decimal) and number.is_finite() else str(float(number))


def plain_value(value: Any) -> PlainValue:
    """Return a Python value as text, truth value, number, `Moment`, `TimeOfDay`, or None where it is missing.

    Raises:
        ValueError: it is none of these.
    """
    convert = _FROM_PYTHON.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, datetime.date | datetime.timedelta) and hasattr(value, "to_numpy"):
        value = value.to_numpy()  # pandas' nanoseconds, which the standard library would cut
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _numpy_time(value)
    if type(value).__name__ == "NAType":  # pandas' missing value, which is of no library that is needed here
        return None
    for kind, convert in _FROM_SUBCLASS.items():
        if isinstance(value, kind):
            return convert(value)
    raise ValueError(f"one value: {READABLE}")


def shortest(number: np.floating[Any]) -> float:
    """Return the double with the spelling of a number of single or half precision: 0.1, not 0.10000000149011612.

    A whole number is itself, exactly.
    """
    return float(str(number)) if np.isfinite(number) and number % 1 else float(number)


def exact(number: Number) -> Number:
    """Return the number that the shortest spelling says.

    A whole number is itself, exactly, as an integer: the float 1e23 is 99999999999999991611392. A fraction is a
    decimal: the float 0.1 is the decimal 0.1. Infinities stay floats.

    Args:
        number: not NaN; at most `MAX_DIGITS` digits before the decimal point.
    """
    if isinstance(number, int) or number in (_INFINITY, -_INFINITY):
        return number
    if number == int(number):
        return int(number)
    return Decimal(repr(float(number))) if isinstance(number, float) else number


def is_readable(number: int | Decimal) -> bool:
    """Return whether a number has at most `MAX_DIGITS` digits before and after the point."""
    if isinstance(number, int):
        return abs(number) < _LIMIT
    return not number or not number.is_finite() or abs(number.adjusted()) < MAX_DIGITS


def is_column_number(value: object) -> bool:
    """Return whether a value is a number that columns compare with.

    Truth values and NaN are none, nor is a number of more than `MAX_COLUMN_DIGITS` digits before or after the point; a
    float may be infinite.
    """
    if isinstance(value, Decimal):
        if not value.is_finite():
            return False
        return value == 0 or (
            value.adjusted() < MAX_COLUMN_DIGITS and int(value.as_tuple().exponent) >= -MAX_COLUMN_DIGITS
        )
    if isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MAX_COLUMN_DIGITS


def moment(value: datetime.datetime) -> Moment:
    """Return a point in time; without a zone it counts as UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return Moment((aware - _EPOCH) // _MICROSECOND, 6)


def time_of_day(value: datetime.time) -> TimeOfDay:
    """Return a time of day."""
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return TimeOfDay(seconds * 1_000_000 + value.microsecond, 6)


def scaled(count: int, digits: int) -> Decimal:
    """Return `count` units of `10 ** -digits`."""
    return Decimal(count).scaleb(-digits)


def _numpy_time(value: np.datetime64 | np.timedelta64) -> Moment | Decimal | None:
    if np.isnat(value):
        return None
    unit, _ = np.datetime_data(value.dtype)
    unit = "s" if unit in _COARSE_UNITS else unit
    if unit not in DIGITS:
        raise ValueError(f"one value: {READABLE}")
    count = int(value.astype(f"{value.dtype.kind}8[{unit}]").astype(np.int64))
    return Moment(count, DIGITS[unit]) if isinstance(value, np.datetime64) else scaled(count, DIGITS[unit])


def _fraction_text(fraction: int, digits: int) -> str:
    return f".{fraction:0{digits}}".rstrip("0") if fraction else ""


def _positional(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _unchanged(value: Any) -> Any:
    return value


_FROM_PYTHON: Mapping[type, Callable[[Any], Any]] = {
    type(None): _unchanged,
    str: _unchanged,
    bool: _unchanged,
    int: _unchanged,
    float: _unchanged,
    Decimal: lambda value: float("nan") if value.is_nan() else value,
    np.float16: shortest,
    np.float32: shortest,
    np.float64: float,
    np.int64: int,
    np.bool_: bool,
    datetime.date: lambda value: Moment((value.toordinal() - _EPOCH.toordinal()) * _DAY_S, 0),
    datetime.datetime: moment,
    datetime.time: time_of_day,
    datetime.timedelta: lambda value: scaled(value // _MICROSECOND, 6),
    uuid.UUID: str,
}
_FROM_SUBCLASS: Mapping[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int,
    float: float,
    np.integer: int,
    datetime.datetime: moment,
    **{kind: _FROM_PYTHON[kind] for kind in (Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)},
}
"""Of values whose type `_FROM_PYTHON` does not name, such as enums and NumPy's other integers; the first one counts."""
