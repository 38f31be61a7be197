"""Filters by numbers and times are exact, whatever type holds them and whatever type asks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.retrieval.filtering import FiltersOfParts, ItemFilters
from tests.exact_filters import NUMBERS, RULES, TIMES, asked_numbers, asked_times, columns, passes
from twintower.types import Condition, Filter


def rows_of(filters, rule, values):
    asked = tuple(values) if rule in ("any_of", "none_of") else values[0]
    return filters.allowed(Filter((Condition("field", **{rule: asked}),)), "filter").rows.tolist()


def in_parts(array, cut):
    table = pa.table({"field": array})
    parts = [ItemFilters(each, ["field"]) for each in (table.slice(0, cut), table.slice(cut))]
    return FiltersOfParts(parts, np.zeros(len(array), bool))


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_numbers_pass_as_python_compares_them(kind, data):
    column, rule = data.draw(columns(kind)), data.draw(st.sampled_from(RULES))
    asked = data.draw(st.lists(asked_numbers(column), min_size=1, max_size=4))
    asked = asked if rule in ("any_of", "none_of") else asked[:1]
    expected = [row for row, value in enumerate(column.values) if passes(value, rule, asked, kind)]
    assert rows_of(ItemFilters(pa.table({"field": column.array}), ["field"]), rule, asked) == expected
    cut = data.draw(st.integers(0, len(column.values)))
    assert rows_of(in_parts(column.array, cut), rule, asked) == expected


@pytest.mark.parametrize("kind", TIMES, ids=str)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_times_pass_to_the_nanosecond(kind, data):
    column, rule = data.draw(columns(kind)), data.draw(st.sampled_from(RULES))
    asked = [asked_times(data.draw) for _ in range(2 if rule in ("any_of", "none_of") else 1)]
    expected = [row for row, v in enumerate(column.values) if passes(v, rule, [time for _, time in asked], kind)]
    filters = ItemFilters(pa.table({"field": column.array}), ["field"])
    assert rows_of(filters, rule, [text for text, _ in asked]) == expected


@pytest.mark.parametrize("kind", [*NUMBERS, *TIMES], ids=str)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_crowding_knows_values_apart_that_differ_in_the_last_digit(kind, data):
    column = data.draw(columns(kind))
    filters = in_parts(column.array, data.draw(st.integers(0, len(column.values))))
    found = filters.values("field", np.arange(len(column.values), dtype=np.int32))
    numbers = [tuple(found[row].tolist()) for row in range(len(column.values))]
    pairs = {(value, number) for value, number in zip(column.values, numbers, strict=True) if value is not None}
    assert len(pairs) == len({value for value, _ in pairs}) == len({number for _, number in pairs})
    assert all((number == ()) == (value is None) for value, number in zip(column.values, numbers, strict=True))
