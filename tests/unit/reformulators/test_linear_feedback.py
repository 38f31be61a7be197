"""Qdrant's formula over pairs, and that one reformulated vector ranks as the formula does."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.reformulators import unit
from recsys.reformulators.linear_feedback import LinearFeedback
from recsys.types import NO_ROW
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, WEST, asked, pseudo, said, shared
from twintower.types import FeedbackKind

RELEVANCE = {
    FeedbackKind.LIKED: 1.0,
    FeedbackKind.CLICKED: 1.0,
    FeedbackKind.SKIPPED: 0.0,
    FeedbackKind.DISLIKED: -1.0,
}


def test_a_liked_and_a_disliked_item_are_one_pair():
    # conf = 1 - (-1) = 2; 2^2 * 0.5 / 4 = 0.5: (1, 0) + 0.5 (0, 1) - 0.5 (0, -1) = (1, 1)
    given = said(EAST, (NORTH, FeedbackKind.LIKED), (SOUTH, FeedbackKind.DISLIKED))
    result = LinearFeedback(a=4, b=2, c=0.5).reformulate(asked(EAST), given)
    np.testing.assert_allclose(result.item_weights, [[0.5, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(result.vectors, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_the_score_of_the_first_search_is_the_relevance_of_pseudo_feedback():
    # scores 1, 0, -1; confidences 1 (first, second), 2 (first, third), 1 (second, third), b = 1, c = 0.1
    result = LinearFeedback(c=0.1).reformulate(asked(EAST), pseudo(EAST, EAST, NORTH, WEST))
    np.testing.assert_allclose(result.item_weights, [[0.3, 0.0, -0.3]], rtol=1e-5, atol=1e-7)


def test_a_single_item_and_items_of_equal_relevance_move_nothing():
    for given in (
        said(EAST, (NORTH, FeedbackKind.LIKED)),
        said(EAST, (NORTH, FeedbackKind.LIKED), (SOUTH, FeedbackKind.CLICKED)),
    ):
        result = LinearFeedback(c=1.0).reformulate(asked(EAST), given)
        np.testing.assert_array_equal(result.item_weights, np.zeros(given.present.shape))
        np.testing.assert_allclose(result.vectors, [EAST])


@pytest.mark.parametrize("seed", range(5))
def test_its_vector_gives_every_candidate_the_formula_s_score_up_to_one_positive_factor(seed):
    # score'(d) = a <q, d> + sum over ordered pairs (p better than n) of conf^b c (<p, d> - <n, d>)
    random = np.random.default_rng(seed)
    count, dim = 6, 8
    a, b, c = random.uniform(0.2, 3), random.uniform(0.3, 3), random.uniform(-0.5, 0.5)
    query = unit(random.normal(size=(1, dim)).astype(np.float32))
    vectors = unit(random.normal(size=(1, count, dim)).astype(np.float32))
    candidates = unit(random.normal(size=(50, dim)).astype(np.float32))
    kinds = random.integers(len(FeedbackKind), size=(1, count)).astype(np.int32)
    kinds[0, :2] = FeedbackKind.PSEUDO, FeedbackKind.DISLIKED
    scores = np.einsum("bd,bkd->bk", query, vectors).astype(np.float32)
    given = shared(vectors, kinds, np.full((1, count), NO_ROW, np.int32), scores, np.ones((1, count), bool))
    relevance = [RELEVANCE.get(kind, scores[0, place]) for place, kind in enumerate(kinds[0])]
    formula = a * candidates @ query[0]
    for p in range(count):
        for n in range(count):
            if relevance[p] > relevance[n]:
                conf = relevance[p] - relevance[n]
                formula += conf**b * c * (candidates @ vectors[0, p] - candidates @ vectors[0, n])
    result = LinearFeedback(a=a, b=b, c=c).reformulate(query, given)
    ranked_by = candidates @ result.vectors[0]
    factor = formula @ ranked_by / (ranked_by @ ranked_by)
    assert factor > 0
    np.testing.assert_allclose(formula, factor * ranked_by, atol=1e-4)
    assert np.abs(ranked_by - candidates @ query[0]).max() > 1e-3
