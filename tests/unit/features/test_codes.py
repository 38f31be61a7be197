"""What the codes of each kind of feature mean."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.features._history_encoder import Meeting
from recsys.features._vocabulary import MISSING, PADDING, Ragged, pad
from recsys.features.categorical import Categorical
from recsys.features.embedding import Embedding
from recsys.features.history import History
from recsys.features.id import Id
from recsys.features.multi_categorical import MultiCategorical
from recsys.features.numeric import Numeric
from recsys.features.text import Text
from recsys.forward import unpacked

ONCE = np.ones(5, np.int64)


def chunked(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def test_null_is_0_unknown_is_a_bucket_and_known_values_follow_by_frequency():
    encoder = Categorical(column="c").fit(chunked("b", "a", "b", None, "c"), ONCE)
    # 0 missing, 1 the only bucket, then b (2 rows), a and c (1 row each, by name)
    assert encoder.encode(pa.array(["b", "a", "c", None, "new"])).tolist() == [2, 3, 4, 0, 1]


def test_a_value_below_the_minimum_count_shares_the_bucket():
    encoder = Categorical(column="c", min_count=2).fit(chunked("b", "a", "b", "a", "c"), ONCE)
    assert encoder.encode(pa.array(["a", "b", "c"])).tolist() == [2, 3, 1]


def test_hashed_values_stay_within_their_buckets_and_do_not_depend_on_the_data():
    codes = Categorical(column="c", hashed=True, oov_buckets=4).fit(chunked("b"), ONCE[:1])
    other = Categorical(column="c", hashed=True, oov_buckets=4).fit(chunked("z", "y"), ONCE[:2])
    asked = pa.array([f"value {number}" for number in range(200)])
    assert set(codes.encode(asked)) == {1, 2, 3, 4}
    np.testing.assert_array_equal(codes.encode(asked), other.encode(asked))


def test_numbers_count_as_their_spelling_whatever_their_type():
    encoder = Categorical(column="c").fit(chunked("7", "8"), ONCE[:2])
    assert encoder.encode(pa.array([7, 8, 9])).tolist() == encoder.encode(pa.array(["7", "8", "9"])).tolist()
    assert encoder.encode(pa.array([7.0, 8.0])).tolist() == encoder.encode(pa.array(["7", "8"])).tolist()


def test_a_list_column_is_no_categorical_feature():
    with pytest.raises(DataError, match="multi_categorical"):
        Categorical(column="c").fit(chunked(["a"], ["b"]), ONCE[:2])


def test_an_id_needs_training_interactions_not_rows_to_get_a_vector_of_its_own():
    encoder = Id(min_count=2).fit(chunked("x", "y", "z"), np.array([2, 0, 5]))
    # z met 5 times, x 2 times; y never: it shares bucket 1
    assert encoder.encode(pa.array(["z", "x", "y"])).tolist() == [2, 3, 1]


def test_a_bag_keeps_its_first_values_and_an_empty_bag_is_missing():
    encoder = MultiCategorical(column="c", max_values=2).fit(chunked(["a", "b"], ["a"], []), ONCE[:3])
    codes = encoder.encode(pa.array([["b", "a", "b"], [], None, ["new"]]))
    assert codes.tolist() == [[3, 2], [0, -1], [0, -1], [1, -1]]


def test_a_standardised_number_is_its_z_score_and_says_whether_it_was_there():
    encoder = Numeric(column="c").fit(chunked(1.0, 3.0, None), ONCE[:3])
    # mean 2, population deviation 1
    codes = encoder.encode(pa.array([3.0, 2.0, None, float("inf")]))
    np.testing.assert_allclose(codes, [[1, 1], [0, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([500, 1500, None], pa.timestamp("ms", "Asia/Kolkata")),
        pa.array([500_000, 1_500_000, None], pa.duration("us")),
        pa.array([500, 1500, None], pa.time32("ms")),
        pa.array([500_000_000, 1_500_000_000, None], pa.time64("ns")),
    ],
    ids=lambda column: str(column.type),
)
def test_a_time_is_its_number_of_seconds_with_the_fraction(column):
    # 0.5 s and 1.5 s: mean 1, population deviation 0.5
    codes = Numeric(column="c").fit(pa.chunked_array([column]), ONCE[:3]).encode(column)
    np.testing.assert_allclose(codes, [[-1, 1], [1, 1], [0, 0]])


def test_a_constant_number_does_not_divide_by_zero():
    codes = Numeric(column="c").fit(chunked(5, 5, 5), ONCE[:3]).encode(pa.array([5, 6]))
    np.testing.assert_allclose(codes[:, 0], [0, 1])


def test_quantile_buckets_hold_equal_shares():
    values = chunked(*range(100))
    encoder = Numeric(column="c", transform="quantile", buckets=4).fit(values, np.ones(100, np.int64))
    codes = encoder.encode(values.combine_chunks())
    assert np.bincount(codes).tolist() == [0, 25, 25, 25, 25]


def test_a_text_is_its_distinct_words_and_pairs_whatever_their_case():
    encoder = Text(column="c", ngrams=2, max_terms=10).fit(chunked("x"), ONCE[:1])
    one, other = encoder.encode(pa.array(["Red car, red CAR", "red car"]))
    # "red car red car" has the words red, car and the pairs "red car", "car red"; "red car" has 2 words and 1 pair
    assert (one >= 0).sum() == 4
    assert (other >= 0).sum() == 3
    assert set(other[other >= 0]) <= set(one)


def test_a_vector_is_scaled_to_unit_length_unless_told_otherwise():
    column = chunked([3.0, 4.0])
    np.testing.assert_allclose(Embedding(column="c").fit(column, ONCE[:1]).encode(column), [[0.6, 0.8]], rtol=1e-6)
    raw = Embedding(column="c", normalised=False).fit(column, ONCE[:1])
    np.testing.assert_allclose(raw.encode(column.combine_chunks()), [[3, 4]])


@pytest.mark.parametrize(("vector", "told"), [([1.0, 2.0, 3.0], "vectors of 2"), ([1.0, float("nan")], "finite")])
def test_a_vector_of_another_length_or_with_nan_is_refused(vector, told):
    encoder = Embedding(column="c").fit(chunked([3.0, 4.0]), ONCE[:1])
    with pytest.raises(DataError, match=told):
        encoder.encode(pa.array([vector]))


def test_a_history_keeps_the_newest_items():
    encoder = History(length=2).fit(chunked("x", "y", "z"), np.array([3, 2, 1]))
    # x=2, y=3, z=4 by frequency; lists come newest first
    codes = encoder.encode(pa.array([["z", "x", "y"], ["y"], []]))
    assert codes[..., 0].tolist() == [[4, 2], [3, -1], [0, -1]]


def test_an_item_met_several_times_is_one_entry_of_that_weight_and_the_newest_age():
    encoder = History(weights="count", half_life_days=2.0).fit(chunked("x", "y"), np.array([2, 1]))
    meetings = [Meeting("y", 0.0), Meeting("x", 2.0), Meeting("x", 4.0)]
    codes, weights, ages = unpacked(encoder.encode_values([meetings])[0])
    # y=3: 1; x=2: 1/2 + 1/4
    assert (codes.tolist(), weights.tolist(), ages.tolist()) == ([3, 2], [1.0, 0.75], [0.0, 2.0])


def test_a_column_of_meetings_gets_the_codes_of_the_same_meetings_in_a_request():
    encoder = History(weights="log_count", half_life_days=3.0).fit(chunked("x", "y", "z"), np.array([3, 2, 1]))
    histories = [[("z", 0.5), ("x", 1.0), ("z", 7.0)], [], [("never met", 2.0), ("y", 90.0)]]
    column = pa.array(
        [[{"item_id": item, "age_days": age} for item, age in each] for each in histories],
        pa.list_(pa.struct([("item_id", pa.string()), ("age_days", pa.float32())])),
    )
    in_request = encoder.encode_values([[Meeting(*met) for met in each] for each in histories])
    np.testing.assert_array_equal(encoder.encode(column), in_request)
    np.testing.assert_array_equal(encoder.encode_rows(column)[np.arange(3)], in_request)


@pytest.mark.parametrize("largest", [1e38, 1e200, 1.7e308])
def test_numbers_of_any_size_have_finite_z_scores(largest):
    encoder = Numeric(column="n").fit(chunked(largest, -largest, 0.0, None, 1.0), ONCE)
    # mean 0, deviation largest / sqrt(2)
    scores = encoder.encode(pa.array([largest, -largest, 0.0]))[:, 0]
    np.testing.assert_allclose(scores, [2**0.5, -(2**0.5), 0.0], rtol=1e-6, atol=1e-6)


def test_a_number_far_beyond_what_was_trained_with_counts_as_the_largest_z_score():
    encoder = Numeric(column="n").fit(chunked(1.0, 2.0, 3.0, 2.0, 2.0), ONCE)
    assert encoder.encode(pa.array([1e300, -1.7e308])).tolist() == [[1e6, 1.0], [-1e6, 1.0]]


def test_vectors_of_any_length_in_float32_are_scaled_to_unit_length():
    encoder = Embedding(column="v").fit(chunked([3e38, 0.0], [0.0, 1e30], kind=pa.list_(pa.float32())), ONCE[:2])
    found = encoder.encode(pa.array([[3e38, 0.0], [0.0, 1e30], [3e-38, 4e-38]], pa.list_(pa.float32())))
    np.testing.assert_allclose(found[:2], [[1, 0], [0, 1]], atol=1e-6)


def test_vectors_that_are_not_scaled_and_overflow_a_tower_are_refused():
    encoder = Embedding(column="v", normalised=False).fit(chunked([1.0, 2.0]), ONCE[:1])
    assert encoder.encode(pa.array([[1e15, 0.0]])).tolist() == [[np.float32(1e15), 0.0]]
    with pytest.raises(DataError, match=r"v: got 1\.0*\d*e\+30, expected numbers .* or set normalised"):
        encoder.encode(pa.array([[1.0, 1e30]]))


@given(bags=st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=6), width=st.integers(1, 7), data=st.data())
def test_ragged_codes_become_rows_that_begin_with_their_own_codes_and_end_in_padding(bags, width, data):
    def row(bag, width):
        return ((bag or [MISSING])[:width] + [PADDING] * width)[:width]

    lengths = np.array([len(bag) for bag in bags], np.int64)
    codes = np.array([code for bag in bags for code in bag], np.int32)
    assert pad(lengths, codes, width).tolist() == [row(bag, width) for bag in bags]

    rows = data.draw(st.lists(st.integers(0, len(bags) - 1), max_size=8)) if bags else []
    longest = max([1, *(len(bags[each]) for each in rows)])
    padded = Ragged(lengths, codes)[np.array(rows, np.int64)]
    assert padded.dtype == np.int32
    assert padded.tolist() == [row(bags[each], longest) for each in rows]
