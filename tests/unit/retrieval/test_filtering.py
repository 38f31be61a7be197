"""A compiled filter lets pass what its conditions say, item by item."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.retrieval.filtering import FiltersOfParts, ItemFilters
from twintower.errors import RequestError
from twintower.types import Condition, Filter, FilterType

GENRES = ["comedy", "drama", "horror"]
YEARS = [1990, 1995, 2000]
ITEM = st.fixed_dictionaries(
    {
        "genre": st.none() | st.sampled_from(GENRES),
        "tags": st.none() | st.lists(st.sampled_from(GENRES), max_size=3),
        "year": st.none() | st.sampled_from(YEARS),
        "new": st.none() | st.booleans(),
    }
)
SCHEMA = pa.schema({"genre": pa.string(), "tags": pa.list_(pa.string()), "year": pa.int32(), "new": pa.bool_()})
VALUES = {
    "genre": st.sampled_from([*GENRES, "never"]),
    "tags": st.sampled_from([*GENRES, "never"]),
    "year": st.sampled_from([*YEARS, 1991.5]),
    "new": st.booleans(),
}
LOWER = st.fixed_dictionaries({}) | st.one_of(
    st.fixed_dictionaries({name: st.sampled_from([1989, 1990, 1992])}) for name in ("minimum", "exclusive_minimum")
)
UPPER = st.one_of(
    st.fixed_dictionaries({name: st.sampled_from([1993, 1995, 2001])}) for name in ("maximum", "exclusive_maximum")
)


@st.composite
def conditions(draw):
    field = draw(st.sampled_from(sorted(VALUES)))
    if field == "year" and draw(st.booleans()):
        return Condition(field, **draw(LOWER), **draw(UPPER))
    values = tuple(draw(st.lists(VALUES[field], min_size=1, max_size=3)))
    return Condition(field, **{draw(st.sampled_from(["any_of", "none_of"])): values})


def passes(item, condition):
    """The definition, for one item."""
    value = item[condition.field]
    held = value if isinstance(value, list) else [] if value is None else [value]
    if condition.any_of is not None:
        return any(each in condition.any_of for each in held)
    if condition.none_of is not None:
        return not any(each in condition.none_of for each in held)
    return any(
        (condition.minimum is None or each >= condition.minimum)
        and (condition.exclusive_minimum is None or each > condition.exclusive_minimum)
        and (condition.maximum is None or each <= condition.maximum)
        and (condition.exclusive_maximum is None or each < condition.exclusive_maximum)
        for each in held
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=12), st.lists(conditions(), max_size=4))
def test_an_item_passes_where_all_conditions_hold(items, asked):
    filters = ItemFilters(pa.Table.from_pylist(items, SCHEMA), SCHEMA.names)
    allowed = filters.allowed(Filter(tuple(asked)), "filter")
    expected = [row for row, item in enumerate(items) if all(passes(item, condition) for condition in asked)]
    assert allowed.rows.tolist() == expected
    assert allowed.count == len(expected)


def in_parts(items, cut, hidden):
    parts = [ItemFilters(pa.Table.from_pylist(each, SCHEMA), SCHEMA.names) for each in (items[:cut], items[cut:])]
    return FiltersOfParts(parts, np.array(hidden))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ITEM, st.booleans()), min_size=1, max_size=12), st.data())
def test_in_parts_the_same_items_pass_but_for_hidden_ones(given_items, data):
    items, hidden = [item for item, _ in given_items], [hides for _, hides in given_items]
    asked = data.draw(st.lists(conditions(), max_size=3))
    filters = in_parts(items, data.draw(st.integers(0, len(items))), hidden)
    expected = [
        row for row, item in enumerate(items) if not hidden[row] and all(passes(item, condition) for condition in asked)
    ]
    assert filters.allowed(Filter(tuple(asked)), "filter").rows.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=12), st.sampled_from(sorted(VALUES)), st.data())
def test_in_parts_equal_values_have_one_number_and_others_have_others(items, field, data):
    filters = in_parts(items, data.draw(st.integers(0, len(items))), [False] * len(items))
    rows = data.draw(st.permutations(range(len(items))))
    found = filters.values(field, np.array(rows, np.int32))
    held = [items[row][field] if isinstance(items[row][field], list) else [items[row][field]] for row in rows]
    pairs = {
        (value, number)
        for place, values in enumerate(held)
        for value, number in zip(sorted(set(values) - {None}), sorted(found[place].tolist()), strict=True)
        if len(set(values) - {None}) == 1
    }
    assert [len(found[place]) for place in range(len(rows))] == [len(set(values) - {None}) for values in held]
    assert len(pairs) == len({value for value, _ in pairs}) == len({number for _, number in pairs})


@pytest.fixture(scope="module")
def filters():
    items = pa.table(
        {
            "genre": ["comedy", None],
            "year": [1990, 1995],
            "new": [True, False],
            "day": pa.array([0, 1], pa.date32()),
            "vector": [[1.0], [2.0]],
        }
    )
    return ItemFilters(items, items.column_names)


def test_columns_that_hold_something_else_are_left_out(filters):
    assert filters.types == {
        "genre": FilterType.STRING,
        "year": FilterType.NUMBER,
        "new": FilterType.BOOL,
        "day": FilterType.TIME,
    }


@pytest.mark.parametrize(
    ("condition", "field", "reason"),
    [
        (Condition("gerne", any_of=("a",)), "field", "no column to filter by named 'gerne'. Did you mean 'genre'?"),
        (Condition("vector", any_of=(1.0,)), "field", "Known: day, genre, new, year."),
        (Condition("genre"), "", "got 0 rules, expected one of: any_of, none_of, a range with a bound"),
        (Condition("genre", any_of=("a",), none_of=("b",)), "", "got 2 rules"),
        (Condition("year", any_of=(1,), minimum=1), "", "got 2 rules"),
        (Condition("genre", any_of=()), "any_of", "got none, expected at least 1"),
        (Condition("genre", any_of="comedy"), "any_of", "got 'comedy', expected a tuple of values"),
        (Condition("genre", any_of=("a", 1)), "any_of[1]", "got 1, expected a string, as 'genre' holds"),
        (Condition("year", none_of=("1990",)), "none_of[0]", "got '1990', expected a number of at most 76 digits"),
        (Condition("year", any_of=(True,)), "any_of[0]", "got True, expected a number"),
        (Condition("year", any_of=(float("nan"),)), "any_of[0]", "got nan, expected a number"),
        (Condition("year", any_of=(10**400,)), "any_of[0]", "expected a number"),
        (Condition("year", any_of=(Decimal("1e76"),)), "any_of[0]", "expected a number"),
        (Condition("year", any_of=(Decimal("1e-77"),)), "any_of[0]", "expected a number"),
        (Condition("year", any_of=(Decimal("sNaN"),)), "any_of[0]", "expected a number"),
        (Condition("day", any_of=(3,)), "any_of[0]", "got 3, expected a time such as 2020-12-31"),
        (Condition("day", minimum="2020-02-30"), "range.minimum", "got '2020-02-30', expected a time"),
        (Condition("day", minimum="2020", maximum="2021"), "range.minimum", "got '2020', expected a time"),
        (
            Condition("day", minimum="2020-01-01T01:00+01:00", exclusive_maximum="2019-12-31T23:59:59.999999999"),
            "range",
            "expected the lower bound first",
        ),
        (Condition("new", any_of=(1,)), "any_of[0]", "got 1, expected true or false, as 'new' holds"),
        (Condition("genre", minimum=1), "range", "got bounds, expected any_of or none_of: 'genre' holds no numbers or"),
        (Condition("year", minimum=float("nan")), "range.minimum", "got nan, expected a number"),
        (Condition("year", minimum=1, exclusive_minimum=1), "range", "got minimum and exclusive_minimum, expected one"),
        (
            Condition("year", minimum=2, exclusive_maximum=1),
            "range",
            "got minimum 2 and exclusive_maximum 1, expected the lower bound first",
        ),
    ],
)
def test_a_condition_that_makes_no_sense_is_the_callers_mistake(filters, condition, field, reason):
    # After a good one, also of the same value by Python's equality: what was compiled before excuses nothing.
    filters.allowed(Filter((Condition("new", any_of=(True,)),)), "filter")
    with pytest.raises(RequestError) as caught:
        filters.allowed(Filter((Condition("year", minimum=0), condition)), "filter")
    assert caught.value.field == ".".join(part for part in ("filter.all_of[1]", field) if part)
    assert reason in caught.value.reason


def test_truth_values_are_not_numbers_although_python_says_they_are_equal(filters):
    filters.allowed(Filter((Condition("new", any_of=(True,)),)), "filter")
    with pytest.raises(RequestError):
        filters.allowed(Filter((Condition("new", any_of=(1,)),)), "filter")


def test_a_filter_that_was_asked_before_is_not_compiled_again(filters):
    asked = Filter((Condition("year", minimum=1991),))
    assert filters.allowed(asked, "filter") is filters.allowed(Filter((Condition("year", minimum=1991),)), "filter")


def test_what_was_compiled_before_answers_only_filters_of_the_same_meaning():
    # The long decimal equals the float 0.1 in Python; the column's decimal is what 0.1 is spelled.
    filters = ItemFilters(pa.table({"price": [Decimal("0.1"), Decimal("0.5")]}), ["price"])
    for value, rows in ((0.1, [0]), (Decimal.from_float(0.1), []), (Decimal("0.10"), [0]), (0.5, [1])):
        assert filters.allowed(Filter((Condition("price", any_of=(value,)),)), "filter").rows.tolist() == rows


def test_without_conditions_every_item_passes(filters):
    np.testing.assert_array_equal(filters.allowed(Filter(), "filter").mask, [True, True])
