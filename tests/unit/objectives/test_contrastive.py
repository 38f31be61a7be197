"""The second task: value by hand, its directions, what is no negative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.objectives.contrastive import Contrastive
from recsys.objectives.spread_out import SpreadOut
from recsys.stack import tf

# s = 0.8 and 1 in the first row, 0.96 and 0.6 in the second
VIEW, OTHER = [[1.0, 0.0], [0.6, 0.8]], [[0.8, 0.6], [1.0, 0.0]]


def unit(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def loss(view, other, not_negative=None, **settings):
    none = np.zeros((len(view), len(view)), bool)
    objective = Contrastive(**{"temperature": 0.5} | settings)
    return float(
        objective.loss(
            tf.constant(view), tf.constant(other), tf.constant(none if not_negative is None else not_negative)
        )
    )


def test_the_value_by_hand():
    # temperature 0.5 doubles the scores. First item: log(e^1.6 + e^2) - 1.6 = log(1 + e^0.4);
    # second: log(e^1.92 + e^1.2) - 1.2 = log(1 + e^0.72)
    expected = (math.log(1 + math.exp(0.4)) + math.log(1 + math.exp(0.72))) / 2
    assert loss(VIEW, OTHER) == pytest.approx(expected, rel=1e-6)


def test_the_negatives_are_those_of_the_other_view_only():
    # exchanged, the columns of s become its rows. First item: 0.8 against 0.96, log(1 + e^0.32);
    # second: 0.6 against 1, log(1 + e^0.8)
    expected = (math.log(1 + math.exp(0.32)) + math.log(1 + math.exp(0.8))) / 2
    assert loss(OTHER, VIEW) == pytest.approx(expected, rel=1e-6)
    assert abs(loss(VIEW, OTHER) - loss(OTHER, VIEW)) > 1e-3


def test_symmetric_is_the_mean_of_both_directions():
    # the four numbers of the two tests above
    expected = sum(math.log(1 + math.exp(gap)) for gap in (0.4, 0.72, 0.32, 0.8)) / 4
    assert loss(VIEW, OTHER, symmetric=True) == pytest.approx(expected, rel=1e-6)
    assert loss(OTHER, VIEW, symmetric=True) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_pair_that_is_no_negative_leaves_the_denominator(symmetric):
    view, other = unit(3, 4), unit(3, 4, seed=1)
    pairs = np.zeros((3, 3), bool)
    pairs[0, 2] = pairs[2, 0] = True
    scores = np.exp(view.astype(np.float64) @ other.T / 0.5)
    scores[pairs] = 0
    expected = -np.log(np.diag(scores) / scores.sum(axis=1)).mean()
    if symmetric:
        expected = (expected - np.log(np.diag(scores) / scores.sum(axis=0)).mean()) / 2
    assert loss(view, other, pairs, symmetric=symmetric) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_equal_views_only_push_apart(symmetric):
    view = unit(5, 4)
    spread = SpreadOut(temperature=0.5).loss(tf.constant(view), tf.constant(view), tf.zeros((5, 5), tf.bool))
    assert loss(view, view, symmetric=symmetric) == pytest.approx(float(spread), rel=1e-5)


def test_views_that_agree_and_lie_apart_cost_nothing():
    # cosines 1 and -1 at temperature 0.07: log(1 + e^(-2 / 0.07)), some 4e-13
    view = [[1.0, 0.0], [-1.0, 0.0]]
    assert loss(view, view, temperature=0.07) == pytest.approx(0, abs=1e-6)


def test_views_that_are_all_alike_cost_the_logarithm_of_the_batch():
    view = [[0.6, 0.8]] * 4
    assert loss(view, view) == pytest.approx(math.log(4), rel=1e-6)
