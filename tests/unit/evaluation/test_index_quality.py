"""Recall, its lower bound, and tuning that certifies what it chose."""

import dataclasses

import numpy as np
import pytest

from recsys.errors import ReleaseError, ShapeError
from recsys.evaluation.index_quality import Certificate, batch_us, lower_bound, recall_at_k, single_us, tune
from recsys.indexes import ExactSearcher
from recsys.indexes.brute_force import BruteForce
from recsys.indexes.scann import Scann

VECTORS = np.array([[5], [4], [3], [3], [1]], np.float32)
QUERY = np.array([[1]], np.float32)


def recall(found, exact):
    return recall_at_k(np.array([found], np.int32), np.array([exact], np.int32), QUERY, VECTORS).tolist()


def test_recall_is_the_share_of_the_true_best_that_was_found_in_any_order():
    # True best three: rows 0, 1, 2. Found: 1 and 0, not 2: two of three.
    assert recall([1, 0, 4], [0, 1, 2]) == [pytest.approx(2 / 3)]


def test_an_item_that_ties_with_the_last_true_one_counts_as_found():
    # Rows 2 and 3 both score 3: either may stand in the third place.
    assert recall([0, 1, 3], [0, 1, 2]) == [1.0]


def test_an_item_found_twice_counts_once():
    assert recall([0, 0, 0], [0, 1, 2]) == [pytest.approx(1 / 3)]


def test_places_beyond_the_catalogue_count_neither_way():
    # Two items exist for four places; one of them was found.
    vectors = np.array([[2], [1]], np.float32)

    shares = recall_at_k(np.array([[1, -1, -1, -1]]), np.array([[0, 1, -1, -1]]), QUERY, vectors)

    assert shares.tolist() == [0.5]


def test_answers_of_different_k_cannot_be_compared():
    with pytest.raises(ShapeError, match="found"):
        recall_at_k(np.zeros((1, 2), np.int32), np.zeros((1, 3), np.int32), QUERY, VECTORS)


def test_the_lower_bound_holds_as_often_as_it_says():
    # 400 experiments of 200 draws with true mean 0.9: at 95 % at most 5 % may lie above it; 5 % + 3 standard errors
    # of sqrt(0.05 x 0.95 / 400) = 0.011 is 8.3 %.
    draw = np.random.default_rng(0)

    above = [lower_bound((draw.random(200) < 0.9).astype(float), 0.95) > 0.9 for _ in range(400)]

    assert np.mean(above) < 0.083


def test_the_lower_bound_is_below_the_mean_and_rises_with_more_queries():
    few, many = np.tile([1.0, 0.9, 1.0, 0.8], 25), np.tile([1.0, 0.9, 1.0, 0.8], 250)

    assert 0.8 < lower_bound(few, 0.95) < lower_bound(many, 0.95) < 0.925


def test_the_lower_bound_falls_when_more_confidence_is_asked():
    shares = np.tile([1.0, 0.9, 1.0, 0.8], 50)

    assert lower_bound(shares, 0.999) < lower_bound(shares, 0.9)


@pytest.mark.parametrize("shares", [[], [0.0], [0.0, 0.0, 0.0]])
def test_nothing_found_is_certified_as_nothing(shares):
    assert lower_bound(np.array(shares), 0.95) == pytest.approx(0, abs=1e-5)


def test_ever_more_perfect_queries_never_certify_perfection():
    # 100 queries, all perfect: a true mean m gives that with probability m^100; 0.05^(1/100) = 0.9705 is the most that
    # any bound at 95 % may say.
    assert 0.9 < lower_bound(np.ones(100), 0.95) <= 0.9705


def test_one_query_and_a_batch_are_timed_in_microseconds():
    # A search that does nothing takes well under a millisecond, and one that reads 10,000,000 numbers takes longer.
    queries = np.ones((4, 2), np.float32)
    numbers = np.ones(10_000_000, np.float32)

    idle = single_us(lambda query, k: None, queries, 1)
    busy = single_us(lambda query, k: numbers.sum(), queries, 1)

    assert 0 < idle < 1000 < busy
    assert batch_us(lambda query, k: numbers.sum(), queries, 1) < busy


