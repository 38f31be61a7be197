"""Crowding and maximal marginal relevance, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.retrieval.diversity import choose
from recsys.types import RowSets
from tests.mined import sets

RELEVANCE = np.array([0.9, 0.8, 0.5], np.float32)
VECTORS = np.array([[1, 0], [1, 0], [0, 1]], np.float32)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # First always 0. Then candidate 1: (1 - w) 0.8 - w 1, candidate 2: (1 - w) 0.5 - w 0.
        # w = 0: 0.8 against 0.5
        (0.0, [0, 1, 2]),
        # w = 0.2: 0.64 - 0.2 = 0.44 against 0.4
        (0.2, [0, 1, 2]),
        # w = 0.25: 0.6 - 0.25 = 0.35 against 0.375
        (0.25, [0, 2, 1]),
        # w = 1: -1 against 0
        (1.0, [0, 2, 1]),
    ],
)
def test_relevance_and_distance_to_the_items_above_are_weighed(weight, expected):
    assert choose(RELEVANCE, 3, mmr_weight=weight, vectors=VECTORS).tolist() == expected


def test_the_nearest_item_above_counts_not_their_mean():
    # After 0 = (1, 0) and 1 = (0, 1), candidate 2 = (1, 0) lies on one of them (1), 3 = (0.6, 0.8) between them (0.8).
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    relevance = np.array([1, 0.9, 0.5, 0.5], np.float32)
    assert choose(relevance, 4, mmr_weight=0.6, vectors=vectors).tolist() == [0, 1, 3, 2]


def test_the_length_of_item_vectors_does_not_count_as_likeness():
    assert choose(RELEVANCE, 3, mmr_weight=0.25, vectors=VECTORS * np.float32(9)).tolist() == [0, 2, 1]


def test_at_most_so_many_items_of_one_value_are_chosen():
    relevance = np.arange(6, 0, -1).astype(np.float32)
    # values: a a a b - b
    values = sets([0], [0], [0], [1], [], [1])
    assert choose(relevance, 6, values=values, max_per_value=1).tolist() == [0, 3, 4]
    assert choose(relevance, 6, values=values, max_per_value=2).tolist() == [0, 1, 3, 4, 5]
    assert choose(relevance, 2, values=values, max_per_value=1).tolist() == [0, 3]


def test_an_item_of_several_values_counts_for_each():
    # 0 has both values, so neither 1 nor 2 may follow
    assert choose(RELEVANCE, 3, values=sets([0, 1], [0], [1]), max_per_value=1).tolist() == [0]


def test_crowding_and_distance_work_together():
    # by distance 2 follows 0, then only the value of 1 is left
    chosen = choose(RELEVANCE, 3, mmr_weight=0.5, vectors=VECTORS, values=sets([0], [1], [0]), max_per_value=1)
    assert chosen.tolist() == [0, 1]


def test_nothing_to_choose_from_gives_nothing():
    assert choose(RELEVANCE[:0], 3, mmr_weight=0.5, vectors=VECTORS[:0], values=RowSets.empty(0)).tolist() == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 3), st.integers(1, 30))
def test_crowding_alone_keeps_the_best_of_each_value_in_their_order(codes, most, k):
    relevance = np.linspace(1, 0, len(codes)).astype(np.float32)
    chosen = choose(relevance, k, values=sets(*([code] for code in codes)), max_per_value=most).tolist()
    expected = [place for place, code in enumerate(codes) if codes[:place].count(code) < most][:k]
    assert chosen == expected
