"""One value in every type that can carry it: as Arrow arrays of one row, and as Python values."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
FLOATS = (np.float16, np.float32, np.float64)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

NUMBERS = st.one_of(
    st.sampled_from(
        [
            Decimal(text)
            for text in ("0", "1", "5", "0.1", "-2.5", "4006381333931", "5901234123457", "0.00001", "16777217")
        ]
    ),
    st.integers(-(2**63), 2**64 - 1).map(Decimal),
    st.integers(-1000, 1000).map(Decimal),
    st.integers(0, 62).map(lambda power: Decimal(2**power)),
    st.decimals(-1000, 1000, places=2).map(lambda number: number + 0),
    st.floats(allow_nan=False, allow_infinity=False)
    .map(lambda number: Decimal(repr(number)))
    .filter(lambda number: abs(number.adjusted()) < 300),
)
"""Numbers that at least one type carries."""

MOMENTS = st.one_of(
    st.integers(-100, 30_000).map(lambda days: days * 86_400 * 10**9),
    st.integers(-(10**9), 4 * 10**9).map(lambda seconds: seconds * 10**9),
    st.integers(-(10**18), 4 * 10**18),
)
"""Nanoseconds since 1970."""


def of_number(number: Decimal) -> Iterator[pa.Array]:
    """Yield typed arrays of one row that hold a number."""
    whole = number == number.to_integral_value()
    for type_ in INTEGERS:
        if whole and np.iinfo(type_).min <= number <= np.iinfo(type_).max:
            yield pa.array([int(number)], pa.from_numpy_dtype(type_))
    for type_ in FLOATS:
        with np.errstate(over="ignore"):
            narrow = type_(float(number))
        if np.isfinite(narrow) and (Decimal(int(narrow)) if narrow % 1 == 0 else Decimal(str(narrow))) == number:
            yield pa.array([narrow], pa.from_numpy_dtype(type_))
    digits = Decimal(f"{number:f}").as_tuple()
    for more, (type_, precision) in enumerate(((pa.decimal128, 38), (pa.decimal256, 76), (pa.decimal64, 18))):
        scale = -digits.exponent + more
        if len(digits.digits) + scale + more < precision and scale < precision:
            yield pa.array([number], type_(precision, scale))
    if number in (0, 1):
        yield pa.array([bool(number)])


def texts_of_number(number: Decimal) -> list[str]:
    """Return texts that spell a number."""
    plain = f"{number:f}"
    texts = [plain, f" {plain} ", f"{plain}0" if "." in plain else f"{plain}.00"]
    return [*texts, repr(float(number))] if Decimal(repr(float(number))) == number and abs(number) < 2**53 else texts


def of_moment(nanoseconds: int) -> Iterator[pa.Array]:
    """Yield typed arrays of one row that hold a point in time."""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        if nanoseconds % factor == 0:
            for zone in (None, "UTC", "Asia/Kolkata"):
                yield pa.array([nanoseconds // factor], pa.timestamp(unit, zone))
    days, rest = divmod(nanoseconds, 86_400 * 10**9)
    if not rest:
        yield pa.array([days], pa.date32())
        yield pa.array([days * 86_400_000], pa.date64())


def python_moments(nanoseconds: int) -> Iterator[Any]:
    """Yield Python values that hold a point in time."""
    yield np.datetime64(nanoseconds, "ns")
    if nanoseconds % 1000 == 0:
        moment = EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
        india = datetime.timezone(datetime.timedelta(hours=5.5))
        yield from (moment, moment.replace(tzinfo=None), moment.astimezone(india))
        yield from (moment.isoformat(), moment.replace(tzinfo=None).isoformat(sep=" "))
        if moment.time() == datetime.time():
            yield from (moment.date(), moment.date().isoformat())


def of_duration(nanoseconds: int) -> Iterator[pa.Array]:
    """Yield typed arrays of one row that hold a duration."""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        if nanoseconds % factor == 0:
            yield pa.array([nanoseconds // factor], pa.duration(unit))


def of_time_of_day(nanoseconds: int) -> Iterator[pa.Array]:
    """Yield typed arrays of one row that hold a time of day."""
    for type_, factor in ((pa.time32("s"), 10**9), (pa.time32("ms"), 10**6), (pa.time64("us"), 10**3)):
        if nanoseconds % factor == 0:
            yield pa.array([nanoseconds // factor], type_)
    yield pa.array([nanoseconds], pa.time64("ns"))


def wrapped(array: pa.Array) -> Iterator[pa.Array]:
    """Yield an array, and the same values in the types that wrap others."""
    yield array
    if not pa.types.is_decimal64(array.type):
        yield array.dictionary_encode()
        yield pa.RunEndEncodedArray.from_arrays(pa.array([len(array)], pa.int32()), array)


UUID = uuid.UUID(int=7)
ODD_TYPES: dict[str, pa.Array] = {
    "binary": pa.array([b"a"]),
    "large_binary": pa.array([b"a"], pa.large_binary()),
    "binary_view": pa.array([b"a"], pa.binary_view()),
    "fixed_size_binary": pa.array([b"ab"], pa.binary(2)),
    "uuid": pa.array([UUID.bytes], pa.uuid()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1"])),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "point", "gis"), pa.array([b"1"])),
    "string_view": pa.array(["a"], pa.string_view()),
    "large_string": pa.array(["a"], pa.large_string()),
    "dictionary": pa.array(["a"]).dictionary_encode(),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
    "null": pa.nulls(1),
    "bool": pa.array([True]),
    "float16": pa.array([np.float16(0.1)]),
    "decimal32": pa.array([Decimal("1.5")], pa.decimal32(5, 2)),
    "decimal256": pa.array([Decimal("1.5")], pa.decimal256(60, 2)),
    "date64": pa.array([datetime.date(2026, 1, 1)], pa.date64()),
    "timestamp": pa.array([1500], pa.timestamp("ms", "UTC")),
    "time32": pa.array([1500], pa.time32("ms")),
    "time64": pa.array([1500], pa.time64("ns")),
    "duration": pa.array([1500], pa.duration("ms")),
    "interval": pa.array([pa.MonthDayNano([1, 2, 3])]),
    "list": pa.array([[1.0, 2.0]]),
    "large_list": pa.array([[1.0, 2.0]], pa.large_list(pa.float64())),
    "list_view": pa.array([[1.0, 2.0]], pa.list_view(pa.float64())),
    "large_list_view": pa.array([[1.0, 2.0]], pa.large_list_view(pa.float64())),
    "fixed_size_list": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)),
    "fixed_shape_tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 2))),
    "list of text": pa.array([["a", "b"]]),
    "list of binary": pa.array([[b"a"]]),
    "list of lists": pa.array([[[1.0]]]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array([{"a": 1}]),
    "sparse_union": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
    "dense_union": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
}
"""One row in each kind of Arrow type."""
