"""Histories never look at the example's own instant or later."""

from __future__ import annotations

import numpy as np

from recsys.data.history import DAY_US, Past, weighted
from recsys.features.history import History
from recsys.types import Interactions

RANDOM = np.random.default_rng(0)


def rows(*values):
    return np.array(values, np.int32)


def listed(met):
    """The items of each owner."""
    return [part.tolist() for part in np.split(met.item_row, np.cumsum(met.lengths)[:-1])]


def test_an_example_sees_only_strictly_earlier_items_newest_first():
    # query 0 meets 5, then 6 and 7 in one basket, then 8; query 1 meets 9 first
    met = Interactions(rows(0, 0, 0, 0, 1), rows(5, 6, 7, 8, 9), np.array([1, 2, 2, 3, 0]))
    before = Past(met, 2).before(np.arange(5), 3, RANDOM)
    assert listed(before) == [[], [5], [5], [7, 6, 5], []]


def test_at_the_end_everything_counts_and_a_query_without_interactions_has_no_history():
    met = Interactions(rows(0, 0, 2), rows(5, 6, 7), np.array([1, 2, 3]))
    assert listed(Past(met, 3).until_end(rows(0, 1, 2), 2)) == [[6, 5], [], [7]]


def test_only_the_newest_items_fit():
    met = Interactions(rows(0, 0, 0), rows(5, 6, 7), np.array([1, 2, 3]))
    assert listed(Past(met, 1).until_end(rows(0), 2)) == [[7, 6]]


def test_ages_count_to_the_example_in_training_and_to_the_last_interaction_of_all_at_the_end():
    # Days 0, 1 and 3 for query 0, day 10 for query 1.
    met = Interactions(rows(0, 0, 0, 1), rows(5, 6, 5, 7), np.array([0, 1, 3, 10]) * DAY_US)
    past = Past(met, 2)
    before, end = past.before(np.arange(4), 0, RANDOM), past.until_end(rows(0, 1), 0)
    assert before.age_days.tolist() == [1, 2, 3]  # day 1: 0; day 3: 1, 0
    assert (listed(end), end.age_days.tolist()) == ([[5, 6, 5], [7]], [7, 9, 10, 0])
    assert Past(met, 2, now=12 * DAY_US).until_end(rows(1), 0).age_days.tolist() == [2]


def test_how_much_was_met_is_weighed_by_how_often_and_how_long_ago():
    # Item 5 met 0, 3 and 6 days before the end, item 6 three days before it.
    met = Interactions(rows(0, 0, 0, 0), rows(5, 5, 6, 5), np.array([0, 3, 3, 6]) * DAY_US)
    for weights, half_life_days, expected in (
        ("none", 0.0, [1, 1]),
        ("count", 0.0, [3, 1]),
        ("log_count", 0.0, [2, 1]),  # log2(1 + 3), log2(1 + 1)
        ("count", 3.0, [1.75, 0.5]),  # 1 + 1/2 + 1/4
        ("none", 3.0, [1, 0.5]),
    ):
        feature = History(weights=weights, half_life_days=half_life_days)
        np.testing.assert_allclose(weighted(met, 2, 8, feature).toarray()[0, 5:7], expected, rtol=1e-6)


def test_without_times_the_history_is_the_other_items_and_never_the_example_s_own():
    met = Interactions(rows(0, 0, 0, 1), rows(5, 6, 7, 8))
    for _ in range(20):
        first, _, _, alone = listed(Past(met, 2).before(np.arange(4), 4, RANDOM))
        assert sorted(first) == [6, 7]
        assert alone == []


def test_without_times_a_long_history_is_drawn_from_all_of_the_items():
    met = Interactions(np.zeros(50, np.int32), np.arange(50, dtype=np.int32))
    past = Past(met, 1)
    seen = {item for _ in range(60) for item in past.before(np.array([0]), 5, RANDOM).item_row.tolist()}
    assert len(seen) > 40


def test_without_times_the_history_at_the_end_does_not_depend_on_who_else_is_asked_for():
    met = Interactions(np.repeat(np.arange(20, dtype=np.int32), 50), np.tile(np.arange(50, dtype=np.int32), 20))
    past = Past(met, 20)
    together = listed(past.until_end(np.arange(20), 5))
    assert all(len(items) == 5 for items in together)
    assert listed(past.until_end(np.arange(0, 20, 3), 5)) == together[::3]
