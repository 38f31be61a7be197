"""How much own items add is chosen on validation cases, and is nothing where they do not help."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recsys.data.history import Met
from recsys.evaluation.cases import EvaluationCases
from recsys.evaluation.fusion import choose_fusion, own_scores
from recsys.evaluation.recommenders import VectorRecommender
from recsys.export.own_items import Fusion
from recsys.metrics.ranking import measure
from recsys.types import RowSets

CASES, ITEMS, METRIC = 40, 30, "nDCG@5"
RANDOM = np.random.default_rng(5)


def world(answered_by_own: bool):
    """Return a recommender by random vectors, cases that ask for own or for other items, and what was met."""
    vectors = RANDOM.normal(size=(CASES + ITEMS, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = np.stack([RANDOM.choice(ITEMS, 4, replace=False) for _ in range(CASES)])
    # Each case meets its four own items 1, 2, 3 and 4 times; the last one is the one that it asks for.
    rows = np.repeat(own, [1, 2, 3, 4], axis=1)
    met = Met(np.full(CASES, 10), rows.ravel().astype(np.int32), np.zeros(CASES * 10, np.float32))
    dense = VectorRecommender(vectors[:CASES], vectors[CASES:])
    wanted = own[:, 3:] if answered_by_own else dense.recommend(np.arange(CASES), 1).item_rows
    cases = EvaluationCases(
        case_ids=pa.array([str(case) for case in range(CASES)]),
        relevant=RowSets.from_pairs(np.arange(CASES), wanted[:, 0], CASES),
        item_ids=pa.array([str(item) for item in range(ITEMS)]),
        item_counts=np.ones(ITEMS, np.int64),
        activity=np.ones(CASES, np.int64),
    )
    return dense, cases, met


def test_where_own_items_answer_they_are_added_and_the_fused_ranking_is_that_of_all_sums():
    dense, cases, met = world(answered_by_own=True)
    fusion = choose_fusion(dense, cases, met, [METRIC])
    fused = VectorRecommender(dense.query_vectors, dense.item_vectors, None, own_scores(fusion, met, ITEMS))
    everyone = np.arange(CASES)
    before, after = (
        measure([METRIC], each.recommend(everyone, 5).item_rows, cases.relevant)[METRIC].mean()
        for each in (dense, fused)
    )
    assert after > before + 0.3


def test_where_those_who_met_an_item_often_do_not_come_back_more_counts_do_not_count():
    dense, cases, met = world(answered_by_own=True)
    # All but the newest of a case's ten meetings are with one item, and the newest is with the item that it asks for.
    wanted = cases.relevant.rows
    rows = np.repeat((wanted + 1) % ITEMS, 10)
    rows[::10] = wanted
    ages = np.tile(np.arange(10, dtype=np.float32) * 5, CASES)
    assert choose_fusion(dense, cases, Met(met.lengths, rows.astype(np.int32), ages), [METRIC]).weights == "none"


def test_where_the_dense_list_answers_nothing_is_added():
    assert choose_fusion(*world(answered_by_own=False), [METRIC]) is None


def test_what_is_added_grows_with_counts_and_falls_with_age():
    met = Met(np.array([3]), np.array([1, 2, 2], np.int32), np.array([0, 10, 10], np.float32))
    added = own_scores(Fusion(2.0, 10.0), met, 4).toarray()
    # 2 * 1 and 2 * (1/2 + 1/2)
    np.testing.assert_allclose(added, [[0, 2, 2, 0]], rtol=1e-6)


def test_without_counts_only_the_newest_meeting_is_added():
    met = Met(np.array([3]), np.array([1, 2, 2], np.int32), np.array([0, 10, 20], np.float32))
    added = own_scores(Fusion(2.0, 10.0, "none"), met, 4).toarray()
    np.testing.assert_allclose(added, [[0, 2, 1, 0]], rtol=1e-6)
