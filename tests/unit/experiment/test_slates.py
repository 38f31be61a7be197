"""Randomised lists: draws, exact probabilities, marginals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from recsys.errors import ShapeError
from recsys.experiment.slates import EpsilonSwap, PlackettLuce, policy_of
from twintower.errors import SettingError

SCORES = np.array([0.9, 0.7, 0.65, 0.2, -0.4])
POLICIES = [PlackettLuce(temperature=0.3), PlackettLuce(temperature=5.0), EpsilonSwap(epsilon=0.3)]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=str)


def every_slate(k: int, candidates: int = len(SCORES)):
    return [np.array(slate) for slate in itertools.permutations(range(candidates), k)]


def test_plackett_luce_by_hand():
    # Weights e^0 = 1, e^1, e^2 at temperature 1; list (2, 0): e^2 / (1 + e + e^2) * 1 / (1 + e)
    e = math.e
    expected = math.log(e**2 / (1 + e + e**2) / (1 + e))
    assert PlackettLuce(temperature=1).log_propensity([0.0, 1.0, 2.0], [2, 0]) == pytest.approx(expected, rel=1e-12)


def test_epsilon_swap_by_hand():
    # 2 places of 4 candidates: 2 * 3 = 6 exchanges, (0 1) among them twice.
    policy, scores = EpsilonSwap(epsilon=0.6), np.zeros(4)
    found = [math.exp(policy.log_propensity(scores, slate)) for slate in ([0, 1], [1, 0], [3, 1], [0, 2])]
    assert found == pytest.approx([0.4, 0.2, 0.1, 0.1], rel=1e-12)
    assert policy.log_propensity(scores, [2, 3]) == -math.inf


@each_policy
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_probabilities_of_all_lists_make_one(policy, k):
    total = sum(math.exp(policy.log_propensity(SCORES, slate)) for slate in every_slate(k))
    assert total == pytest.approx(1, rel=1e-12)


@each_policy
@pytest.mark.parametrize("k", [1, 3, 5])
def test_marginals_are_the_sums_over_all_lists(policy, k):
    expected = np.zeros((len(SCORES), k))
    for slate in every_slate(k):
        expected[slate, np.arange(k)] += math.exp(policy.log_propensity(SCORES, slate))
    assert policy.marginals(SCORES, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "policy", [PlackettLuce(temperature=0.02), PlackettLuce(temperature=1), EpsilonSwap(epsilon=0.1)]
)
def test_marginals_of_a_hundred_candidates_fill_every_place_once(policy):
    scores = np.sort(np.random.default_rng(1).uniform(-1, 1, 100))[::-1]
    found = policy.marginals(scores, 10)
    assert found.sum(axis=0) == pytest.approx(np.ones(10), abs=1e-9)
    assert (found >= 0).all()
    assert (found.sum(axis=1) <= 1 + 1e-9).all()


@each_policy
def test_lists_are_drawn_as_often_as_their_probability_says(policy):
    generator, draws = np.random.default_rng(7), 10_000
    counts: dict[tuple, int] = {}
    for _ in range(draws):
        slate = tuple(policy.draw(SCORES, 2, generator).tolist())
        counts[slate] = counts.get(slate, 0) + 1
    for slate in every_slate(2):
        probability = math.exp(policy.log_propensity(SCORES, slate))
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts.get(tuple(slate.tolist()), 0) / draws - probability) <= 4.5 * error


def test_a_low_temperature_and_no_epsilon_leave_the_list_as_it_was():
    generator = np.random.default_rng(0)
    for policy in (PlackettLuce(temperature=1e-6), EpsilonSwap(epsilon=0)):
        assert policy.draw(SCORES, 3, generator).tolist() == [0, 1, 2]
        assert policy.log_propensity(SCORES, [0, 1, 2]) == pytest.approx(0, abs=1e-12)
        assert policy.marginals(SCORES, 3)[:3] == pytest.approx(np.eye(3), abs=1e-9)


@each_policy
def test_one_candidate_has_one_list(policy):
    assert policy.draw([0.5], 1, np.random.default_rng(0)).tolist() == [0]
    assert policy.log_propensity([0.5], [0]) == pytest.approx(0, abs=1e-12)
    assert policy.marginals([0.5], 1) == pytest.approx(np.ones((1, 1)), abs=1e-9)


@each_policy
def test_lists_that_cannot_be_are_the_caller_s_mistake(policy):
    for slate in ([0, 0], [5], [-1], []):
        with pytest.raises(ShapeError, match="slate: got"):
            policy.log_propensity(SCORES, slate)
    for k in (0, 6):
        with pytest.raises(ShapeError, match="k: got"):
            policy.marginals(SCORES, k)
    with pytest.raises(ShapeError, match="scores: got"):
        policy.draw([1.0, math.nan], 1, np.random.default_rng(0))


def test_the_log_s_words_name_a_policy():
    assert policy_of("plackett_luce", 0.3) == PlackettLuce(temperature=0.3)
    assert policy_of("epsilon_swap", 0.3) == EpsilonSwap(epsilon=0.3)
    with pytest.raises(SettingError, match="no slate policy named 'plackett'"):
        policy_of("plackett", 0.3)
    with pytest.raises(SettingError, match=r"epsilon_swap\.epsilon: got 2"):
        policy_of("epsilon_swap", 2.0)
