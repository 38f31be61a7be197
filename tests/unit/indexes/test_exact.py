"""Exact search: ties, blocks and the bound that spares it from sorting everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.indexes import ExactSearcher
from recsys.indexes._exact import largest


def test_ties_go_to_the_lower_row():
    # Scores for (1, 0): rows 0..5 give 1, 3, 2, 3, 2, 3; best first, lower row first among equals.
    vectors = np.array([[1, 0], [3, 0], [2, 0], [3, 9], [2, 0], [3, 0]], np.float32)

    neighbours = ExactSearcher(vectors).search(np.array([[1, 0]], np.float32), 4)

    assert neighbours.item_rows.tolist() == [[1, 3, 5, 2]]
    assert neighbours.scores.tolist() == [[3.0, 3.0, 3.0, 2.0]]


@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=600),
    places=st.integers(1, 12),
)
def test_the_largest_are_those_that_a_full_stable_sort_puts_first(scores, places):
    values = np.array(scores, np.float32)
    k = min(places, len(values))

    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]

    assert largest(values, k).tolist() == expected


@pytest.mark.parametrize(("batch", "items"), [(1, 5_000_000), (130, 40_000)])
def test_catalogues_and_batches_larger_than_a_block_of_memory_are_ranked_as_one(batch, items):
    # Whole numbers: sums are exact in float32 whatever their order, so that ties stay ties.
    draw = np.random.default_rng(0)
    vectors = draw.integers(-99, 100, (items, 2)).astype(np.float32)
    queries = draw.integers(-9, 10, (batch, 2)).astype(np.float32)

    neighbours = ExactSearcher(vectors).search(queries, 20)

    for query, rows in zip(queries[-2:], neighbours.item_rows[-2:], strict=True):
        assert rows.tolist() == np.argsort(-(vectors @ query), kind="stable")[:20].tolist()


def test_only_the_given_rows_are_looked_at():
    vectors = np.array([[3, 0], [1, 0], [2, 0], [0, 1]], np.float32)
    for queries in (np.array([[1, 0]], np.float32), np.array([[1, 0], [0, 1]], np.float32)):
        neighbours = ExactSearcher(vectors, np.array([1, 2, 3])).search(queries, 4)
        assert neighbours.item_rows[0].tolist() == [2, 1, 3, -1]
        assert neighbours.scores[0].tolist() == [2, 1, 0, -np.inf]
    nothing = ExactSearcher(vectors, np.array([], np.int64)).search(queries, 2)
    assert nothing.item_rows.tolist() == [[-1, -1], [-1, -1]]
