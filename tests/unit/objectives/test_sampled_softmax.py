"""The main objective: value by hand, gradient, invariances, correction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.errors import ShapeError
from recsys.objectives.sampled_softmax import SampledSoftmax
from recsys.stack import tf

OBJECTIVE = SampledSoftmax()


def unit(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def loss(queries, candidates, *, log_q=None, known=None, weight=None, temperature=1.0):
    batch, count = len(queries), len(candidates)
    return OBJECTIVE.loss(
        tf.constant(queries, tf.float32),
        tf.constant(candidates, tf.float32),
        tf.constant(np.zeros(count) if log_q is None else log_q, tf.float32),
        tf.constant(np.zeros((batch, count), bool) if known is None else known),
        tf.constant(np.ones(batch) if weight is None else weight, tf.float32),
        tf.constant(temperature, tf.float32),
    )


def test_the_value_by_hand():
    # one query (1, 0); its item has s = 0.6, the other candidate s = 0; temperature 0.5
    # logits 1.2 and 0: loss = log(e^1.2 + e^0) - 1.2 = log(1 + e^-1.2)
    value = loss([[1, 0]], [[0.6, 0.8], [0, 1]], temperature=0.5).numpy()
    assert value == pytest.approx(math.log(1 + math.exp(-1.2)), rel=1e-6)


def test_the_correction_is_taken_off_after_the_division_by_temperature_and_off_the_positive_too():
    # p = 0.2 for the positive, 0.4 for the other: logits 1.2 - ln 0.2 and 0 - ln 0.4
    value = loss([[1, 0]], [[0.6, 0.8], [0, 1]], temperature=0.5, log_q=np.log([0.2, 0.4])).numpy()
    positive, other = math.exp(1.2) / 0.2, 1 / 0.4
    assert value == pytest.approx(-math.log(positive / (positive + other)), rel=1e-6)


def test_a_correction_that_is_the_same_for_all_changes_nothing():
    queries, candidates = unit(4, 3), unit(6, 3, seed=1)
    shifted = loss(queries, candidates, log_q=np.full(6, -20.0)).numpy()
    assert shifted == pytest.approx(loss(queries, candidates).numpy(), rel=1e-5)


def test_probabilities_far_below_a_millionth_still_count():
    queries, candidates = unit(2, 3), unit(2, 3, seed=1)
    rare, rarer = (loss(queries, candidates, log_q=np.log([0.5, p])).numpy() for p in (1e-9, 1e-12))
    assert abs(rare - rarer) > 1.0


def test_a_known_positive_is_no_negative():
    queries, candidates = unit(2, 3), unit(3, 3, seed=1)
    known = np.array([[False, True, False], [False, False, False]])
    masked = loss(queries[:1], candidates, known=known[:1]).numpy()
    assert masked == pytest.approx(loss(queries[:1], candidates[[0, 2]]).numpy(), rel=1e-5)


def test_a_weight_counts_an_example_that_many_times():
    queries, candidates = unit(3, 3), unit(5, 3, seed=1)
    each = [
        loss(queries[[row]], np.concatenate([candidates[[row]], np.delete(candidates, row, axis=0)])).numpy()
        for row in range(3)
    ]
    weighted = loss(queries, candidates, weight=[2, 0, 1]).numpy()
    assert weighted == pytest.approx((2 * each[0] + each[2]) / 3, rel=1e-5)


def test_the_order_of_the_examples_does_not_matter():
    queries, candidates = unit(5, 3), unit(5, 3, seed=1)
    order = [3, 1, 4, 0, 2]
    assert loss(queries[order], candidates[order]).numpy() == pytest.approx(loss(queries, candidates).numpy(), rel=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    queries, candidates = unit(3, 4), unit(5, 4, seed=1)
    log_q, known = np.log([0.1, 0.2, 0.3, 0.05, 0.15]), np.zeros((3, 5), bool)
    known[0, 3] = True
    variable = tf.Variable(queries)
    with tf.GradientTape() as tape:
        value = OBJECTIVE.loss(
            variable, tf.constant(candidates), tf.constant(log_q, tf.float32), tf.constant(known),
            tf.constant([1.0, 2.0, 0.5]), tf.constant(0.3),
        )  # fmt: skip
    analytic = tape.gradient(value, variable).numpy()
    numeric, step = np.zeros_like(queries), 1e-2
    for place in np.ndindex(queries.shape):
        moved = [queries.copy(), queries.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (
            loss(each, candidates, log_q=log_q, known=known, weight=[1, 2, 0.5], temperature=0.3).numpy()
            for each in moved
        )
        numeric[place] = (up - down) / (2 * step)
    np.testing.assert_allclose(analytic, numeric, atol=5e-3)


def test_eager_and_graph_agree():
    queries, candidates = unit(4, 3), unit(6, 3, seed=1)
    graph = tf.function(lambda: loss(queries, candidates, temperature=0.1))
    assert graph().numpy() == pytest.approx(loss(queries, candidates, temperature=0.1).numpy(), rel=1e-6)


@pytest.mark.parametrize("candidates", [unit(4, 5), unit(2, 3)])
def test_vectors_that_do_not_fit_are_refused(candidates):
    with pytest.raises(ShapeError, match=r"expected \[batch, dim\] and \[candidates >= batch, dim\]"):
        loss(unit(3, 3), candidates)
