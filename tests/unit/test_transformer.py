"""The transformer over a history reads order and time, never the future, and means the same in NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from recsys.forward import PlainTower, packed
from recsys.layers import EmbeddingTable, FeatureSum, Lookup
from recsys.numpy_transformer import GAP_BUCKETS, gap_buckets
from recsys.stack import tf
from recsys.transformer import HistoryTransformer, _gap_buckets

ROWS, WIDTH, POSITIONS = 9, 8, 6
LENGTHS = st.lists(st.integers(0, POSITIONS), min_size=1, max_size=5)


def layer(heads=2, blocks=2, dropout_rate=0.0, time_gaps=True):
    table = EmbeddingTable(ROWS, WIDTH, 2, "items")
    made = HistoryTransformer(
        table,
        blocks=blocks,
        heads=heads,
        positions=POSITIONS,
        dropout_rate=dropout_rate,
        time_gaps=time_gaps,
        name="history",
    )
    made(tf.constant(histories([1])))
    random = np.random.default_rng(5)
    for each in made.trainable_variables:
        each.assign(random.normal(size=each.shape))
    return made


def histories(lengths, seed=0, width=None):
    """Codes of random histories, newest first, padded with -1; an empty one is a single 0."""
    random = np.random.default_rng(seed)
    codes = np.full((len(lengths), width or max([1, *lengths]), 3), -1, np.int32)
    for row, length in enumerate(lengths):
        if length == 0:
            codes[row, 0] = packed(np.int32(0), np.float32(1), np.float32(-1))
        ages = np.sort(random.exponential(10, length)).astype(np.float32)
        codes[row, :length] = packed(random.integers(1, ROWS, length, dtype=np.int32), np.ones(length), ages)
    return codes


@effort(max_examples=30, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99), kept=st.integers(0, POSITIONS - 1))
def test_the_output_at_a_position_changes_with_no_later_item(lengths, seed, kept):
    made, codes = layer(), histories(lengths, seed, POSITIONS)
    changed = codes.copy()
    other = histories([POSITIONS] * len(lengths), seed + 1)
    later = codes[:, :kept, 0] > 0
    changed[:, :kept][later] = other[:, :kept][later]
    # The newest of the earlier items keeps its age; all later ages change.
    position = np.array([(row, place) for row, n in enumerate(lengths) for place in range(kept, n)], np.int32)
    if len(position):
        one, two = made.at(codes, position), made.at(changed, position)
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_the_output_at_a_position_changes_with_each_earlier_item():
    made, codes = layer(), histories([POSITIONS])
    before = made.at(codes, np.array([[0, 2]], np.int32)).numpy()
    for place in range(2, POSITIONS):
        changed = codes.copy()
        changed[0, place, 0] = 1 + changed[0, place, 0] % (ROWS - 1)
        assert not np.allclose(made.at(changed, np.array([[0, 2]], np.int32)).numpy(), before, atol=1e-4)


@effort(max_examples=30, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_training_at_the_newest_position_is_the_vector_that_is_served(lengths, seed):
    made, codes = layer(), histories(lengths, seed)
    newest = np.array([(row, 0) for row in range(len(lengths))], np.int32)
    trained = made.at(codes, newest, seed=tf.constant([1, 2])).numpy()
    np.testing.assert_allclose(trained, made(codes).numpy(), atol=1e-5)


@effort(max_examples=50, deadline=None)
@given(
    lengths=LENGTHS,
    seed=st.integers(0, 99),
    heads=st.sampled_from([1, 2, 4]),
    blocks=st.integers(1, 3),
    time_gaps=st.booleans(),
)
def test_both_forms_give_the_same_vectors(lengths, seed, heads, blocks, time_gaps):
    made, codes = layer(heads, blocks, time_gaps=time_gaps), histories(lengths, seed)
    tower = FeatureSum({"history": made}, WIDTH, 0.0, augmented=False, length="query", name="tower")
    expected = tower({"history": tf.constant(codes)}).numpy()
    np.testing.assert_allclose(tower.plain()({"history": codes}), expected, atol=1e-5)


def test_the_stored_form_gives_the_same_vectors_bit_for_bit(tmp_path):
    made, codes = layer(), histories([3, 0, 6])
    plain = FeatureSum({"history": made}, WIDTH, 0.0, augmented=False, length="none", name="tower").plain()
    plain.save(tmp_path / "tower")
    np.testing.assert_array_equal(PlainTower.load(tmp_path / "tower")({"history": codes}), plain({"history": codes}))


@effort(max_examples=30, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99), wider=st.integers(0, 4))
def test_padding_and_other_histories_of_a_batch_change_nothing(lengths, seed, wider):
    plain = FeatureSum({"history": layer()}, WIDTH, 0.0, augmented=False, length="none", name="tower").plain()
    codes = histories(lengths, seed)
    together = plain({"history": codes})
    padded = np.pad(codes, ((0, 0), (0, min(wider, POSITIONS - codes.shape[1])), (0, 0)), constant_values=-1)
    np.testing.assert_allclose(plain({"history": padded}), together, atol=1e-5)
    for row, length in enumerate(lengths):
        alone = plain({"history": codes[row : row + 1, : max(length, 1)]})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_an_empty_history_is_zeros_in_both_forms():
    made, codes = layer(), histories([0, 2])
    plain = FeatureSum({"history": made}, WIDTH, 0.0, augmented=False, length="none", name="tower").plain()
    assert not made(codes).numpy()[0].any()
    assert not plain({"history": codes})[0].any()
    assert made(codes).numpy()[1].any()


def test_order_matters():
    made, codes = layer(time_gaps=False), histories([4])
    turned = codes.copy()
    turned[0, :4, 0] = codes[0, 3::-1, 0]
    assert not np.allclose(made(codes), made(turned), atol=1e-3)


def test_gaps_between_items_count_and_the_time_of_the_query_does_not():
    made = layer()
    days = np.array([[2.0, 5.0, 5.0, 300.0]], np.float32)
    of = lambda ages: made(packed(np.array([[3, 4, 5, 6]], np.int32), np.ones((1, 4)), ages)).numpy()  # noqa: E731
    np.testing.assert_array_equal(of(days), of(days + 64))
    assert not np.allclose(of(days), of(days * 2), atol=1e-3)


def test_a_gap_has_a_bucket_for_each_doubling_of_its_minutes():
    minutes = np.cumsum([0, 0, 1, 2, 60, 1440, 1e9])[None]
    ages, is_item = (minutes / 1440).astype(np.float32), np.ones((1, 7), bool)
    # log2(1 + minutes), rounded: 0 -> 0, 1 -> 1, 2 -> 1.58 -> 2, 60 -> 5.93 -> 6, a day -> 10.49 -> 10; the last one
    # has no item before.
    assert gap_buckets(ages, is_item).tolist() == [[1, 2, 3, 7, 11, GAP_BUCKETS - 1, 0]]


@effort(max_examples=50, deadline=None)
@given(
    st.lists(st.just(-1.0) | st.floats(0, 1e5, width=32, allow_subnormal=False), min_size=1, max_size=8),
    st.integers(0, 8),
)
def test_both_forms_put_gaps_into_the_same_buckets(ages, items):
    ages, is_item = np.sort(np.array([ages], np.float32)), np.arange(len(ages))[None] < items
    np.testing.assert_array_equal(_gap_buckets(tf.constant(ages), tf.constant(is_item)), gap_buckets(ages, is_item))


def test_an_age_that_is_not_known_makes_no_gap():
    ages = np.array([[-1.0, -1.0, 3.0, 4.0]], np.float32)
    assert gap_buckets(ages, np.ones((1, 4), bool)).tolist() == [[0, 0, 11, 0]]


def test_dropout_is_a_function_of_the_seed():
    made, codes = layer(dropout_rate=0.5), histories([4, 2])
    one, again, other = (made(codes, seed=tf.constant([7, step])).numpy() for step in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_other_features_keep_their_vectors_at_earlier_positions(training):
    table = EmbeddingTable(4, WIDTH, 1, "town")
    tower = FeatureSum(
        {"history": layer(), "town": Lookup(table, name="town_layer")},
        WIDTH,
        0.0,
        augmented=False,
        length="none",
        name="t",
    )
    codes = {"history": tf.constant(histories([3, 5])), "town": tf.constant([1, 3])}
    position = tf.constant([[0, 0], [1, 0], [1, 4]])
    seed = tf.constant([1, 2]) if training else None
    found = tower.raw(codes, seed, position).numpy()
    history = tower.features["history"].at(codes["history"], position, None).numpy()
    np.testing.assert_allclose(found - history, table(tf.constant([1, 3, 3])).numpy(), atol=1e-5)
