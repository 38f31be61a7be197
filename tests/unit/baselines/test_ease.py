"""EASE by hand, and where the data say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.baselines.dlae import Dlae
from recsys.baselines.ease import Ease
from tests.worlds import TOY_MET, histories_of
from twintower.errors import SettingError


def test_a_history_is_scored_by_hand():
    # Item 0 was met twice, item 1 once, together once. With a weight of 1: [[2 + 1, 1], [1, 1 + 1]], determinant 5,
    # inverse P = [[2, -1], [-1, 3]] / 5. Item 1 after item 0: 1 / 3; item 0 after item 1: 1 / 2.
    scores = Ease(regularization_weight=(1,)).fit(histories_of([[1, 1], [1, 0]]))(histories_of(np.eye(2, dtype=int)))
    assert scores == pytest.approx(np.array([[0, 1 / 3], [1 / 2, 0]]), abs=1e-6)


@pytest.mark.parametrize("baseline", [Ease(), Dlae()])
def test_a_repeated_interaction_counts_once(baseline):
    once, often = (baseline.fit(each)(each) for each in (histories_of(TOY_MET), histories_of(TOY_MET * 7)))
    np.testing.assert_array_equal(once, often)


@pytest.mark.parametrize("baseline", [Ease(), Dlae()])
def test_a_history_of_which_training_knows_nothing_gets_the_most_popular_items(baseline):
    # Item 4 was never met; the others 2, 3, 3 and 1 times.
    met = TOY_MET.copy()
    met[:, 4], met[4, 3] = 0, 0
    (scores,) = baseline.fit(histories_of(met))(histories_of([[0, 0, 0, 0, 1]]))
    assert np.argsort(-scores, kind="stable").tolist() == [1, 2, 0, 3, 4]


@pytest.mark.parametrize("baseline", [Ease(), Dlae()])
def test_data_beyond_the_limit_of_closed_forms_are_an_obstacle_and_one_small_side_is_none(baseline):
    assert "20,001 query entities and 20,001 items, expected at most 20,000" in baseline.obstacle(20_001, 20_001)
    assert baseline.obstacle(20_001, 100) == baseline.obstacle(100, 20_001) == ""


def test_a_weight_that_leaves_the_matrix_without_an_inverse_is_refused():
    # The two items were met together only, four times: [[4, 4], [4, 4]].
    with pytest.raises(SettingError, match="regularization_weight"):
        Ease(regularization_weight=(1e-300,)).fit(histories_of([[1, 1]] * 4))
