"""The baseline of own items counts them, older meetings for less, and then takes what is popular."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.baselines import Histories
from recsys.baselines.repeat import DAY_US, Repeat
from recsys.types import Interactions


def world() -> Histories:
    # Entity 0 meets item 3 on days 0 and 1 and item 2 on day 10; entity 1 meets item 1 on days 2 and 10.
    times = np.array([0, 1, 10, 2, 10]) * DAY_US
    rows = Interactions(np.array([0, 0, 0, 1, 1], np.int32), np.array([3, 3, 2, 1, 1], np.int32), times)
    return Histories(rows, 3, 4)


@pytest.mark.parametrize(
    ("half_life_days", "own"),
    [(0.0, [1.0, 2.0]), (5.0, [1.0, 2**-2 + 2**-1.8])],  # item 2, item 3 of entity 0
)
def test_own_items_count_by_how_often_and_how_lately_they_were_met(half_life_days, own):
    scores = Repeat(half_life_days=(half_life_days,)).fit(world())(world())
    np.testing.assert_allclose(scores[0, 2:], own, rtol=1e-6)


def test_items_that_are_not_own_follow_by_popularity():
    scores = Repeat().fit(world())(world())
    assert np.argsort(-scores[2], kind="stable").tolist() == [1, 3, 2, 0]  # met 2, 2, 1 and 0 times
    assert scores[0, 2:].min() > 0 >= scores[0, :2].max()
