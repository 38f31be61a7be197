"""The mean of the query and what speaks for itself."""

from __future__ import annotations

import numpy as np

from recsys.reformulators.average import Average
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, WEST, asked, pseudo, said
from twintower.types import FeedbackKind


def test_query_and_positive_items_count_alike():
    # (1, 0) + (0, 1) + (0, 1) = (1, 2), length sqrt(5)
    result = Average().reformulate(asked(EAST), pseudo(EAST, NORTH, NORTH))
    np.testing.assert_allclose(result.vectors, [[1 / 5**0.5, 2 / 5**0.5]], rtol=1e-6)
    np.testing.assert_array_equal(result.item_weights, [[1, 1]])


def test_items_that_speak_against_themselves_are_passed_over():
    given = said(
        EAST,
        (NORTH, FeedbackKind.LIKED),
        (SOUTH, FeedbackKind.DISLIKED),
        (WEST, FeedbackKind.SKIPPED),
        (NORTH, FeedbackKind.CLICKED),
    )
    result = Average().reformulate(asked(EAST), given)
    np.testing.assert_allclose(result.vectors, [[1 / 5**0.5, 2 / 5**0.5]], rtol=1e-6)
    np.testing.assert_array_equal(result.item_weights, [[1, 0, 0, 1]])


def test_the_query_counts_with_unit_length():
    # (10, 0) counts as (1, 0)
    result = Average().reformulate(asked((10, 0)), pseudo(EAST, NORTH))
    np.testing.assert_allclose(result.vectors, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_a_sum_that_cancels_out_leaves_the_query():
    result = Average().reformulate(asked(EAST), pseudo(EAST, WEST))
    np.testing.assert_array_equal(result.vectors, [EAST])
