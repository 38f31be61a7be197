"""A value has one spelling, whatever carries it and whatever stands beside it."""

from __future__ import annotations

import datetime
import math
from decimal import Context, Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.spelling import Spelling, ValueKind, as_python, is_missing
from tests import carriers

NUMBER = Spelling("c", ValueKind.NUMBER)
TEXT = Spelling("c")


@pytest.mark.parametrize(
    ("value", "as_number", "as_text"),
    [
        (5, "5", "5"),
        (5.0, "5", "5"),
        (Decimal("5.00"), "5", "5"),
        (Decimal("5E+2"), "500", "500"),
        (-0.0, "0", "0"),
        (Decimal("-0.00"), "0", "0"),
        (1e-5, "0.00001", "0.00001"),
        (4006381333931.0, "4006381333931", "4006381333931"),
        # The float64 nearest to 10^23 is this whole number.
        (1e23, "99999999999999991611392", "99999999999999991611392"),
        (2**64 + 1, "18446744073709551617", "18446744073709551617"),
        (np.float32(0.1), "0.1", "0.1"),
        (np.float16(0.1), "0.1", "0.1"),
        (np.int8(5), "5", "5"),
        (math.inf, "inf", "inf"),
        ("5.0", "5", "5.0"),
        ("1e23", "99999999999999991611392", "1e23"),
        ("-Infinity", "-inf", "-Infinity"),
        ("five", "five", "five"),
        ("1_000", "1_000", "1_000"),
        ("", "", ""),
        (True, "1", "true"),
        (np.False_, "0", "false"),
        ("True", "1", "True"),
        # 20,454 days of 86,400 s
        (datetime.date(2026, 1, 1), "1767225600", "2026-01-01"),
        (datetime.datetime(2026, 1, 1), "1767225600", "2026-01-01"),
        (datetime.datetime(2026, 1, 1, 0, 0, 1, 500_000), "1767225601.5", "2026-01-01 00:00:01.5"),
        (
            datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            "1767225600",
            "2026-01-01",
        ),
        (pd.Timestamp(1, unit="ns"), "0.000000001", "1970-01-01 00:00:00.000000001"),
        ("2026-01-01T00:00:01.5Z", "1767225601.5", "2026-01-01T00:00:01.5Z"),
        (datetime.datetime(1, 1, 1), "-62135596800", "0001-01-01"),
        (datetime.time(12, 30, 0, 250_000), "45000.25", "12:30:00.25"),
        ("12:30:00.25", "45000.25", "12:30:00.25"),
        (datetime.timedelta(minutes=1.5), "90", "90"),
        (np.timedelta64(90_500, "ms"), "90.5", "90.5"),
        (np.timedelta64(1, "D"), "86400", "86400"),
        (np.datetime64("2026-01"), "1767225600", "2026-01-01"),
        (carriers.UUID, str(carriers.UUID), str(carriers.UUID)),
        (None, None, None),
        (math.nan, None, None),
        (Decimal("NaN"), None, None),
        (np.float32("nan"), None, None),
        (np.datetime64("NaT"), None, None),
        (pd.NaT, None, None),
        (pd.NA, None, None),
        ("nan", None, "nan"),
    ],
)
def test_a_value_is_spelled_by_what_its_column_holds(value, as_number, as_text):
    assert NUMBER.spell(value) == as_number
    assert TEXT.spell(value) == as_text
    assert is_missing(value) == (TEXT.spell(value) is None)


@settings(deadline=None)
@given(carriers.NUMBERS, st.data())
def test_every_carrier_of_a_number_spells_it_alike_alone_and_among_others(number, data):
    expected = NUMBER.spell(number)
    for array in carriers.of_number(number):
        for carrier in carriers.wrapped(array):
            kind = Spelling.of("c", carrier.type)
            assert kind.spell_column(carrier).to_list() == [expected]
            assert NUMBER.spell_column(carrier).to_list() == [expected]
        others = data.draw(st.lists(st.sampled_from([None, *column_values(array.type)]), max_size=3))
        together = pa.concat_arrays([pa.array(others, array.type), array])
        assert kind.spell_column(together).to_list()[-1] == expected
    for text in carriers.texts_of_number(number):
        assert NUMBER.spell(text) == expected
        assert NUMBER.number(text) == float(number)


def column_values(type_: pa.DataType) -> list[object]:
    if pa.types.is_floating(type_):
        return [0.5, math.nan, -0.0, 1e4]
    return [True] if pa.types.is_boolean(type_) else [0, 1]


@settings(deadline=None)
@given(carriers.MOMENTS)
def test_every_carrier_of_a_moment_spells_it_alike(nanoseconds):
    seconds, text = (each.spell(np.datetime64(nanoseconds, "ns")) for each in (NUMBER, TEXT))
    assert Decimal(seconds) == Decimal(nanoseconds).scaleb(-9)
    for array in carriers.of_moment(nanoseconds):
        for carrier in carriers.wrapped(array):
            assert NUMBER.spell_column(carrier).to_list() == [seconds]
            assert TEXT.spell_column(carrier).to_list() == [text]
            assert NUMBER.numbers(carrier).tolist() == [float(Decimal(seconds))]
    for value in carriers.python_moments(nanoseconds):
        assert NUMBER.spell(value) == seconds
        assert isinstance(value, str) or TEXT.spell(value) == text
    assert NUMBER.spell(text) == seconds


