"""An id has one spelling, whatever type carries it; a number that its type cannot hold exactly is no id."""

from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.ids import id_texts

CARRIERS = {
    "int64": lambda number: pa.array([number], pa.int64()),
    "float64": lambda number: pa.array([float(number)], pa.float64()),
    "decimal": lambda number: pa.array([Decimal(number)], pa.decimal128(30, 4)),
    "wide decimal": lambda number: pa.array([Decimal(number)], pa.decimal256(60, 20)),
    "string": lambda number: pa.array([str(number)], pa.string()),
    "large string": lambda number: pa.array([str(number)], pa.large_string()),
    "string view": lambda number: pa.array([str(number)], pa.string_view()),
    "dictionary of strings": lambda number: pa.array([str(number)]).dictionary_encode(),
    "dictionary of floats": lambda number: pa.array([float(number)]).dictionary_encode(),
}


@given(number=st.integers(-(2**53) + 1, 2**53 - 1))
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_whole_number_has_one_spelling_in_every_type(carrier, number):
    assert id_texts(CARRIERS[carrier](number), "user_id").to_pylist() == [str(number)]


@given(number=st.floats())
def test_a_float_is_a_whole_number_that_no_neighbor_shares_or_missing_or_refused(number):
    values = pa.array([number], pa.float64())

    if np.isnan(number):
        assert id_texts(values, "user_id").to_pylist() == [None]
    # From 2 ** 53 on, a number and the next one are the same float.
    elif abs(number) < 2**53 and number == int(number):
        assert id_texts(values, "user_id").to_pylist() == [str(int(number))]
    else:
        with pytest.raises(DataError, match=r"^user_id: got .*double.*Store the column as string or int64"):
            id_texts(values, "user_id")


@pytest.mark.parametrize(("kind", "bits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)])
def test_each_float_type_ends_where_it_begins_to_merge_numbers(kind, bits):
    first_merged = pa.array(np.array([2.0**bits], kind.to_pandas_dtype()))
    last_exact = pa.array(np.array([2.0**bits - 1], kind.to_pandas_dtype()))

    assert id_texts(last_exact, "user_id").to_pylist() == [str(2**bits - 1)]
    with pytest.raises(DataError, match=rf"expected whole numbers below 2\*\*{bits}"):
        id_texts(first_merged, "user_id")


def test_negative_zero_is_zero_and_nothing_is_missing():
    assert id_texts(pa.array([-0.0, None, float("nan")]), "user_id").to_pylist() == ["0", None, None]
    assert id_texts(pa.array(["", None, "0"]), "user_id").to_pylist() == [None, None, "0"]
    assert id_texts(pa.nulls(1), "user_id").to_pylist() == [None]


def test_integers_beyond_floats_and_text_with_leading_zeros_stay_as_they_are():
    assert id_texts(pa.array([2**63 - 1, -(2**63)]), "user_id").to_pylist() == [f"{2**63 - 1}", f"{-(2**63)}"]
    assert id_texts(pa.array([2**64 - 1], pa.uint64()), "user_id").to_pylist() == [str(2**64 - 1)]
    assert id_texts(pa.array(["007", "7.0"]), "user_id").to_pylist() == ["007", "7.0"]


def test_a_decimal_with_a_fraction_is_refused_with_its_value():
    with pytest.raises(DataError, match=r"^user_id: got 5\.50 \(decimal128\(9, 2\)\), expected whole numbers\. Store"):
        id_texts(pa.array([None, Decimal("5.00"), Decimal("5.50")], pa.decimal128(9, 2)), "user_id")


@pytest.mark.parametrize("values", [[True], [b"x"], [["a"]], [{"a": 1}]])
def test_other_types_are_refused_by_type(values):
    array = pa.array(values)

    with pytest.raises(DataError) as refused:
        id_texts(array, "user_id")

    assert str(refused.value).startswith(f"user_id: got {array.type}, expected integer or string ids.")


def test_a_uuid_is_its_usual_text():
    unique = UUID("12345678-1234-5678-1234-567812345678")

    assert id_texts(pa.array([unique.bytes, None], pa.uuid()), "user_id").to_pylist() == [str(unique), None]


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_any_text_survives_as_an_id(ids):
    assert id_texts(pa.array(ids), "user_id").to_pylist() == ids
