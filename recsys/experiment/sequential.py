"""Intervals that hold at every look: an experiment may be watched daily and stopped at any time."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, special

from twintower.errors import SettingError, describe

NEAREST_RATE = 1e-300
"""Rates nearer to 0 or 1 are not told from them."""


def always_valid_half_width(standard_error: float, units: float, *, planned_units: float, alpha: float) -> float:
    """Return half the width of an asymptotic confidence sequence around an estimate.

    `standard_error * sqrt( 2 (n rho^2 + 1) / (n rho^2) * log( sqrt(n rho^2 + 1) / alpha ) )`,
    `rho^2 = ( -2 log(alpha) + log(1 - 2 log(alpha)) ) / planned_units`

    With probability of about `1 - alpha` the truth lies within it at all looks together, if the first look has enough
    units for a normal approximation. It is tightest, 1.5 to 2 times a fixed interval, near the planned number of units.

    Reference:
        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, arXiv:2103.06476, Theorem 2.2 and its choice of rho. The
        bound is also that of the mixture sequential probability ratio test of Johari et al. 2015, arXiv:1512.04922.
        Differs: stated with the standard error of the estimate, `sigma / sqrt(n)` there, so that differences of means
        and of ratios fit, too.

    A unit's value should not change after it has been looked at: values that go on growing are correlated with
    themselves between looks, which makes the sequence wider than it need be, or narrower if late values differ.

    Args:
        standard_error: of the estimate now, >= 0.
        units: behind the estimate now, both arms together, > 0.
        planned_units: at which the interval should be tightest, > 0; must not be chosen after looking.
        alpha: chance that any of the intervals misses the truth, 0..1.

    Raises:
        SettingError: `planned_units` is not above 0.
    """
    grown = units * _rho_squared(planned_units, alpha)
    # Theorem 2.2, with sigma / sqrt(t) taken out.
    return standard_error * math.sqrt(2 * (grown + 1) / grown * math.log(math.sqrt(grown + 1) / alpha))


def log_evidence(
    wins: np.ndarray | int, losses: np.ndarray | int, rate: float, *, planned: float | None = None, alpha: float = 0.05
) -> np.ndarray:
    """Return how strongly wins and losses speak against a win rate, at every look.

    `log( B(a + wins, a + losses) / B(a, a) / (rate^wins (1 - rate)^losses) )`, B = the beta function

    The likelihood of all rates, mixed by a symmetric beta distribution, over that of one. Where that one is true, and
    wins are independent, this is a martingale that starts at 1: the chance that it ever reaches `1 / alpha` is at most
    `alpha`. So `exp(-log_evidence)` is a p-value that may be looked at after each win or loss.

    Without a plan `a = 1`: all rates are alike. With one `a = (1 / rho^2 - 1) / 2`, at least 1/2: the variance is then
    that of the normal mixture of `always_valid_half_width`.

    Reference:
        Robbins 1970, Statistical methods related to the law of the iterated logarithm, Ann. Math. Statist. 41; Howard,
        Ramdas, McAuliffe and Sekhon 2021, arXiv:1810.08240, the two-sided beta-binomial mixture.

    Args:
        wins: how many, >= 0; numbers or arrays of one shape.
        losses: how many, >= 0; ties count nowhere.
        rate: share of the wins, 0..1, both excluded.
        planned: wins and losses at which the smallest preference is told from none, > 0; must not be chosen after
            looking.
        alpha: chance of a false alarm that the plan is made for, 0..1.

    Returns:
        In nats, any sign, of the same shape.
    """
    a = 1.0 if planned is None else max(0.5, (1 / _rho_squared(planned, alpha) - 1) / 2)
    mixed = special.betaln(a + np.asarray(wins), a + np.asarray(losses)) - special.betaln(a, a)
    return mixed - special.xlogy(wins, rate) - special.xlog1py(losses, -rate)


def always_valid_rate(wins: int, losses: int, *, planned: float | None = None, alpha: float) -> tuple[float, float]:
    """Return the confidence sequence of a win rate: all rates that `log_evidence` does not speak against.

    With probability of at least `1 - alpha` the truth lies within it at all looks together, however few there are.

    Args:
        wins: how many, >= 0.
        losses: how many, >= 0; ties count nowhere.
        planned: wins and losses at which it tells the smallest preference from none, > 0; must not be chosen after
            looking.
        alpha: chance that any of the intervals misses the truth, 0..1, both excluded.

    Returns:
        Both bounds, 0..1.
    """
    return (
        _lowest_rate(wins, losses, planned, alpha),
        1.0 - _lowest_rate(losses, wins, planned, alpha),
    )


def _lowest_rate(wins: int, losses: int, planned: float | None, alpha: float) -> float:
    def beyond(rate: float) -> float:
        return float(log_evidence(wins, losses, rate, planned=planned, alpha=alpha)) + math.log(alpha)

    if wins == 0 or beyond(NEAREST_RATE) <= 0:
        return 0.0
    # Convex in the rate, and below 0 at the observed one, of which no mixture of rates is likelier.
    return float(optimize.brentq(beyond, NEAREST_RATE, wins / (wins + losses), xtol=1e-15, rtol=1e-14))


def _rho_squared(planned: float, alpha: float) -> float:
    if not 0 < planned < math.inf:
        raise SettingError(describe("planned_units", planned, "a number above 0"))
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
