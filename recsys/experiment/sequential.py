"""Intervals that hold at every look: an experiment may be watched daily and stopped at any time."""

from __future__ import annotations

import math


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
    """
    rho_squared = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned_units
    grown = units * rho_squared
    # Theorem 2.2, with sigma / sqrt(t) taken out.
    return standard_error * math.sqrt(2 * (grown + 1) / grown * math.log(math.sqrt(grown + 1) / alpha))
