"""Rocchio by hand: means of positive and negative items, first and last ones of pseudo feedback."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.reformulators.rocchio import Rocchio
from recsys.registry import parse
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, WEST, asked, pseudo, said
from twintower.errors import SettingError
from twintower.types import FeedbackKind

LIKED, DISLIKED, CLICKED, SKIPPED = (
    FeedbackKind.LIKED,
    FeedbackKind.DISLIKED,
    FeedbackKind.CLICKED,
    FeedbackKind.SKIPPED,
)


def test_the_mean_of_the_positive_items_is_added():
    # 0.4 (1, 0) + 0.6 ((0, 1) + (0, 1)) / 2 = (0.4, 0.6), length sqrt(0.52); weights 0.6 / 2 / 0.4 = 0.75
    result = Rocchio().reformulate(asked(EAST), said(EAST, (NORTH, LIKED), (NORTH, CLICKED)))
    np.testing.assert_allclose(result.vectors, [[0.4 / 0.52**0.5, 0.6 / 0.52**0.5]], rtol=1e-6)
    np.testing.assert_allclose(result.item_weights, [[0.75, 0.75]], rtol=1e-6)


def test_the_mean_of_the_negative_items_is_taken_away():
    # (1, 0) + 0.5 (0, 1) - 0.25 ((-1, 0) + (0, -1)) / 2 = (1.125, 0.625)
    rocchio = Rocchio(alpha=1, beta=0.5, gamma=0.25)
    result = rocchio.reformulate(asked(EAST), said(EAST, (NORTH, LIKED), (WEST, DISLIKED), (SOUTH, SKIPPED)))
    length = (1.125**2 + 0.625**2) ** 0.5
    np.testing.assert_allclose(result.vectors, [[1.125 / length, 0.625 / length]], rtol=1e-6)
    np.testing.assert_allclose(result.item_weights, [[0.5, -0.125, -0.125]], rtol=1e-6)


def test_without_gamma_only_negative_feedback_moves_nothing():
    result = Rocchio(gamma=0).reformulate(asked(EAST), said(EAST, (NORTH, DISLIKED)))
    np.testing.assert_allclose(result.vectors, [EAST])


def test_the_first_of_pseudo_feedback_are_positive_and_the_last_negative():
    # of four, one top and two bottom: (1, 0) + 1 (0, 1) - 0.5 ((-1, 0) + (0, -1)) / 2 = (1.25, 1.25)
    rocchio = Rocchio(alpha=1, beta=1, gamma=0.5, top_k=1, bottom_k=2)
    result = rocchio.reformulate(asked(EAST), pseudo(EAST, NORTH, EAST, WEST, SOUTH))
    np.testing.assert_allclose(result.item_weights, [[1, 0, -0.25, -0.25]], rtol=1e-6)
    np.testing.assert_allclose(result.vectors, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_an_item_at_the_top_and_at_the_bottom_is_positive():
    rocchio = Rocchio(alpha=1, beta=1, gamma=1, top_k=2, bottom_k=2)
    result = rocchio.reformulate(asked(EAST), pseudo(EAST, NORTH, NORTH, SOUTH))
    np.testing.assert_allclose(result.item_weights, [[0.5, 0.5, -1]], rtol=1e-6)


def test_top_and_bottom_mean_pseudo_feedback_only():
    rocchio = Rocchio(alpha=1, beta=1, top_k=1)
    result = rocchio.reformulate(asked(EAST), said(EAST, (NORTH, LIKED), (NORTH, LIKED), (NORTH, LIKED)))
    np.testing.assert_allclose(result.item_weights, [[1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("beta", -1.0), ("gamma", -0.1), ("top_k", -1)])
def test_a_setting_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(SettingError, match=rf"^rocchio\.{name}: got {value}, expected "):
        parse(Rocchio, {name: value}, "rocchio")


def test_pseudo_feedback_is_read_where_its_last_items_count_as_negative():
    assert FeedbackKind.PSEUDO in Rocchio(beta=0, gamma=0.3).ignores
    assert FeedbackKind.PSEUDO not in Rocchio(beta=0, gamma=0.3, top_k=1, bottom_k=2).ignores
