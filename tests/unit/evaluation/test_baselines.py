"""Baselines: toys by brute force, and what each must do better than the one before."""

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.errors import SettingError
from recsys.evaluation.baselines import Als, Ease, ItemKnn, Popularity, baseline
from recsys.metrics import measure
from recsys.types import RowSets

# Five query entities, five items.
TOY = np.array(
    [
        [1, 1, 0, 0, 1],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 0],
    ],
    np.float32,
)


def sets(*members):
    owners = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    return RowSets.from_pairs(owners, np.array([row for rows in members for row in rows], np.int64), len(members))


def block_world(blocks=4, queries=30, items=12, met=5, seed=0):
    """Query entities of a block meet only items of their block; one further item of the block is left out."""
    generator = np.random.default_rng(seed)
    matrix, relevant = np.zeros((blocks * queries, blocks * items), np.float32), []
    for query in range(blocks * queries):
        chosen = generator.choice(items, met + 1, replace=False) + query // queries * items
        matrix[query, chosen[:met]] = 1
        relevant.append([chosen[met]])
    return csr_matrix(matrix), sets(*relevant), sets(*(np.flatnonzero(row) for row in matrix))


def hit_rate(recommender, relevant):
    ranked = recommender.recommend(np.arange(len(relevant)), 10).item_rows
    return measure(["Success@10"], ranked, relevant)["Success@10"].mean()


def all_scores(recommender, cases, items):
    best = recommender.recommend(np.arange(cases), items)
    scores = np.empty((cases, items), np.float32)
    np.put_along_axis(scores, best.item_rows, best.scores, axis=1)
    return scores


def test_popularity_shows_everyone_the_most_met_items_but_the_excluded_ones():
    # Met 2, 3, 3, 2, 2 times; equal counts by row: 1, 2, 0, 3, 4.
    matrix = csr_matrix(TOY)
    recommender = Popularity().fit(matrix, matrix[:2], excluded=sets([1, 0], []))
    assert recommender.recommend(np.array([0, 1]), 3).item_rows.tolist() == [[2, 3, 4], [1, 2, 0]]


def test_popularity_counts_repeated_interactions():
    matrix = csr_matrix(np.array([[1, 0], [1, 5]], np.float32))
    assert Popularity().fit(matrix, matrix).recommend(np.array([0]), 2).item_rows.tolist() == [[1, 0]]


def test_item_knn_adds_up_cosines_as_brute_force_does():
    recommender = ItemKnn(neighbours=4, shrinkage=0).fit(csr_matrix(TOY), csr_matrix(TOY))
    together = TOY.T @ TOY
    cosines = together / np.sqrt(np.outer(np.diag(together), np.diag(together)))
    expected = TOY @ cosines

    best = recommender.recommend(np.arange(5), 5)

    for case in range(5):
        evidence = best.scores[case] > 0
        np.testing.assert_allclose(
            best.scores[case][evidence], expected[case][best.item_rows[case][evidence]], rtol=1e-6
        )
        assert evidence.sum() == (expected[case] > 0).sum()


def test_item_knn_with_shrinkage_scores_an_item_by_hand():
    # Case with history {3}: item 3 was met twice, item 4 twice, once together: 1 / sqrt((2 + 2) * (2 + 2)) = 1/4;
    # item 3 itself: 2 / 4 = 1/2; item 2, met three times, once with item 3: 1 / sqrt(4 * 5) = 0.2236.
    histories = csr_matrix(np.array([[0, 0, 0, 1, 0]], np.float32))
    best = ItemKnn(neighbours=4, shrinkage=2).fit(csr_matrix(TOY), histories).recommend(np.array([0]), 3)
    assert best.item_rows.tolist() == [[3, 4, 2]]
    assert best.scores[0] == pytest.approx([0.5, 0.25, 1 / np.sqrt(20)], rel=1e-6)


def test_item_knn_keeps_only_the_nearest_neighbours():
    # The nearest other item of item 0 is item 1, with cosine 2 / sqrt(2 * 3); items 4 (1 / 2) and 2 (1 / sqrt(6)) go.
    histories = csr_matrix(np.array([[1, 0, 0, 0, 0]], np.float32))
    best = ItemKnn(neighbours=1, shrinkage=0).fit(csr_matrix(TOY), histories).recommend(np.array([0]), 5)
    assert best.item_rows[0, :2].tolist() == [0, 1]
    assert (best.scores[0] > 0).sum() == 2


@pytest.mark.parametrize("settings", [ItemKnn(), Als(dim=4), Ease()])
def test_a_case_without_a_history_gets_the_most_popular_items(settings):
    matrix = csr_matrix(TOY)
    recommender = settings.fit(matrix, csr_matrix((1, 5), dtype=np.float32))
    assert recommender.recommend(np.array([0]), 5).item_rows.tolist() == [[1, 2, 0, 3, 4]]


