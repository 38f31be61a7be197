"""The k best items that each query may show, against a search of everything."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.retrieval import Retriever
from recsys.types import NO_ROW, RowSets
from tests.mined import sets, unit
from tests.worlds import ITEMS


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(5, 8)))


def brute_force(retriever, vectors, k, excluded):
    """Return rows and scores of the best items of each query, without the excluded ones."""
    scores = vectors @ np.load(retriever.release.folder / "item_embeddings.npy").T
    scores[excluded.owners, excluded.rows] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, rows, axis=1)
    return np.where(best > -np.inf, rows, NO_ROW), best


def assert_best(retriever, vectors, k, excluded):
    found = retriever.search_without(vectors, k, excluded)
    rows, scores = brute_force(retriever, vectors, k, excluded)
    np.testing.assert_array_equal(found.item_rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert (found.item_rows.dtype, found.scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("k", [1, 6, ITEMS - 3, ITEMS])
def test_each_query_has_its_own_excluded_items(k, retriever, vectors):
    best = brute_force(retriever, vectors, ITEMS, RowSets.empty(5))[0]
    # none, the very best, others among the best, far more than k, and the worst
    excluded = sets([], best[1, :1], best[2, [0, 2, 5]], best[3, :25], best[4, -4:])
    assert_best(retriever, vectors, k, excluded)


def test_random_sets_of_any_size_are_left_out(retriever, vectors):
    random = np.random.default_rng(1)
    for _ in range(20):
        excluded = sets(*(random.permutation(ITEMS)[: random.integers(0, ITEMS + 1)] for _ in range(5)))
        assert_best(retriever, vectors, int(random.integers(1, ITEMS + 1)), excluded)


def test_where_everything_is_excluded_nothing_is_found_and_the_others_are(retriever, vectors):
    found = retriever.search_without(vectors, 4, sets(range(ITEMS), [], range(ITEMS), [], [3]))
    for query in (0, 2):
        assert found.item_rows[query].tolist() == [NO_ROW] * 4
        assert np.isneginf(found.scores[query]).all()
    rows, _ = brute_force(retriever, vectors, 4, sets([], [], [], [], [3]))
    np.testing.assert_array_equal(found.item_rows[[1, 3, 4]], rows[[1, 3, 4]])


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
