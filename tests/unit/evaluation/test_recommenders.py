"""Exact ranking of the whole catalogue, block by block."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ShapeError
from recsys.evaluation.recommenders import VectorRecommender, largest_scores
from recsys.types import RowSets


def test_the_largest_scores_come_first_and_equal_ones_by_lower_row():
    scores = np.array([[1, 3, 2, 3, 2, 2]], np.float32)
    best = largest_scores(scores, 4)
    assert best.item_rows.tolist() == [[1, 3, 2, 4]]
    assert best.scores.tolist() == [[3, 3, 2, 2]]


def test_what_may_not_be_shown_is_padding_at_the_end():
    best = largest_scores(np.array([[-np.inf, 5, -np.inf], [1, 2, 3]], np.float32), 2)
    assert best.item_rows.tolist() == [[1, -1], [2, 1]]
    assert best.scores.tolist() == [[5, -np.inf], [3, 2]]


def test_more_places_than_items_are_padded():
    assert largest_scores(np.array([[1, 2]], np.float32), 4).item_rows.tolist() == [[1, 0, -1, -1]]


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_scores_full_of_ties_are_ranked_as_a_stable_sort_ranks_them(seed, items, k):
    scores = np.random.default_rng(seed).integers(0, 3, (4, items)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert np.array_equal(largest_scores(scores, k).item_rows[:, : min(k, items)], expected)


def test_excluded_items_are_left_out_for_their_case_only():
    # Both cases ask the same; inner products are 3, 2, 1. Case 0 may not be shown item 0.
    recommender = VectorRecommender(
        np.ones((2, 1), np.float32),
        np.array([[3], [2], [1]], np.float32),
        RowSets.from_pairs(np.array([0]), np.array([0]), 2),
    )
    assert recommender.recommend(np.array([0, 1]), 2).item_rows.tolist() == [[1, 2], [0, 1]]
    assert recommender.recommend(np.array([1]), 2).item_rows.tolist() == [[0, 1]]


def test_scores_of_many_cases_are_never_all_in_memory_at_once():
    # 4,000 cases x 30,000 items x 4 bytes = 480 MB of scores, were they held together.
    generator = np.random.default_rng(0)
    queries, items = (generator.normal(size=(count, 2)).astype(np.float32) for count in (4_000, 30_000))
    recommender = VectorRecommender(queries, items)
    tracemalloc.start()
    ranked = recommender.recommend(np.arange(4_000), 3).item_rows
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 250e6
    for case in (0, 1_999, 3_999):
        assert ranked[case, 0] == np.argmax(items @ queries[case])


def test_a_vector_that_is_not_finite_is_refused_before_the_search():
    with pytest.raises(ShapeError, match="item_vectors"):
        VectorRecommender(np.ones((1, 2), np.float32), np.array([[1, np.nan]], np.float32))


def test_vectors_of_different_dim_are_refused():
    with pytest.raises(ShapeError, match="dim 3"):
        VectorRecommender(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32))


def test_exclusions_for_another_number_of_cases_are_refused():
    with pytest.raises(ShapeError, match="2 cases"):
        VectorRecommender(
            np.ones((2, 1), np.float32), np.ones((3, 1), np.float32), RowSets.from_pairs(np.array([]), np.array([]), 5)
        )