@pytest.mark.parametrize("settings", [ItemKnn(), Als(dim=4), Ease()])
def test_on_a_world_of_blocks_it_finds_the_missing_item_where_popularity_does_not(settings):
    # Given 4 blocks of 12 items: who knows the block finds the missing item among 12 - 5 = 7 others, so always within
    # 10 places; popularity shows the same 10 of 48 to all, hitting about one case in five.
    interactions, relevant, seen = block_world()
    popularity = hit_rate(Popularity().fit(interactions, interactions, seen), relevant)
    learned = hit_rate(settings.fit(interactions, interactions, seen), relevant)
    assert popularity < 0.5
    assert learned > 0.95


def test_als_answers_a_query_entity_that_was_not_in_training():
    interactions, relevant, seen = block_world()
    # Given that the last query entity of each block is unknown to training and only its history is given.
    unknown = np.array([29, 59, 89, 119])
    known = np.setdiff1d(np.arange(120), unknown)
    recommender = Als(dim=4).fit(interactions[known], interactions[unknown], seen.take(unknown))
    assert hit_rate(recommender, relevant.take(unknown)) == 1.0


def test_als_learns_the_same_from_the_same_seed_without_a_warning():
    interactions, _, _ = block_world()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = (Als(dim=4, seed=3).fit(interactions, interactions) for _ in range(2))
    cases = np.arange(120)
    assert np.array_equal(first.recommend(cases, 5).item_rows, again.recommend(cases, 5).item_rows)


def test_ease_scores_a_history_by_hand():
    # Item 0 was met twice, item 1 once, together once. With a weight of 1: [[2 + 1, 1], [1, 1 + 1]], determinant 5,
    # inverse P = [[2, -1], [-1, 3]] / 5. Item 1 after item 0: 1 / 3; item 0 after item 1: 1 / 2.
    interactions = csr_matrix(np.array([[1, 1], [1, 0]], np.float32))
    histories = csr_matrix(np.eye(2, dtype=np.float32))
    best = Ease(regularization_weight=1).fit(interactions, histories).recommend(np.array([0, 1]), 1)
    assert best.item_rows.tolist() == [[1], [0]]
    assert best.scores.ravel() == pytest.approx([1 / 3, 1 / 2], rel=1e-6)


@pytest.mark.parametrize("items", [5, 1100])
def test_ease_predicts_each_item_from_the_others_alone_as_ridge_regression_does(items):
    # Given histories of one item each, the scores are the matrix itself.
    met = TOY if items == 5 else np.random.default_rng(0).integers(0, 2, (40, items)).astype(np.float32)
    weights = all_scores(Ease(regularization_weight=3).fit(csr_matrix(met), csr_matrix(np.eye(items))), items, items)

    for item in (0, items // 2, items - 1):
        others = np.delete(np.arange(items), item)
        matrix = met[:, others].T @ met[:, others] + 3 * np.eye(items - 1)
        expected = np.linalg.solve(matrix, met[:, others].T @ met[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-6)
        assert weights[item, item] == pytest.approx(0, abs=1e-20)


def test_ease_counts_a_repeated_interaction_once():
    matrix = csr_matrix(TOY)
    scores = [all_scores(Ease().fit(counts, counts), 5, 5) for counts in (matrix, matrix * 7)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-20)


def test_ease_shows_the_most_popular_items_after_a_history_of_which_training_knows_nothing():
    # Item 4 was never met; the others 2, 3, 3 and 1 times.
    met = TOY.copy()
    met[:, 4], met[4, 3] = 0, 0
    histories = csr_matrix(np.array([[0, 0, 0, 0, 1]], np.float32))
    best = Ease().fit(csr_matrix(met), histories).recommend(np.array([0]), 5)
    assert best.item_rows.tolist() == [[1, 2, 0, 3, 4]]


def test_ease_refuses_a_catalogue_that_is_too_large_for_a_dense_matrix():
    interactions = csr_matrix((2, 30_001), dtype=np.float32)
    with pytest.raises(SettingError, match=r"evaluation\.baselines: got 'ease' for 30,001 items, expected at most"):
        Ease().fit(interactions, interactions)


def test_ease_refuses_a_weight_that_leaves_the_matrix_without_an_inverse():
    # The two items were met together only: [[1, 1], [1, 1]].
    interactions = csr_matrix(np.array([[1, 1]], np.float32))
    with pytest.raises(SettingError, match="regularization_weight"):
        Ease(regularization_weight=1e-300).fit(interactions, interactions)


def test_a_baseline_that_does_not_exist_is_refused_with_the_nearest_name():
    with pytest.raises(SettingError, match="Did you mean 'item_knn'"):
        baseline("item_kn")
