"""What rankings show of the catalogue, by hand."""

import numpy as np
import pytest

from recsys.metrics import measure_exposure, popularity_percentiles

COUNTS = np.array([8, 0, 3, 3])


def shown(*rows, cutoff=2):
    return measure_exposure(np.array(rows, np.int32), COUNTS, cutoff)


def test_coverage_is_the_share_of_the_catalogue_shown_within_the_cutoff():
    # Within two places: items 0, 2 and 0, 3 → three of four. Item 1 stands on place three.
    assert shown([0, 2, 1], [0, 3, 1]).coverage == 0.75


def test_gini_is_nought_when_all_items_are_shown_alike():
    assert shown([0, 1], [2, 3]).gini == pytest.approx(0.0)


def test_gini_of_one_item_shown_always_is_its_largest_possible_value():
    # Shown 0, 0, 0, 2 times: mean absolute difference over twice the mean = (items - 1) / items = 3/4.
    assert shown([0, -1], [0, -1]).gini == pytest.approx(0.75)


def test_percentiles_put_items_of_equal_count_on_the_middle_of_their_places():
    # Ascending: item 1 (0), items 2 and 3 (3), item 0 (8). Item 1: (0 + 1/2)/4; 2 and 3: (1 + 2/2)/4; 0: (3 + 1/2)/4.
    assert popularity_percentiles(COUNTS).tolist() == [0.875, 0.125, 0.5, 0.5]


def test_popularity_is_the_mean_over_the_places_that_show_an_item():
    # Three places shown: items 0, 2, 1 with percentiles 0.875, 0.5, 0.125 → mean 0.5; padding does not count.
    exposure = shown([0, 2], [1, -1])
    assert exposure.popularity_percentile == pytest.approx(0.5)
    # log(1 + 8), log(1 + 3), log(1 + 0): (2 log 3 + 2 log 2) / 3
    assert exposure.mean_log_count == pytest.approx((2 * np.log(3) + 2 * np.log(2)) / 3)


def test_showing_nothing_covers_nothing():
    assert shown([-1, -1]).coverage == 0.0
