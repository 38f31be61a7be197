"""Popularity of features, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.baselines.feature_popularity import FeaturePopularity
from tests.worlds import histories_of


def scores(counts, own_counts=False, **item_values):
    training = replace(histories_of([counts]), item_values={name: np.array(of) for name, of in item_values.items()})
    return FeaturePopularity(own_counts=own_counts).fit(training)(training)[0].tolist()


def test_an_item_without_interactions_is_as_popular_as_the_trained_items_that_share_its_values():
    # Value 0: items 0 and 1 were met 4 and 2 times, the mean is 3. Item 3, which has it, too, was not met.
    assert scores([4, 2, 7, 0], color=[0, 0, 1, 0]) == [3, 3, 7, 3]


def test_features_count_alike_however_many_values_they_have():
    # Item 2: color 0 has the mean 4; words 5 and 6 have 4 and 2, in the mean 3.
    assert scores([4, 2, 0], color=[0, 1, 0], words=[[5, -1], [6, -1], [5, 6]])[2] == (4 + 3) / 2


def test_what_no_trained_item_shares_does_not_count():
    assert scores([4, 0, 0], color=[0, 9, 9], words=[[1], [1], [-1]]) == [4, 4, 0]


def test_items_with_interactions_may_keep_their_own_counts():
    assert scores([4, 2, 7, 0], own_counts=True, color=[0, 0, 1, 0]) == [4, 2, 7, 3]
