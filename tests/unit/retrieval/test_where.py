"""Filters from plain Python values."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from recsys.errors import RequestError
from recsys.retrieval import where
from recsys.types import Condition, Filter


def test_signs_after_a_columns_name_say_what_must_hold():
    asked = where(
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


def test_times_count_as_seconds_since_1970_and_numpy_values_as_pythons():
    asked = where(
        [
            ("day >=", datetime.date(1970, 1, 2)),
            ("time", datetime.datetime(1970, 1, 1, 1)),
            ("time", datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))),
            ("year", np.int64(1990)),
            ("year", np.array([1990])),
        ]
    )
    # a day has 86,400 seconds, an hour 3,600; 01:00 at +01:00 is midnight
    assert [condition.minimum or condition.any_of for condition in asked.all_of] == [
        86_400,
        (3600,),
        (0,),
        (1990,),
        (1990,),
    ]
    assert {type(condition.any_of[0]) for condition in asked.all_of[3:]} == {int}


def test_without_conditions_every_item_passes():
    assert where({}) == Filter()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({">=": 1}, "where: got '>=', expected the name of a column"),
        ({3: 1}, "where: got 3, expected the name of a column"),
        ({"genre": None}, r"where\['genre'\]: got None, expected text, a number, a truth value, or a time"),
        ({"year >=": [1, 2]}, r"where\['year >='\]: got \[1, 2\], expected text, a number"),
        ({"year": np.array([[1, 2]])}, r"where\['year'\]: got \[1, 2\]"),
    ],
)
def test_anything_else_is_the_callers_mistake(conditions, message):
    with pytest.raises(RequestError, match=message):
        where(conditions)