def world(items, dim=16, seed=0):
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(items, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_tuning_builds_the_very_index_that_its_certificate_speaks_of(tmp_path):
    vectors, queries = world(30_000), world(1200, seed=1)
    folder = tmp_path / "index"
    folder.mkdir()

    tuning = tune(vectors, queries, Scann(target_recall=0.8), folder)

    certificate = tuning.certificate
    searcher = tuning.index.load(folder, vectors)
    assert searcher.parameters == certificate.parameters
    assert certificate.holds
    assert 0.8 <= certificate.recall_low < certificate.recall
    assert certificate.queries == 600
    fresh = world(1000, seed=2)
    exact = ExactSearcher(vectors).search(fresh, 10).item_rows
    assert recall_at_k(searcher.search(fresh, 10).item_rows, exact, fresh, vectors).mean() > 0.8
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_tuning_takes_exact_search_and_says_so_when_too_few_queries_can_certify_anything(tmp_path):
    vectors, queries = world(6000), world(8, seed=1)

    tuning = tune(vectors, queries, Scann(target_recall=0.99), tmp_path)

    assert isinstance(tuning.index.load(tmp_path, vectors), ExactSearcher)
    assert tuning.certificate.holds
    assert tuning.certificate.recall == 1
    assert "8 queries certify a recall of at most" in tuning.certificate.note
    assert tuning.trials == ()


def test_tuning_takes_exact_search_and_says_so_when_no_setting_reaches_the_target(tmp_path):
    vectors, queries = world(6000), world(200, seed=1)

    tuning = tune(vectors, queries, Scann(target_recall=0.9, leaves_to_search=1), tmp_path)

    assert isinstance(tuning.index.load(tmp_path, vectors), ExactSearcher)
    assert "Exact search: no setting" in tuning.certificate.note
    assert len(tuning.trials) > 3


def test_a_small_catalogue_is_not_tuned(tmp_path):
    tuning = tune(world(300), world(50, seed=1), Scann(), tmp_path)

    assert tuning.trials == ()
    assert tuning.certificate.parameters == {"search": "exact"}
    assert "300 items" in tuning.certificate.note


def test_tuning_leaves_alone_what_the_run_file_fixes(tmp_path):
    index = Scann(brute_force_below=0, leaves=33, leaves_to_search=5, reorder_k=44, quantisation="ah")

    tuning = tune(world(3000), world(300, seed=1), index, tmp_path)

    (trial,) = tuning.trials
    assert (trial.index.leaves, trial.index.leaves_to_search, trial.index.reorder_k) == (33, 5, 44)


def test_any_other_choice_is_built_as_it_is_and_certified(tmp_path):
    tuning = tune(world(300), world(50, seed=1), BruteForce(), tmp_path)

    assert tuning.index == BruteForce()
    assert tuning.certificate.kind == "brute_force"
    assert tuning.certificate.recall_low == 1
    assert isinstance(tuning.index.load(tmp_path, world(300)), ExactSearcher)


@pytest.mark.parametrize("queries", [world(1), world(5, dim=15), np.full((5, 16), np.nan, np.float32)])
def test_queries_that_cannot_tune_are_refused(tmp_path, queries):
    with pytest.raises(ShapeError, match="queries"):
        tune(world(300), queries, Scann(), tmp_path)


def test_a_certificate_survives_its_file(tmp_path):
    certificate = tune(world(300), world(50, seed=1), Scann(), tmp_path).certificate

    certificate.write(tmp_path / "certificate.json")

    assert Certificate.read(tmp_path / "certificate.json") == certificate
    assert not dataclasses.replace(certificate, recall_low=0.9).holds


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"kind": "scann"}'])
def test_a_file_that_is_no_certificate_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "certificate.json").write_text(text)

    with pytest.raises(ReleaseError, match=r"certificate\.json"):
        Certificate.read(tmp_path / "certificate.json")
