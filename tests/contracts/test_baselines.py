"""Every kind of baseline keeps the family's contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import registry
from recsys.baselines import Histories
from recsys.types import Interactions

KINDS = registry.names("baselines")
SETTINGS = {"ials": {"dim": [4]}}
"""Settings that suit small data."""


def histories(pairs, owners, items) -> Histories:
    pairs = sorted(pairs)
    rows = np.array(pairs, np.int32).reshape(-1, 2)
    times = np.arange(len(rows), dtype=np.int64)
    return Histories(Interactions(rows[:, 0], rows[:, 1], times), owners, items)


@pytest.fixture(params=KINDS)
def baseline(request):
    return registry.build("baselines", {"kind": request.param, **SETTINGS.get(request.param, {})}, "baseline")


def random_histories(owners=30, items=20, seed=0) -> Histories:
    random = np.random.default_rng(seed)
    return histories(zip(random.integers(0, owners, 200), random.integers(0, items, 200), strict=True), owners, items)


def test_each_candidate_is_of_the_same_kind_and_has_nothing_left_to_choose(baseline):
    candidates = baseline.candidates()
    assert len(set(candidates)) == len(candidates) > 0
    for candidate in candidates:
        assert type(candidate) is type(baseline)
        assert list(candidate.candidates()) == [candidate]


def test_small_data_are_no_obstacle_and_an_obstacle_is_a_sentence(baseline):
    assert baseline.obstacle(30, 20) == ""
    reason = baseline.obstacle(10**7, 10**7)
    assert reason == "" or reason.endswith(".")


def test_scores_are_finite_of_the_catalog_s_width_and_fresh_at_each_call(baseline):
    training = random_histories()
    scorer = baseline.fit(training)
    first = scorer(training)
    assert (first.shape, first.dtype) == ((30, 20), np.float32)
    assert np.isfinite(first).all()
    expected = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(scorer(training), expected)


def test_a_query_is_scored_by_its_own_history_alone(baseline):
    training = random_histories()
    scorer = baseline.fit(training)
    chosen = np.array([17, 3, 3])
    np.testing.assert_allclose(scorer(training.take(chosen)), scorer(training)[chosen], rtol=1e-4, atol=1e-6)


def test_the_same_data_give_the_same_scores(baseline):
    training = random_histories()
    np.testing.assert_array_equal(baseline.fit(training)(training), baseline.fit(training)(training))


def test_a_query_without_a_history_gets_the_most_popular_items(baseline):
    # Met 2, 3, 3, 2, 2 times; equal counts by row: 1, 2, 0, 3, 4.
    toy = [(0, 0), (0, 1), (0, 4), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 3), (3, 4), (4, 3)]
    scores = baseline.fit(histories(toy, 5, 5))(histories([], 1, 5))
    assert np.argsort(-scores[0], kind="stable").tolist() == [1, 2, 0, 3, 4]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), max_size=40),
    st.lists(st.integers(0, 7), max_size=12),
)
def test_taken_histories_hold_what_their_owners_met_in_the_order_given(pairs, owners):
    whole = histories(pairs, 8, 5)
    taken = whole.take(np.array(owners, np.int64))
    np.testing.assert_array_equal(taken.counts.toarray(), whole.counts.toarray()[owners].reshape(len(owners), 5))
    assert (np.diff(taken.interactions.query_row) >= 0).all()
