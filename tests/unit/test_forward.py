"""The NumPy form of a tower gives the vectors of the Keras layer, whatever it is made of, and survives being stored."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ReleaseError
from recsys.forward import DESCRIPTION, Field, PlainTower, weighted_sums
from recsys.layers import BagLookup, Dense, EmbeddingTable, Lookup, Perceptron
from recsys.stack import tf

RANDOM = np.random.default_rng(3)
CODES = {
    "color": np.array([0, 3, 6, 1], np.int32),
    "tags": np.array([[1, 2, -1], [0, -1, -1], [6, 6, 5], [4, 1, 0]], np.int32),
    "words": np.array([[1, 2, -1], [0, -1, -1], [6, 6, 5], [4, 1, 0]], np.int32),
    "terms": np.array([[1, 2, -1], [0, -1, -1], [6, 6, 5], [4, 1, 0]], np.int32),
    "price": RANDOM.normal(size=(4, 2)).astype(np.float32),
}


def layer(activation: str = "relu", hidden: tuple[int, ...] = (8, 7), policy: str = "float32") -> Perceptron:
    """A tower of every kind of layer, called once so that it has weights; two features share a table."""
    shared, own = EmbeddingTable(7, 4, 2, "shared"), EmbeddingTable(7, 3, 2, "own")
    features = {
        "color": Lookup(shared, name="color"),
        "tags": BagLookup(shared, "mean", name="tags"),
        "words": BagLookup(own, "sqrt", name="words"),
        "terms": BagLookup(own, "sum", name="terms"),
        "price": Dense(2, name="price"),
    }
    tower = Perceptron(features, hidden, 5, activation, 0.0, policy=policy, augmented=False, name="tower")
    tower({name: tf.constant(codes) for name, codes in CODES.items()})
    for each in tower.trainable_variables:
        each.assign(RANDOM.normal(size=each.shape))
    return tower


@pytest.mark.parametrize("activation", ["relu", "gelu", "selu", "tanh"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 7)], ids=str)
def test_both_forms_give_the_same_vectors(activation, hidden):
    tower = layer(activation, hidden)
    expected = tower({name: tf.constant(codes) for name, codes in CODES.items()}).numpy()
    found = tower.plain()(CODES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_table_that_two_features_share_is_held_once():
    assert sorted(table.shape for table in layer().plain().tables.values()) == [(7, 3), (7, 4)]


def test_a_bag_counts_values_and_no_padding():
    table = {"t": np.array([[9.0, 9], [1, 0], [0, 2], [4, 4]], np.float32)}
    codes = np.array([[1, 2, -1, -1]], np.int32)
    # Sum (1, 0) + (0, 2) = (1, 2); two values.
    assert Field("t", "sum").vectors(codes, table).tolist() == [[1, 2]]
    assert Field("t", "mean").vectors(codes, table).tolist() == [[0.5, 1]]
    np.testing.assert_allclose(Field("t", "sqrt").vectors(codes, table), [[1 / 2**0.5, 2 / 2**0.5]], rtol=1e-6)


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_bags_of_any_lengths_are_the_weighted_sums_of_their_vectors(sizes, seed):
    random = np.random.default_rng(seed)
    codes, weights = np.full((len(sizes), max(sizes)), -1, np.int32), np.zeros((len(sizes), max(sizes)), np.float32)
    table = random.integers(-3, 4, (50, 3)).astype(np.float32)
    expected = np.zeros((len(sizes), 3), np.float32)
    for row, size in enumerate(sizes):
        codes[row, :size] = random.integers(0, 50, size)
        weights[row, :size] = random.integers(1, 5, size)
        # Whole numbers below 2^24 add up exactly in any order.
        expected[row] = (table[codes[row, :size]] * weights[row, :size, None]).sum(axis=0)
    np.testing.assert_array_equal(weighted_sums(table, codes, weights), expected)


def test_a_long_bag_takes_no_memory_for_the_short_ones_of_its_batch():
    table = {"t": np.ones((10, 256), np.float32)}
    codes = np.full((64, 10_000), -1, np.int32)
    codes[:, 0], codes[5] = 3, 3
    tracemalloc.start()
    try:
        found = Field("t", "sum").vectors(codes, table)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found[:7, 0].tolist() == [1, 1, 1, 1, 1, 10_000, 1]
    # The vectors of all places would be 64 * 10,000 * 256 * 4 bytes = 655 MB; weights and codes of all are 5 MB.
    assert peak_bytes < 30e6


def test_zeros_stay_zeros():
    tower = PlainTower({"x": Field()}, "relu", {}, ((np.zeros((2, 3), np.float32), np.zeros(3, np.float32)),))
    assert tower({"x": np.ones((1, 2), np.float32)}).tolist() == [[0, 0, 0]]


def test_what_was_stored_gives_the_same_vectors_bit_for_bit(tmp_path):
    plain = layer().plain()
    plain.save(tmp_path / "tower")
    np.testing.assert_array_equal(PlainTower.load(tmp_path / "tower")(CODES), plain(CODES))


def test_hidden_layers_of_lower_precision_have_no_such_form():
    assert layer(policy="mixed_bfloat16").plain() is None


def test_a_form_of_a_newer_version_is_refused(tmp_path: Path):
    layer().plain().save(tmp_path / "tower")
    description = tmp_path / "tower" / DESCRIPTION
    description.write_text(json.dumps(json.loads(description.read_text()) | {"activation": "swish"}))
    with pytest.raises(ReleaseError, match="swish"):
        PlainTower.load(tmp_path / "tower")
