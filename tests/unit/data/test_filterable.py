"""Item columns as inverted lists: what can be filtered by, and what counts as a value."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from recsys.data.filterable import FilterColumn, check_filters, filter_type
from recsys.errors import DataError
from twintower.types import Condition, FilterType

DAY = datetime.date(1970, 1, 2)
NOON = datetime.datetime(1970, 1, 1, 12, tzinfo=datetime.UTC)


def column(values, kind=None):
    array = pa.chunked_array([pa.array(values, kind)])
    found = filter_type(array.type)
    assert found is not None
    return FilterColumn.of(array, found)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.string(), FilterType.STRING),
        (pa.large_string(), FilterType.STRING),
        (pa.dictionary(pa.int32(), pa.string()), FilterType.STRING),
        (pa.list_(pa.string()), FilterType.STRINGS),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), FilterType.STRINGS),
        (pa.int8(), FilterType.NUMBER),
        (pa.float32(), FilterType.NUMBER),
        (pa.decimal128(5, 2), FilterType.NUMBER),
        (pa.date32(), FilterType.TIME),
        (pa.timestamp("ns", "Europe/Paris"), FilterType.TIME),
        (pa.bool_(), FilterType.BOOL),
        (pa.list_(pa.float32()), None),
        (pa.list_(pa.float32(), 3), None),
        (pa.struct([("a", pa.int8())]), None),
        (pa.binary(), None),
    ],
)
def test_strings_numbers_times_and_truth_values_can_be_filtered_by(kind, expected):
    assert filter_type(kind) is expected


@pytest.mark.parametrize(
    ("values", "kind", "asked", "expected"),
    [
        (["a", None, "b", "a"], None, "a", [0, 3]),
        (["a", None, "b", "a"], pa.dictionary(pa.int8(), pa.string()), "b", [2]),
        ([["a", "b"], None, [], ["b"], [None, "b"]], pa.list_(pa.string()), "b", [0, 3, 4]),
        ([True, None, False], None, False, [2]),
        ([1, None, 3, 1], pa.int64(), 1, [0, 3]),
        ([1.5, float("nan"), None], None, 1.5, [0]),
        ([Decimal("1.25"), None], pa.decimal128(5, 2), 1.25, [0]),
        # a day has 86,400 seconds
        ([None, DAY], pa.date32(), 86_400, [1]),
        ([NOON, None], pa.timestamp("ms", "UTC"), 43_200, [0]),
    ],
)
def test_a_value_finds_the_rows_that_hold_it(values, kind, asked, expected):
    rows = column(values, kind).passing(Condition("field", any_of=(asked,)))
    assert sorted(rows.tolist()) == expected


def test_a_value_that_no_item_has_finds_nothing():
    assert column(["a"]).passing(Condition("field", any_of=("b",))).tolist() == []
    assert column([1.0]).passing(Condition("field", any_of=(2,))).tolist() == []
    assert column([None], pa.float64()).passing(Condition("field", any_of=(2,))).tolist() == []


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"minimum": 2}, [0, 2, 3]),
        ({"exclusive_minimum": 2}, [2, 3]),
        ({"maximum": 2}, [0, 1]),
        ({"exclusive_maximum": 2}, [1]),
        ({"minimum": 2, "exclusive_maximum": 3}, [0]),
        ({"exclusive_minimum": 2, "exclusive_maximum": 2}, []),
    ],
)
def test_bounds_include_or_exclude_the_number_itself(bounds, expected):
    rows = column([2.0, 1.0, 3.0, 7.5, None]).passing(Condition("field", **bounds))
    assert sorted(rows.tolist()) == expected


def test_a_column_that_cannot_be_filtered_by_is_refused_with_its_type():
    items = pa.table({"vector": [[1.0]], "price": [1.0]})
    with pytest.raises(DataError, match=r"item\.filters: vector: got list<.*expected strings, lists of strings"):
        check_filters(["vector"], items)
    with pytest.raises(DataError, match=r"item\.filters: no column named 'prize'\. Did you mean 'price'\?"):
        check_filters(["prize"], items)
    check_filters(["price"], items)
