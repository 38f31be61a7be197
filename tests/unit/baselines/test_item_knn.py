"""Item-kNN by brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.baselines.item_knn import ItemKnn
from tests.worlds import TOY_MET, histories_of


def test_it_adds_up_cosines_as_brute_force_does():
    together = TOY_MET.T @ TOY_MET
    expected = TOY_MET @ (together / np.sqrt(np.outer(np.diag(together), np.diag(together))))
    scores = ItemKnn(neighbors=(4,), shrinkage=(0,)).fit(histories_of(TOY_MET))(histories_of(TOY_MET))
    np.testing.assert_allclose(np.maximum(scores, 0), expected, rtol=1e-6)


def test_shrinkage_scores_an_item_by_hand():
    # History {3}: item 3 was met twice, item 4 twice, once together: 1 / sqrt((2 + 2) * (2 + 2)) = 1/4;
    # item 3 itself: 2 / 4 = 1/2; item 2, met three times, once with item 3: 1 / sqrt(4 * 5) = 0.2236.
    (scores,) = ItemKnn(neighbors=(4,), shrinkage=(2,)).fit(histories_of(TOY_MET))(histories_of([[0, 0, 0, 1, 0]]))
    assert scores[[3, 4, 2]] == pytest.approx([0.5, 0.25, 1 / np.sqrt(20)], rel=1e-6)
    assert (scores[[0, 1]] <= 0).all()


def test_it_keeps_only_the_nearest_neighbors():
    # The nearest other item of item 0 is item 1, with cosine 2 / sqrt(2 * 3); items 4 (1 / 2) and 2 (1 / sqrt(6)) go.
    (scores,) = ItemKnn(neighbors=(1,), shrinkage=(0,)).fit(histories_of(TOY_MET))(histories_of([[1, 0, 0, 0, 0]]))
    assert np.flatnonzero(scores > 0).tolist() == [0, 1]
