"""The k best items that each query may show, against a search of everything."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.retrieval import Retriever
from recsys.types import NO_ROW, RowSets
from tests.mined import sets, unit
from tests.ranking import assert_best_first, score_tolerance
from tests.worlds import ITEMS


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(5, 8)))


def brute_force(retriever, vectors, excluded):
    """Return the score of every item for each query, -inf where it is excluded, and the tolerance of a score."""
    items = np.load(retriever.release.folder / "item_embeddings.npy")
    scores = vectors @ items.T
    scores[excluded.owners, excluded.rows] = -np.inf
    return scores, score_tolerance(vectors, items)


def assert_best(retriever, vectors, k, excluded):
    found = retriever.search_without(vectors, k, excluded)
    scores, tolerance = brute_force(retriever, vectors, excluded)
    for rows, own, expected in zip(found.item_rows, found.scores, scores, strict=True):
        shown = min(k, int(np.isfinite(expected).sum()))
        assert_best_first(rows[:shown], expected, tolerance)
        assert (rows[shown:] == NO_ROW).all()
        np.testing.assert_allclose(own[:shown], expected[rows[:shown]], rtol=0, atol=tolerance)
        assert np.isneginf(own[shown:]).all()
    assert (found.item_rows.dtype, found.scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("k", [1, 6, ITEMS - 3, ITEMS])
def test_each_query_has_its_own_excluded_items(k, retriever, vectors):
    best = np.argsort(-brute_force(retriever, vectors, RowSets.empty(5))[0], axis=1)
    # none, the very best, others among the best, far more than k, and the worst
    excluded = sets([], best[1, :1], best[2, [0, 2, 5]], best[3, :25], best[4, -4:])
    assert_best(retriever, vectors, k, excluded)


def test_random_sets_of_any_size_are_left_out(retriever, vectors):
    random = np.random.default_rng(1)
    for _ in range(20):
        excluded = sets(*(random.permutation(ITEMS)[: random.integers(0, ITEMS + 1)] for _ in range(5)))
        assert_best(retriever, vectors, int(random.integers(1, ITEMS + 1)), excluded)


def test_where_everything_is_excluded_nothing_is_found_and_the_others_are(retriever, vectors):
    excluded = sets(range(ITEMS), [], range(ITEMS), [], [3])
    found = retriever.search_without(vectors, 4, excluded)
    for query in (0, 2):
        assert found.item_rows[query].tolist() == [NO_ROW] * 4
        assert np.isneginf(found.scores[query]).all()
    assert_best(retriever, vectors, 4, excluded)


def test_what_is_missing_stands_at_the_end(retriever, vectors):
    excluded = sets(*[range(1, ITEMS - 1)] * 5)
    found = retriever.search_without(vectors, 6, excluded)
    assert (np.sort(found.item_rows[:, :2], axis=1) == [0, ITEMS - 1]).all()
    assert (found.item_rows[:, 2:] == NO_ROW).all()


def test_more_places_than_items_end_in_padding(retriever, vectors):
    found = retriever.search_without(vectors, ITEMS + 7, sets([0], [], [], [], []))
    assert found.item_rows.shape == found.scores.shape == (5, ITEMS + 7)
    assert (found.item_rows != NO_ROW).sum(axis=1).tolist() == [ITEMS - 1, *[ITEMS] * 4]
    assert np.isneginf(found.scores[:, ITEMS:]).all()
