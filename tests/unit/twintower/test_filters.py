"""Filters from plain Python values."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import Condition, Filter


def test_signs_after_a_columns_name_say_what_must_hold():
    asked = parse_filter(
        {
            "genre": ["Comedy", "Drama"],
            "genre !=": "Horror",
            "year >=": 1990,
            "year<": 2000,
            "price >": 1.5,
            "price <=": 3,
            "new =": True,
        }
    )
    assert asked == Filter(
        (
            Condition("genre", any_of=("Comedy", "Drama")),
            Condition("genre", none_of=("Horror",)),
            Condition("year", minimum=1990),
            Condition("year", exclusive_maximum=2000),
            Condition("price", exclusive_minimum=1.5),
            Condition("price", maximum=3),
            Condition("new", any_of=(True,)),
        )
    )


def test_a_column_of_any_name_can_be_named():
    asked = parse_filter({'"price >"': 1, '" a " >=': 2, '"\\"" !=': "x", '"open': 3})
    assert [condition.field for condition in asked.all_of] == ["price >", " a ", '"', '"open']
    assert asked.all_of[1] == Condition(" a ", minimum=2)


HOUR = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.date(1970, 1, 2), "1970-01-02"),
        (datetime.datetime(1970, 1, 1, 1), "1970-01-01T01:00:00"),
        (datetime.datetime(1970, 1, 1, 1, microsecond=1, tzinfo=HOUR), "1970-01-01T01:00:00.000001+01:00"),
        (pd.Timestamp("1970-01-01T00:00:00.000000001", tz="UTC"), "1970-01-01T00:00:00.000000001+00:00"),
        (np.datetime64("1970-01-01T00:00:00.000000001"), "1970-01-01T00:00:00.000000001"),
        (np.datetime64("1970"), "1970-01-01"),
        (np.array(["1970-02"], "datetime64[M]"), "1970-02-01"),
        (np.int64(2**53 + 1), 2**53 + 1),
        (np.array([2**64 - 1], np.uint64), 2**64 - 1),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.1),
        (np.float32(123456789), 123456792.0),
        (Decimal("0.10"), Decimal("0.10")),
        (np.bool_(True), True),
        (np.array(3), 3),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (np.str_("a"), "a"),
    ],
)
def test_times_become_iso_8601_texts_and_numpy_values_plain_ones(value, expected):
    (condition,) = parse_filter({"column": value}).all_of
    assert condition.any_of == (expected,)
    assert type(condition.any_of[0]) is type(expected)


def test_without_conditions_every_item_passes():
    assert parse_filter({}) == Filter()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({">=": 1}, "filter: got '>=', expected the name of a column"),
        ({3: 1}, "filter: got 3, expected the name of a column"),
        ({"genre": None}, r"filter\['genre'\]: got None, expected text, a number, a truth value, or a time"),
        ({"year >=": [1, 2]}, r"filter\['year >='\]: got \[1, 2\], expected text, a number"),
        ({"year": np.array([[1, 2]])}, r"filter\['year'\]: got array\(\[1, 2\]\)"),
    ],
)
def test_anything_else_is_the_callers_mistake(conditions, message):
    with pytest.raises(RequestError, match=message):
        parse_filter(conditions)
