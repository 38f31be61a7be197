"""Win rates that may be looked at after every win, against closed forms, brute force and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from recsys.experiment.sequential import always_valid_half_width, always_valid_rate, log_evidence
from twintower.errors import SettingError

ALARM = math.log(1 / 0.05)


def test_few_wins_are_counted_by_hand():
    # All rates alike: B(1 + w, 1 + l) / B(1, 1) = w! l! / (w + l + 1)!, over (1/2)^(w + l).
    assert math.exp(log_evidence(0, 0, 0.5)) == pytest.approx(1)
    assert math.exp(log_evidence(7, 0, 0.5)) == pytest.approx(2**7 / 8)
    assert math.exp(log_evidence(2, 1, 0.5)) == pytest.approx(2**3 * 2 / 24)
    # 7 of 7: 1 / (8 rate^7) <= 20 where rate >= (1 / 160)^(1 / 7).
    assert always_valid_rate(7, 0, alpha=0.05) == pytest.approx(((1 / 160) ** (1 / 7), 1.0), rel=1e-9)
    assert always_valid_rate(0, 7, alpha=0.05) == pytest.approx((0.0, 1 - (1 / 160) ** (1 / 7)), rel=1e-9)
    assert always_valid_rate(0, 0, alpha=0.05) == (0, 1)


@pytest.mark.parametrize(("wins", "losses", "planned"), [(3, 1, None), (60, 40, None), (60, 40, 500), (1, 30, 90)])
def test_at_both_bounds_the_mixture_of_likelihood_ratios_is_one_over_alpha(wins, losses, planned):
    alpha, weight = 0.1, 1.0
    if planned is not None:
        # The variance 1 / (4 (2 a + 1)) of the beta distribution is a quarter of rho^2, that of the normal mixture.
        rho_squared = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
        weight = (1 / rho_squared - 1) / 2
    for bound in always_valid_rate(wins, losses, planned=planned, alpha=alpha):

        def ratio(rate, bound=bound):
            likelier = wins * math.log(rate / bound) + losses * math.log((1 - rate) / (1 - bound))
            return math.exp(likelier) * stats.beta.pdf(rate, weight, weight)

        peak = (wins + weight) / (wins + losses + 2 * weight)
        mixture = integrate.quad(ratio, 0, 1, points=[peak], epsabs=0, epsrel=1e-12, limit=200)[0]
        assert mixture == pytest.approx(1 / alpha, rel=1e-9)
        evidence = float(log_evidence(wins, losses, bound, planned=planned, alpha=alpha))
        assert math.exp(evidence) == pytest.approx(mixture, rel=1e-9)


@pytest.mark.parametrize("counts", [(1, 10**7), (10**7, 1), (5 * 10**6, 5 * 10**6)])
@pytest.mark.parametrize("planned", [None, 1, 10**9])
def test_counts_of_any_size_and_plan_have_an_interval_around_the_observed_rate(counts, planned):
    low, high = always_valid_rate(*counts, planned=planned, alpha=0.001)
    assert 0 <= low < counts[0] / sum(counts) < high <= 1


def test_a_smaller_preference_is_told_from_none_about_where_it_was_planned():
    wins = np.arange(500, 1001)
    least = {
        planned: int(wins[log_evidence(wins, 1000 - wins, 0.5, planned=planned) >= ALARM][0])
        for planned in (10, 1000, 100_000, None)
    }
    assert least[1000] < least[None] < min(least[10], least[100_000])
    low, _ = always_valid_rate(least[1000], 1000 - least[1000], planned=1000, alpha=0.05)
    assert 0.5 < low < 0.501


@pytest.mark.parametrize("planned", [None, 300])
def test_looking_after_every_vote_alarms_in_fewer_than_5_percent_of_aa_tests_and_finds_60_to_40(planned):
    draw = np.random.default_rng(5)
    votes = np.arange(1, 1001)
    alarmed = {}
    for rate in (0.5, 0.6):
        wins = (draw.random((2000, len(votes))) < rate).cumsum(axis=1)
        evidence = log_evidence(wins, votes - wins, 0.5, planned=planned)
        alarmed[rate] = (evidence >= ALARM).any(axis=1).mean()
        fixed = np.abs(wins - votes / 2) > 1.96 * np.sqrt(votes) / 2
        if rate == 0.5:
            assert fixed[:, 99:].any(axis=1).mean() > 0.2
    # 2,000 simulations: 5 % +- 3 * sqrt(0.05 * 0.95 / 2000) = 1.5 %
    assert 0.005 < alarmed[0.5] < 0.05
    # 1,000 votes speak with about 1000 KL(0.6, 0.5) - log(sqrt(1000)) = 20.1 - 3.5 > log(20) = 3.0
    assert alarmed[0.6] > 0.99


def test_votes_that_later_lists_may_turn_around_alarm_no_oftener():
    draw = np.random.default_rng(6)
    # Of 300 units each day 30 % give credit to either arm; a unit's vote is the sign of its credit so far.
    credit = draw.integers(0, 2, (1000, 60, 300), dtype=np.int8) * 2 - 1
    credit[draw.random(credit.shape, np.float32) >= 0.3] = 0
    credit.cumsum(axis=1, out=credit)
    wins, losses = (credit > 0).sum(axis=2), (credit < 0).sum(axis=2)
    assert (log_evidence(wins, losses, 0.5) >= ALARM).any(axis=1).mean() < 0.05


@pytest.mark.parametrize("planned", [0, -1, math.nan, math.inf])
def test_a_plan_for_no_units_is_refused_and_never_taken_for_none_at_all(planned):
    with pytest.raises(SettingError, match=r"planned_units: got .*, expected a number above 0"):
        always_valid_half_width(1.0, 10, planned_units=planned, alpha=0.05)
    with pytest.raises(SettingError, match=r"planned_units: got .*, expected a number above 0"):
        always_valid_rate(1, 2, planned=planned, alpha=0.05)
