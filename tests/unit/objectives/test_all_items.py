"""The quadratic loss over the whole catalog, computed by hand."""

from __future__ import annotations

import pytest

from recsys.objectives.all_items import AllItems
from recsys.stack import tf


def test_own_items_are_pulled_to_1_and_all_others_to_0():
    # Scores of the one query (1, 2): items (1, 0) -> 1, (0, 1) -> 2, (1, 1) -> 3. It has met the last two.
    items = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    owner, item_row, weight = tf.constant([0, 0]), tf.constant([1, 2]), tf.constant([1.0, 3.0])
    found = AllItems(unobserved_weight=0.5).loss(tf.constant([[1.0, 2.0]]), items, owner, item_row, weight)
    # met: 1 (2 - 1)^2 + 3 (3 - 1)^2 = 13; not met: 0.5 * 1^2
    assert float(found) == pytest.approx(13.5)


def test_it_is_the_mean_over_the_queries():
    items = tf.constant([[1.0], [2.0]])
    found = AllItems(unobserved_weight=1.0).loss(
        tf.constant([[1.0], [0.0]]), items, tf.constant([0]), tf.constant([0]), tf.constant([1.0])
    )
    # the first: (1 - 1)^2 + 2^2 = 4; the second, which has met nothing: 0
    assert float(found) == pytest.approx(2.0)
