"""Slices of items and of cases, by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.slices import activity_slices, item_slices


def rows(members):
    return {name: np.flatnonzero(member).tolist() for name, member in members.items()}


def test_twenty_items_are_cut_into_head_torso_tail_and_cold():
    # Counts 20, 19, ..., 7 for items 0..13 and 0 for items 14..19. Head: ceil(20 / 10) = 2 items, 0 and 1.
    # 14 trained - 2 head = 12 others; the lower half, 6, are 8..13; 2..7 remain.
    counts = np.concatenate([np.arange(20, 6, -1), np.zeros(6, int)])
    assert rows(item_slices(counts)) == {
        "head": [0, 1],
        "torso": [2, 3, 4, 5, 6, 7],
        "tail": [8, 9, 10, 11, 12, 13],
        "cold": [14, 15, 16, 17, 18, 19],
    }


def test_of_items_with_the_same_count_the_lower_row_counts_as_the_more_popular():
    # Ten items, all with count 4: head is item 0; of nine others floor(9 / 2) = 4 are tail, the last rows.
    assert rows(item_slices(np.full(10, 4))) == {
        "head": [0],
        "torso": [1, 2, 3, 4, 5],
        "tail": [6, 7, 8, 9],
        "cold": [],
    }


def test_an_item_without_training_interactions_is_cold_even_where_the_head_has_room():
    # Thirty items, one trained: the head could hold three but takes only that one.
    counts = np.zeros(30, int)
    counts[17] = 5
    members = rows(item_slices(counts))
    assert members["head"] == [17]
    assert len(members["cold"]) == 29


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_every_item_belongs_to_exactly_one_slice_and_slices_follow_the_counts(values):
    counts = np.array(values)
    members = item_slices(counts)
    assert (np.sum(list(members.values()), axis=0) == 1).all()
    for upper, lower in (("head", "torso"), ("torso", "tail"), ("tail", "cold")):
        assert counts[members[upper]].min(initial=99) >= counts[members[lower]].max(initial=0)


def test_cases_are_cut_into_thirds_by_the_activity_of_those_who_ask():
    assert rows(activity_slices(np.array([0, 10, 1, 7, 2, 9, 0, 3]))) == {
        "new": [0, 6],
        "light": [2, 4],
        "medium": [3, 7],
        "heavy": [1, 5],
    }


def test_cases_of_the_same_activity_stay_together():
    # 1, 1, 1, 1, 5, 6: a third of six is reached at activity 1, and so are two thirds: nothing lies between.
    assert rows(activity_slices(np.array([1, 1, 1, 1, 5, 6]))) == {
        "new": [],
        "light": [0, 1, 2, 3],
        "medium": [],
        "heavy": [4, 5],
    }


def test_where_nobody_is_known_all_cases_are_new():
    assert rows(activity_slices(np.zeros(3, int))) == {"new": [0, 1, 2], "light": [], "medium": [], "heavy": []}