@settings(deadline=None)
@given(st.integers(0, 86_400 * 10**9 - 1), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_every_carrier_of_a_time_of_day_or_a_duration_spells_it_alike(nanoseconds, unit):
    nanoseconds -= nanoseconds % unit
    seconds = NUMBER.spell(Decimal(nanoseconds).scaleb(-9))
    for array in (*carriers.of_time_of_day(nanoseconds), *carriers.of_duration(nanoseconds)):
        assert NUMBER.spell_column(array).to_list() == [seconds]
        (text,) = TEXT.spell_column(array).to_list()
        assert NUMBER.spell(text) == seconds


@pytest.mark.parametrize(
    "array",
    [
        pa.array([2**62, -(2**62)], pa.timestamp("s")),
        pa.array([-1, 86_400], pa.time32("s")),
        pa.array([-1, 2**63 - 1], pa.duration("ns")),
    ],
)
def test_times_that_no_calendar_or_clock_has_are_spelled_too(array):
    assert NUMBER.spell_column(array).to_list() == [NUMBER.spell(text) for text in TEXT.spell_column(array).to_list()]


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_column_of_float32_compares_numbers_at_that_precision(number):
    kind = Spelling.of("c", pa.float32())
    (trained,) = kind.spell_column(pa.array([number], pa.float32())).to_list()
    narrow = np.float32(number)
    for asked in (number, narrow, float(str(narrow)), str(narrow), repr(number)):
        assert kind.spell(asked) == trained
    assert kind.spell_column(pa.array([number], pa.float64())).to_list() == [trained]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_columns_and_single_values_of_float32_are_shortened_alike(bits):
    numbers = np.array(bits, np.uint32).view(np.float32)
    column = Spelling.of("c", pa.float32()).spell_column(pa.array(numbers))
    assert column.to_list() == [NUMBER.spell(number) for number in numbers]


@settings(deadline=None)
@given(st.integers(-(2**200), 2**200), st.integers(-100, 100))
def test_numbers_of_any_size_are_spelled_exactly(digits, exponent):
    number = Decimal(digits).scaleb(exponent, context=Context(prec=100))
    assert Decimal(NUMBER.spell(number)) == number


@pytest.mark.parametrize("value", [{"a": 1}, b"raw", [1], {1}, object(), 10**401, Decimal("1e500")])
def test_what_is_no_single_value_is_refused_with_its_column(value):
    with pytest.raises(DataError, match=r"^c: got "):
        NUMBER.spell(value)


def test_a_number_text_that_no_type_can_hold_stays_text():
    assert NUMBER.spell("9" * 5000) == "9" * 5000
    assert NUMBER.spell("1e999999999") == "1e999999999"


def test_chunks_of_a_column_are_spelled_as_one():
    chunked = pa.chunked_array([[0.5, 4006381333931.0], [], [None, 0.5, math.nan], [-0.0, 0.0]], pa.float64())
    spelled = NUMBER.spell_column(chunked)
    assert spelled.to_list() == ["0.5", "4006381333931", None, "0.5", None, "0", "0"]
    assert len(set(spelled.texts)) == len(spelled.texts) == 3
    assert NUMBER.spell_column(pa.chunked_array([], pa.float64())).to_list() == []


def test_lists_follow_the_same_per_value():
    lists = pa.array([[5.0, None, 4006381333931.0], [], None, [math.nan]], pa.list_(pa.float64()))
    for array in (lists, pa.array(lists.to_pylist(), pa.list_view(pa.float64()))):
        lengths, spelled = NUMBER.spell_lists(array)
        assert lengths.tolist() == [2, 0, 0, 0]
        assert spelled.to_list() == ["5", "4006381333931"]
    assert list(NUMBER.spell_list([5, None, "4006381333931.0", math.nan])) == ["5", "4006381333931"]
    assert list(NUMBER.spell_list("5.0")) == ["5"]


@settings(deadline=None)
@given(carriers.NUMBERS, carriers.MOMENTS)
def test_rows_as_python_values_are_spelled_as_their_columns(number, nanoseconds):
    for array in (*carriers.of_number(number), *carriers.of_moment(nanoseconds), pa.array([["a"]])):
        ((value,),) = (row.values() for row in as_python(pa.table({"c": array})))
        kind = Spelling.of("c", array.type, in_lists=True)
        assert list(kind.spell_list(value)) == kind.spell_lists(array)[1].to_list()


@pytest.mark.parametrize("name", carriers.ODD_TYPES)
def test_a_type_is_read_or_refused_with_column_and_type(name):
    array = carriers.ODD_TYPES[name]
    read = {"uuid", "bool8", "json", "null", "bool", "dictionary", "run_end_encoded", "duration", "timestamp"}
    read |= {"string_view", "large_string", "float16", "decimal32", "decimal256", "date64", "time32", "time64"}
    if name in read:
        assert len(Spelling.of("c", array.type).spell_column(array).rows) == 1
        return
    with pytest.raises(DataError) as caught:
        Spelling.of("c", array.type)
    assert str(caught.value).startswith(f"c: got {array.type}, expected one value in each row")
