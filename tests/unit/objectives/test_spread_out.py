"""Spread-out regularisation: both forms by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.objectives.spread_out import SpreadOut
from recsys.stack import tf

# cosines 0.6 between the first and the second, 0 between the first and the third, 0.8 between the last two
ITEMS = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]
NO_PAIR = np.zeros((3, 3), bool)
FIRST_TWO = np.array([[False, True, False], [True, False, False], [False, False, False]])


def loss(not_negative=NO_PAIR, items=ITEMS, **settings):
    objective = SpreadOut(**{"temperature": 0.5} | settings)
    return float(objective.loss(tf.constant(items), tf.constant(items), tf.constant(not_negative)))


def test_the_softmax_form_by_hand():
    # each item is its own positive, with score 1; temperature 0.5 doubles all scores
    expected = [
        math.log(1 + math.exp(1.2 - 2) + math.exp(0 - 2)),
        math.log(1 + math.exp(1.2 - 2) + math.exp(1.6 - 2)),
        math.log(1 + math.exp(0 - 2) + math.exp(1.6 - 2)),
    ]
    assert loss() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_the_square_form_by_hand():
    # sums of squares of the other cosines: 0.36 + 0, 0.36 + 0.64, 0 + 0.64; their mean is 2 / 3
    assert loss(form="square") == pytest.approx(2 / 3, rel=1e-5)


def test_the_square_form_knows_no_temperature():
    assert loss(form="square", temperature=0.1) == loss(form="square", temperature=0.9)


def test_a_pair_that_need_not_lie_apart_is_left_out_of_the_softmax_form():
    expected = [
        math.log(1 + math.exp(0 - 2)),
        math.log(1 + math.exp(1.6 - 2)),
        math.log(1 + math.exp(0 - 2) + math.exp(1.6 - 2)),
    ]
    assert loss(FIRST_TWO) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_a_pair_that_need_not_lie_apart_is_left_out_of_the_square_form():
    # 0 + 0.64 + 0.64, over three
    assert loss(FIRST_TWO, form="square") == pytest.approx(1.28 / 3, rel=1e-5)


@pytest.mark.parametrize("form", ["softmax", "square"])
def test_a_step_down_the_gradient_moves_two_items_apart(form):
    items = tf.Variable(ITEMS[:2])
    with tf.GradientTape() as tape:
        value = SpreadOut(form=form, temperature=0.5).loss(items, items, tf.zeros((2, 2), tf.bool))
    moved = tf.math.l2_normalize(items - 0.05 * tape.gradient(value, items), axis=1).numpy()
    assert moved[0] @ moved[1] < 0.6 - 0.01
