"""Histories never look at the example's own instant or later."""

from __future__ import annotations

import numpy as np

from recsys.data.history import Past
from recsys.types import Interactions

RANDOM = np.random.default_rng(0)


def rows(*values):
    return np.array(values, np.int32)


def test_an_example_sees_only_strictly_earlier_items_newest_first():
    # query 0 meets 5, then 6 and 7 in one basket, then 8; query 1 meets 9 first
    met = Interactions(rows(0, 0, 0, 0, 1), rows(5, 6, 7, 8, 9), np.array([1, 2, 2, 3, 0]))
    before = Past(met, 2).before(np.arange(5), 3, RANDOM)
    assert before.tolist() == [[-1, -1, -1], [5, -1, -1], [5, -1, -1], [7, 6, 5], [-1, -1, -1]]


def test_at_the_end_everything_counts_and_a_query_without_interactions_has_no_history():
    met = Interactions(rows(0, 0, 2), rows(5, 6, 7), np.array([1, 2, 3]))
    assert Past(met, 3).until_end(rows(0, 1, 2), 2).tolist() == [[6, 5], [-1, -1], [7, -1]]


def test_only_the_newest_items_fit():
    met = Interactions(rows(0, 0, 0), rows(5, 6, 7), np.array([1, 2, 3]))
    assert Past(met, 1).until_end(rows(0), 2).tolist() == [[7, 6]]


def test_without_times_the_history_is_the_other_items_and_never_the_example_s_own():
    met = Interactions(rows(0, 0, 0, 1), rows(5, 6, 7, 8))
    for _ in range(20):
        first, _, _, alone = Past(met, 2).before(np.arange(4), 4, RANDOM).tolist()
        assert sorted(first) == [-1, -1, 6, 7]
        assert first[2:] == [-1, -1]
        assert alone == [-1, -1, -1, -1]


def test_without_times_a_long_history_is_drawn_from_all_of_the_items():
    met = Interactions(np.zeros(50, np.int32), np.arange(50, dtype=np.int32))
    past = Past(met, 1)
    seen = {item for _ in range(60) for item in past.before(np.array([0]), 5, RANDOM)[0]}
    assert len(seen) > 40


def test_without_times_the_history_at_the_end_does_not_depend_on_who_else_is_asked_for():
    met = Interactions(np.repeat(np.arange(20, dtype=np.int32), 50), np.tile(np.arange(50, dtype=np.int32), 20))
    past = Past(met, 20)
    together = past.until_end(np.arange(20), 5)
    assert (together >= 0).all()
    np.testing.assert_array_equal(past.until_end(np.arange(0, 20, 3), 5), together[::3])
