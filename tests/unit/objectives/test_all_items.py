"""The quadratic loss over the whole catalog, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.objectives._sets import Sets
from recsys.objectives.all_items import AllItems, item_gramian, query_gramian
from recsys.stack import tf


def test_own_items_are_pulled_to_1_and_all_others_to_0():
    # Scores of the one query (1, 2): items (1, 0) -> 1, (0, 1) -> 2, (1, 1) -> 3. It has met the last two.
    items = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    sets = Sets(tf.constant([0, 0]), tf.constant([1, 2]), tf.constant([1.0, 3.0]), tf.ones(3))
    found = AllItems(unobserved_weight=0.5).loss(tf.constant([[1.0, 2.0]]), items, sets)
    # met: 1 (2 - 1)^2 + 3 (3 - 1)^2 = 13; not met: 0.5 * 1^2
    assert float(found) == pytest.approx(13.5)


def test_it_is_the_mean_over_the_queries():
    items = tf.constant([[1.0], [2.0]])
    sets = Sets(tf.constant([0]), tf.constant([0]), tf.constant([1.0]), tf.ones(2))
    found = AllItems(unobserved_weight=1.0).loss(tf.constant([[1.0], [0.0]]), items, sets)
    # the first: (1 - 1)^2 + 2^2 = 4; the second, which has met nothing: 0
    assert float(found) == pytest.approx(2.0)


def test_scores_of_1_for_own_items_and_0_for_all_others_cost_nothing():
    owner, column = tf.constant([0, 0, 1, 3]), tf.constant([0, 2, 1, 4])
    queries = tf.scatter_nd(tf.stack([owner, column], axis=1), tf.ones(4), [4, 5])
    found = AllItems().loss(queries, tf.eye(5), Sets(owner, column, tf.ones(4), tf.ones(5)))
    assert float(found) == pytest.approx(0, abs=1e-6)


@st.composite
def sets(draw):
    """Draw queries, items and which of them each query has met, with weights, from a seed."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, items, dim = draw(st.integers(1, 5)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    met = random.random((batch, items)) < draw(st.floats(0, 1))
    owner, column = np.nonzero(met)
    weight = random.uniform(0, 3, len(owner))
    return random.normal(size=(batch, dim)), random.normal(size=(items, dim)), owner, column, weight


def tensors(queries, items, owner, column, weight):
    return (
        tf.Variable(queries, dtype=tf.float32),
        tf.Variable(items, dtype=tf.float32),
        Sets(
            tf.constant(owner, tf.int32),
            tf.constant(column, tf.int32),
            tf.constant(weight, tf.float32),
            tf.ones(len(items)),
        ),
    )


@settings(max_examples=40, deadline=None)
@given(sets(), st.floats(0.01, 2))
def test_the_gramian_gives_what_all_scores_give(drawn, alpha0):
    queries, items, owner, column, weight = drawn
    weights = np.full((len(queries), len(items)), alpha0)
    wanted = np.zeros_like(weights)
    weights[owner, column], wanted[owner, column] = weight, 1
    expected = (weights * (queries @ items.T - wanted) ** 2).sum() / len(queries)
    found = AllItems(unobserved_weight=alpha0).loss(*tensors(*drawn))
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(sets())
def test_with_gramians_of_this_very_step_the_running_loss_has_the_gradient_of_the_exact_one(drawn):
    given_tensors, objective = tensors(*drawn), AllItems()
    queries, items, sets = given_tensors
    with tf.GradientTape(persistent=True) as tape:
        exact = objective.loss(*given_tensors)
        running = objective.running_loss(*given_tensors, query_gramian(queries), item_gramian(items, sets.stands_for))
    assert float(running) == pytest.approx(float(exact), rel=1e-4, abs=1e-4)
    for variable in (queries, items):
        wanted = tape.gradient(exact, variable)
        np.testing.assert_allclose(tape.gradient(running, variable), wanted, rtol=1e-3, atol=1e-4)
