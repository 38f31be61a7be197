"""Before an experiment: how many units it needs, what it could find, and how likely it is to find it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tea_tasting import Mean
from tea_tasting.aggr import Aggregates

from twintower.errors import SettingError, describe


@dataclass(frozen=True)
class Design:
    """An experiment in numbers.

    Attributes:
        units: of both arms together.
        difference: of the means that is to be found.
        relative_difference: the same as a share of the control's mean.
        power: chance of finding it, 0..1.
        alpha: chance of finding something where nothing is, 0..1.
    """

    units: int
    difference: float
    relative_difference: float
    power: float
    alpha: float


def design(
    mean: float,
    standard_deviation: float,
    *,
    units: int | None = None,
    relative_difference: float | None = None,
    power: float | None = None,
    alpha: float = 0.05,
    ratio: float = 1.0,
    correlation: float = 0.0,
) -> Design:
    """Solve for whichever of units, relative difference and power is left out; exactly one must be.

    A two-sided z test of two arms of equal variance, by tea-tasting; CUPED with a covariate of that correlation leaves
    `1 - correlation^2` of the variance. Not the t test: SciPy's noncentral t is NaN at the sizes that tea-tasting's
    search meets; below a hundred units plan a few more.

    Args:
        mean: of the metric in the control, not 0; of a ratio metric the ratio.
        standard_deviation: between units, > 0; of a rate p `sqrt(p (1 - p))`.
        units: of both arms together, >= 4.
        relative_difference: as a share of the mean, not 0.
        power: 0..1.
        alpha: level of the test, 0..1.
        ratio: units of the new arm for each one of the control, > 0.
        correlation: of the metric with its covariate, -1..1, both excluded.

    Raises:
        SettingError: a number out of its range, not exactly one left out, or no finite answer.
    """
    given = {"units": units, "relative_difference": relative_difference, "power": power}
    unknowns = [name for name, value in given.items() if value is None]
    if len(unknowns) != 1:
        rule = "exactly one left out of units, relative_difference and power"
        raise SettingError(describe("design", sorted(set(given) - set(unknowns)), rule))
    for name, value, fine, rule in (
        ("mean", mean, math.isfinite(mean) and mean != 0, "a finite number other than 0"),
        (
            "standard_deviation",
            standard_deviation,
            0 < standard_deviation < 1e150,
            "above 0 and below 1e150",
        ),
        ("units", units, units is None or units >= 4, ">= 4"),
        ("relative_difference", relative_difference, _finite_and_not_0(relative_difference), "a number other than 0"),
        ("power", power, power is None or alpha < power < 1, f"between alpha = {alpha} and 1"),
        ("alpha", alpha, 0 < alpha < 1, "between 0 and 1"),
        ("ratio", ratio, 0 < ratio < math.inf, "> 0"),
        ("correlation", correlation, -1 < correlation < 1, "between -1 and 1"),
    ):
        if not fine:
            raise SettingError(describe(name, value, rule))
    metric = Mean(
        "value",
        alternative="two-sided",
        alpha=alpha,
        ratio=ratio,
        power=0.8 if power is None else power,
        rel_effect_size=relative_difference,
        n_obs=units,
        equal_var=True,
        use_t=False,
    )
    variance = standard_deviation**2 * (1 - correlation**2)
    sample = Aggregates(4 if units is None else units, {"value": mean}, {"value": variance})
    parameter: Literal["n_obs", "rel_effect_size", "power"] = {
        "units": "n_obs",
        "relative_difference": "rel_effect_size",
        "power": "power",
    }[unknowns[0]]
    try:
        with np.errstate(all="ignore"):
            (found,) = metric.solve_power_from_aggregates(sample, parameter)
        numbers = (found.n_obs, found.effect_size, found.rel_effect_size, found.power)
        if not all(map(math.isfinite, numbers)):
            raise OverflowError
    except ValueError:
        # The search begins at three units, where this difference is found already.
        rule = "a smaller one, which a handful of units would not show"
        raise SettingError(describe("relative_difference", relative_difference, rule)) from None
    except (RuntimeError, OverflowError):
        rule = f"numbers that a design can be solved for ({unknowns[0]} has no finite answer)"
        asked = {"mean": mean, "standard_deviation": standard_deviation} | given
        raise SettingError(describe("design", asked, rule)) from None
    return Design(int(found.n_obs), float(found.effect_size), float(found.rel_effect_size), float(found.power), alpha)


def _finite_and_not_0(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value != 0)
