"""Popularity counts interactions."""

from recsys.baselines.popularity import Popularity
from tests.worlds import histories_of


def test_repeated_interactions_count():
    assert Popularity().fit(histories_of([[1, 0], [1, 5]]))(histories_of([[0, 0]])).tolist() == [[2.0, 5.0]]
