"""The cosine contrastive loss, computed by hand."""

from __future__ import annotations

import pytest

from recsys.objectives._sets import Sets
from recsys.objectives.cosine_contrastive import CosineContrastive
from recsys.stack import tf

QUERY = [[1.0, 0.0]]
ITEMS = [[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]]
"""Cosines .6, .8 and -1."""


def loss(stands_for=(1.0, 1.0, 1.0), **settings):
    sets = Sets(tf.constant([0]), tf.constant([0]), tf.constant([1.0]), tf.constant(stands_for))
    return float(CosineContrastive(**settings).loss(tf.constant(QUERY), tf.constant(ITEMS), sets))


def test_others_cost_what_they_are_above_the_margin_on_average():
    # own: 1 - .6 = .4; others: (max(0, .8 - .5) + max(0, -1 - .5)) / 2 = .15, ten times
    assert loss(margin=0.5, negative_weight=10.0) == pytest.approx(0.4 + 1.5)


def test_the_mean_over_others_is_one_over_the_items_they_stand_for():
    # (3 * .3 + 1 * 0) / 4 = .225; the own item, however often drawn, is none of them
    assert loss((5.0, 3.0, 1.0), margin=0.5, negative_weight=10.0) == pytest.approx(0.4 + 2.25)


def test_no_others_at_all_cost_nothing():
    assert loss((1.0, 0.0, 0.0), margin=0.5, negative_weight=10.0) == pytest.approx(0.4)
