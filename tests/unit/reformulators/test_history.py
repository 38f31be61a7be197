"""Feedback as history by hand: liked items are met, disliked ones are moved away from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.reformulators.history import History
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, WEST, asked, pseudo, said
from twintower.types import FeedbackKind

LIKED, DISLIKED, CLICKED, SKIPPED = (
    FeedbackKind.LIKED,
    FeedbackKind.DISLIKED,
    FeedbackKind.CLICKED,
    FeedbackKind.SKIPPED,
)


def test_without_a_tower_each_liked_item_adds_what_having_met_it_once_means():
    # (1, 0) + 0.5 (0, 1) + 0.25 (0, 1) = (1, 0.75), length 1.25
    given = replace(said(EAST, (NORTH, LIKED), (NORTH, CLICKED)), lengths=np.array([[0.5, 0.25]], np.float32))
    result = History().reformulate(asked(EAST), given)
    np.testing.assert_allclose(result.vectors, [[0.8, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(result.item_weights, [[0.5, 0.25]])


def test_the_query_that_the_tower_encoded_again_stands_for_what_was_liked():
    given = replace(said(EAST, (WEST, LIKED)), extended=asked(NORTH))
    np.testing.assert_allclose(History().reformulate(asked(EAST), given).vectors, [NORTH])


def test_a_dislike_moves_away_from_what_the_item_is_found_by():
    # (1, 0) - 0.5 (0, 1) - 0.25 (0, -1) = (1, -0.25)
    history = History(disliked_weight=0.5, skipped_weight=0.25)
    given = replace(said(EAST, (NORTH, DISLIKED), (SOUTH, SKIPPED)), lengths=np.array([[7, 7]], np.float32))
    for each in (given, replace(given, extended=asked(EAST))):
        result = history.reformulate(asked(EAST), each)
        np.testing.assert_allclose(result.vectors, np.array([[1, -0.25]]) / (1 + 0.25**2) ** 0.5, rtol=1e-6)
        np.testing.assert_allclose(result.item_weights, [[-0.5, -0.25]])


def test_pseudo_feedback_is_nobodys_history():
    np.testing.assert_array_equal(History().reformulate(asked(EAST), pseudo(EAST, NORTH, WEST)).vectors, [EAST])
