"""Revisions of one query: values by hand, pairs, margins, whose side is pushed, brute force, nothing to find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.errors import ShapeError
from recsys.objectives.comparative import Comparative
from recsys.stack import tf

# One query. Candidate 0 is relevant, 1 is wrong, 2 is left out. At temperature 1 the losses of three revisions are
# log(1 + e^0) = 0.693, log(1 + e^-1) = 0.313 and log(1 + e^1) = 1.313.
SCORES = [[[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]]
RELEVANT, LEFT_OUT, COUNTS = [[True, False, False]], [[False, False, True]], [[0, 2, 5]]
LOSSES = [math.log(2), math.log(1 + math.exp(-1)), math.log(1 + math.e)]


def loss(scores, relevant, left_out=None, log_q=None, counts=None, **settings):
    scores, relevant = tf.constant(scores, tf.float32), tf.constant(relevant)
    left_out = tf.zeros_like(relevant) if left_out is None else tf.constant(left_out)
    log_q = tf.zeros(scores.shape[2]) if log_q is None else tf.constant(log_q, tf.float32)
    counts = np.tile(np.arange(scores.shape[1]), (scores.shape[0], 1)) if counts is None else counts
    objective = Comparative(**{"temperature": 1.0} | settings)
    return float(objective.loss(scores, relevant, left_out, log_q, tf.constant(counts, tf.int32)))


def compared(losses, counts, **settings):
    objective = Comparative(temperature=1.0, **settings)
    return float(objective.comparison(tf.constant(losses, tf.float32), tf.constant(counts, tf.int32)))


def test_the_value_by_hand_on_three_revisions():
    # pairs, more feedback against less: 2 against 0 is better: 0; 5 against 0: 1.313 - 0.693; 5 against 2: exactly 1,
    # for log(1 + e) - log(1 + 1/e) = 1. Their mean, times the weight of 0.5
    hinge = (0 + LOSSES[2] - LOSSES[0] + 1) / 3
    expected = sum(LOSSES) / 3 + 0.5 * hinge
    assert loss(SCORES, RELEVANT, LEFT_OUT, counts=COUNTS, weight=0.5) == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_zero_leaves_the_mean_over_the_revisions():
    assert loss(SCORES, RELEVANT, LEFT_OUT, counts=COUNTS, weight=0) == pytest.approx(sum(LOSSES) / 3, rel=1e-6)


def test_the_temperature_divides():
    # scores of 0 and 1 at 0.5 lie 2 apart
    expected = (math.log(2) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 3
    assert loss(SCORES, RELEVANT, LEFT_OUT, weight=0, temperature=0.5) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("losses", [[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
def test_nothing_is_compared_where_losses_do_not_increase_with_feedback(losses):
    assert compared([losses], [[0, 1, 4]]) == 0


def test_a_pair_goes_by_the_counts_and_not_by_the_place():
    # the first has more feedback and the larger loss: 2 - 0.5; exchanged, more feedback has the smaller loss
    assert compared([[2.0, 0.5]], [[4, 1]]) == pytest.approx(1.5)
    assert compared([[2.0, 0.5]], [[1, 4]]) == 0
    order = [2, 0, 1]
    shuffled = loss(np.array(SCORES)[:, order], RELEVANT, LEFT_OUT, counts=np.array(COUNTS)[:, order])
    assert shuffled == pytest.approx(loss(SCORES, RELEVANT, LEFT_OUT, counts=COUNTS), rel=1e-6)


def test_all_pairs_of_all_queries_count_the_same():
    # The first query has two pairs, each 1 too much: its equal counts are no pair. The second has three: 0 after 3 is
    # right, 5 after 3 is 2 too much, 5 after 0 is 5 too much.
    losses, counts = [[1.0, 2.0, 2.0], [3.0, 0.0, 5.0]], [[0, 1, 1], [0, 1, 2]]
    assert compared(losses, counts) == pytest.approx((1 + 1 + 0 + 2 + 5) / 5)


def test_a_single_revision_has_nothing_to_be_compared_with():
    assert compared([[2.0]], [[3]]) == 0
    assert loss([[[0.0, 0.0]]], [[True, False]], counts=[[3]]) == pytest.approx(math.log(2))


def test_a_margin_asks_for_that_much_less_loss():
    # 0.7 falls short of a margin of 1 by 0.3, and of one of 0.5 by nothing
    assert compared([[1.7, 1.0]], [[0, 1]], margin=1.0) == pytest.approx(0.3)
    assert compared([[1.7, 1.0]], [[0, 1]], margin=0.5) == 0
    # the wrong way round it comes on top: 0.7 + 1
    assert compared([[1.0, 1.7]], [[0, 1]], margin=1.0) == pytest.approx(1.7)


@pytest.mark.parametrize(("stop_gradient", "of_less"), [(False, -1.0), (True, 0.0)])
def test_with_stop_gradient_only_the_side_with_more_feedback_is_pushed(stop_gradient, of_less):
    losses = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        hinge = Comparative(stop_gradient=stop_gradient).comparison(losses, tf.constant([[0, 3]]))
    assert float(hinge) == pytest.approx(1)
    np.testing.assert_allclose(tape.gradient(hinge, losses).numpy(), [[of_less, 1.0]])


def brute_force(scores, relevant, left_out, log_q, temperature, pool):
    """Return the loss of each revision, `[batch, revisions]`, by the formula, one relevant item at a time."""
    losses = np.zeros(scores.shape[:2])
    for query, revision in np.ndindex(*losses.shape):
        powers = np.exp(scores[query, revision].astype(np.float64) / temperature)
        wrong = ~relevant[query] & ~left_out[query]
        denominator = (powers / np.exp(log_q))[wrong].sum()
        each = [-np.log(powers[p] / (powers[p] + denominator)) for p in np.flatnonzero(relevant[query])]
        losses[query, revision] = pool(each) if each else 0
    return losses


@pytest.mark.parametrize(("positives", "pool"), [("all", np.mean), ("hardest", np.max)])
def test_the_losses_are_those_of_brute_force_with_left_out_items_and_sampled_ones(positives, pool):
    random = np.random.default_rng(0)
    scores = random.uniform(-1, 1, (6, 3, 12)).astype(np.float32)
    relevant = random.random((6, 12)) < 0.3
    relevant[2] = False
    left_out = (random.random((6, 12)) < 0.2) & ~relevant
    log_q = np.where(np.arange(12) < 7, 0, np.log(0.05)).astype(np.float32)
    expected = brute_force(scores, relevant, left_out, log_q, 0.2, pool)
    found = Comparative(temperature=0.2, positives=positives).revision_losses(
        tf.constant(scores), tf.constant(relevant), tf.constant(left_out), tf.constant(log_q)
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (expected[2] == 0).all()


def test_an_item_that_is_left_out_does_not_count_whatever_its_score():
    with_it = loss([[[0.0, 0.0, 50.0]]], [[True, False, False]], [[False, False, True]])
    assert with_it == pytest.approx(math.log(2), rel=1e-6)


def test_relevant_items_do_not_push_each_other_away():
    # both alone against one wrong item of the same score: log 2 each, however far apart they were
    assert loss([[[0.0, 0.0, 0.0]]], [[True, True, False]]) == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("positives", ["all", "hardest"])
@pytest.mark.parametrize("answered", [[0], []])
def test_a_query_without_relevant_items_costs_nothing_and_has_no_gradient(positives, answered):
    scores = tf.Variable(np.random.default_rng(1).uniform(-1, 1, (2, 2, 5)).astype(np.float32))
    relevant = np.zeros((2, 5), bool)
    relevant[answered, 1] = True
    with tf.GradientTape() as tape:
        total = Comparative(positives=positives).loss(
            scores, tf.constant(relevant), tf.zeros((2, 5), tf.bool), tf.zeros(5), tf.constant([[0, 1], [0, 1]])
        )
    gradient = tf.convert_to_tensor(tape.gradient(total, scores)).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[1] == 0).all()
    assert (np.abs(gradient[0]).max() > 0) == bool(answered)
    assert (float(total) > 0) == bool(answered)


def test_where_everything_else_is_relevant_or_left_out_nothing_can_be_wrong():
    assert loss([[[-3.0, 2.0, 9.0]]], [[True, True, False]], [[False, False, True]]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("positives", ["all", "hardest"])
def test_the_gradient_is_that_of_finite_differences(positives):
    random = np.random.default_rng(3)
    scores = random.uniform(-1, 1, (2, 3, 6))
    relevant, left_out = np.zeros((2, 6), bool), np.zeros((2, 6), bool)
    relevant[:, :2] = left_out[:, 5] = True
    log_q, counts = [0, 0, 0, -0.7, -0.7, -0.7], [[2, 0, 5], [1, 3, 0]]
    settings = {"temperature": 0.5, "positives": positives, "margin": 0.1}
    variable = tf.Variable(scores, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = Comparative(**settings).loss(
            variable, tf.constant(relevant), tf.constant(left_out), tf.constant(log_q), tf.constant(counts)
        )
    numeric, step = np.zeros(scores.shape), 1e-2
    for place in np.ndindex(*scores.shape):
        moved = [scores.copy(), scores.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        ends = [loss(each, relevant, left_out, log_q, counts, **settings) for each in moved]
        numeric[place] = (ends[0] - ends[1]) / (2 * step)
    assert np.abs(numeric).max() > 0.05
    np.testing.assert_allclose(tape.gradient(total, variable).numpy(), numeric, atol=1e-3)


def test_a_graph_for_any_number_of_queries_and_candidates_gives_the_same():
    objective = Comparative(temperature=1.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3, None]),
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None]),
            tf.TensorSpec([None, 3], tf.int32),
        ]
    )
    def graph(*arguments):
        return objective.loss(*arguments)

    arguments = map(tf.constant, (SCORES, RELEVANT, LEFT_OUT, [0.0, 0.0, 0.0], COUNTS))
    assert float(graph(*arguments)) == pytest.approx(loss(SCORES, RELEVANT, LEFT_OUT, counts=COUNTS), rel=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"counts": [[0, 2]]},
        {"log_q": [0.0, 0.0]},
        {"relevant": [[True, False, False]] * 2},
        {"left_out": [[False, True]]},
    ],
)
def test_arguments_that_do_not_fit_each_other_are_refused(changed):
    arguments = {"scores": SCORES, "relevant": RELEVANT, "left_out": LEFT_OUT, "counts": COUNTS} | changed
    with pytest.raises(ShapeError, match=r"^comparative: got \[\(1, 3, 3\), .*expected \[batch, revisions, candidates"):
        loss(**arguments)
