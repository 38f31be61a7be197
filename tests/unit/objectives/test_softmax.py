"""The softmax over the whole catalog, against all probabilities written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from recsys.objectives._sets import Sets
from recsys.objectives.softmax import Softmax
from recsys.stack import tf


def loss(objective, queries, items, met, weight, stands_for):
    owner, column = (each.astype(np.int32) for each in np.nonzero(met))
    queries, items, weight, stands_for = (
        tf.constant(each, tf.float32) for each in (queries, items, weight[met], stands_for)
    )
    return float(objective.loss(queries, items, Sets(tf.constant(owner), tf.constant(column), weight, stands_for)))


def world(seed=0):
    random = np.random.default_rng(seed)
    met = random.random((6, 9)) < 0.3
    met[0, 0] = True
    return random.normal(size=(6, 3)), random.normal(size=(9, 3)), met, random.uniform(0.5, 2, (6, 9))


def test_it_is_the_mean_surprise_at_own_items_by_weight():
    queries, items, met, weight = world()
    logits = queries @ items.T / 0.5
    surprise = logsumexp(logits, axis=1, keepdims=True) - logits
    expected = (weight * met * surprise).sum() / (weight * met).sum()
    found = loss(Softmax(temperature=0.5), queries, items, met, weight, np.ones(9))
    assert found == pytest.approx(expected, rel=1e-5)


def test_with_the_own_items_aside_samples_give_the_sum_over_the_catalog_on_average():
    # One query, own item 0 of 9. Each of the 8 samples {0, j} of the other items stands for 8 of them.
    queries, items, _, _ = world()
    queries, met = queries[:1], np.zeros((1, 2), bool)
    met[0, 0] = True
    own = float(queries[0] @ items[0])
    partitions = []
    for other in range(1, 9):
        pair = items[[0, other]]
        found = loss(Softmax(temperature=1), queries, pair, met, np.ones((1, 2)), np.array([0.0, 8.0]))
        partitions.append(np.exp(found + own))
    assert np.mean(partitions) == pytest.approx(np.exp(queries @ items.T).sum(), rel=1e-4)


def test_the_same_item_drawn_and_met_counts_once():
    queries, items, _, _ = world()
    met = np.array([[True, False]])
    drawn, aside = (
        loss(Softmax(temperature=1), queries[:1], items[:2], met, np.ones((1, 2)), np.array([stands_for, 8.0]))
        for stands_for in (8.0, 0.0)
    )
    assert drawn == pytest.approx(aside, rel=1e-6)
