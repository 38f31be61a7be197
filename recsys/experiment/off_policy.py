"""What a policy would have earned, from what another one showed: estimates with intervals, and when not to trust them.

All rewards are those of the logging policy. A weight is the probability of what was shown under the new policy divided
by that under the logging policy. Formulas are those of the Open Bandit Pipeline: Saito, Aihara, Matsutani and Narita
2021, Open Bandit Dataset and Pipeline, arXiv:2008.07146; intervals are normal, from the variance over rows or, where
given, over clusters of rows that belong together. NaN and infinity never occur: numbers that the data cannot give are
None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recsys.errors import ShapeError
from twintower.errors import describe, verbatim

Float64 = NDArray[np.float64]

ROUNDING = 1e-12
"""Standard errors up to this share of the estimate are rounding: no row differs from another."""
MAX_VALUE = 1e70
"""Of weights and rewards, either sign: their products, squared and added up, are still numbers."""
LOW_EFFECTIVE_SHARE = 0.1
LARGE_WEIGHT_SHARE = 0.05
UNLIKELY = 0.001
"""When overlap is warned of: effective share of rows, share of all weight on one row, p-value of a mean weight of 1."""


@dataclass(frozen=True)
class Estimate:
    """The value of a policy.

    Attributes:
        estimator: by its usual name.
        value: mean reward a row, in the unit of the rewards.
        low: lower bound of its interval; None below two rows (or clusters), and where none differs from another.
        high: upper bound.
        standard_error: of the value; None where there is no interval.
    """

    estimator: str
    value: float
    low: float | None
    high: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Overlap:
    """How well the logging policy covers the new one.

    Attributes:
        rows: logged.
        effective_rows: `(sum w)^2 / sum w^2`: as many rows of the new policy itself would say as much.
        mean_weight: 1 in expectation where both policies and the logged propensities are right.
        largest_weight: of any row.
        warnings: why an estimate should not be trusted; empty where nothing speaks against it.
    """

    rows: int
    effective_rows: float
    mean_weight: float
    largest_weight: float
    warnings: tuple[str, ...]


def weights(new: Float64, logged: Float64) -> Float64:
    """Return importance weights.

    Args:
        new: probability of what was shown under the new policy, 0..1, any shape.
        logged: under the logging policy, 0 < p <= 1, the same shape.

    Raises:
        ShapeError: shapes differ, or a probability is out of its range.
    """
    new, logged = np.asarray(new, np.float64), np.asarray(logged, np.float64)
    if new.shape != logged.shape:
        raise ShapeError(describe("probabilities", (new.shape, logged.shape), "the same shape"))
    for name, values, low in (("new", new, 0.0), ("logged", logged, np.finfo(float).tiny)):
        wrong = ~((values >= low) & (values <= 1 + 1e-9))
        if wrong.any():
            rule = "0..1" if name == "new" else "above 0 and at most 1"
            advice = "A list that cannot have been shown was logged with a wrong propensity."
            raise ShapeError(describe(f"{name} probabilities", float(values[wrong][0]), rule, advice))
    return new / logged


def overlap(weight: Float64) -> Overlap:
    """Return how far weights can be trusted.

    Args:
        weight: `[rows]`, >= 0, at least one row.

    Raises:
        ShapeError: no rows, or a weight below 0, above 1e70 or NaN.
    """
    weight = _rows("weight", weight)
    if (weight < 0).any():
        raise ShapeError(describe("weight", float(weight.min()), ">= 0"))
    largest = float(weight.max())
    share = weight / (largest or 1.0)  # the squares of tiny weights would be 0
    total = weight.sum()
    effective = float(share.sum() ** 2 / (share**2).sum()) if largest > 0 else 0.0
    warnings = []
    if effective < LOW_EFFECTIVE_SHARE * len(weight):
        share = effective / len(weight)
        warnings.append(
            f"{effective:,.0f} effective of {len(weight):,} rows ({share:.1%}): the policies hardly overlap"
        )
    if total > 0 and len(weight) > 1 / LARGE_WEIGHT_SHARE and weight.max() > LARGE_WEIGHT_SHARE * total:
        warnings.append(f"one row carries {weight.max() / total:.1%} of the weight: clip, or log more randomly")
    if len(weight) > 1:
        error = weight.std(ddof=1) / np.sqrt(len(weight))
        p_value = 2 * stats.norm.sf(abs(weight.mean() - 1) / error) if error > 0 else float(weight.mean() == 1)
        if p_value < UNLIKELY:
            warnings.append(
                f"the mean weight is {weight.mean():.3g}, not 1: propensities are wrong, or the logging policy never "
                "shows some of what the new one would"
            )
    return Overlap(len(weight), effective, float(weight.mean()), largest, tuple(warnings))


def ips(weight: Float64, reward: Float64, *, clusters: NDArray | None = None, confidence: float = 0.95) -> Estimate:
    """Return the inverse propensity score estimate: `mean( w r )`.

    Reference:
        Horvitz and Thompson 1952, JASA 47.

    Args:
        weight: `[rows]`, from `weights`.
        reward: `[rows]`.
        clusters: `[rows]`, whom each row belongs to; default: each row for itself.
        confidence: level of the interval, 0..1.
    """
    weight, reward = _alike(weight, reward)
    return _mean("ips", weight * reward, clusters, confidence)


def clipped(
    weight: Float64, reward: Float64, largest: float, *, clusters: NDArray | None = None, confidence: float = 0.95
) -> Estimate:
    """Return the estimate with clipped weights: `mean( min(w, largest) r )`; less variance, too low for rewards >= 0.

    Args:
        weight: `[rows]`.
        reward: `[rows]`.
        largest: weight that no row exceeds, > 0.
        clusters: `[rows]`, whom each row belongs to.
        confidence: level of the interval, 0..1.
    """
    if not largest > 0:
        raise ShapeError(describe("largest", largest, "> 0"))
    weight, reward = _alike(weight, reward)
    return _mean("clipped", np.minimum(weight, largest) * reward, clusters, confidence)


def snips(weight: Float64, reward: Float64, *, clusters: NDArray | None = None, confidence: float = 0.95) -> Estimate:
    """Return the self-normalised estimate: `sum(w r) / sum(w)`, its variance by the delta method.

    Reference:
        Swaminathan and Joachims 2015, The self-normalized estimator for counterfactual learning, NeurIPS.

    Args:
        weight: `[rows]`, not all 0.
        reward: `[rows]`.
        clusters: `[rows]`, whom each row belongs to.
        confidence: level of the interval, 0..1.
    """
    weight, reward = _alike(weight, reward)
    if weight.max() <= 0:
        raise ShapeError(describe("weight", verbatim("all 0"), "a row that the new policy could have shown"))
    share = weight / weight.max()  # the sum of tiny weights would be 0
    value = (share * reward).sum() / share.sum()
    influence = share * (reward - value) / share.mean()
    return _interval("snips", value, influence, clusters, confidence)


def direct(expected: Float64, *, clusters: NDArray | None = None, confidence: float = 0.95) -> Estimate:
    """Return the direct method's estimate: `mean over rows of sum_a( pi_new(a) q(a) )`.

    The interval does not know how wrong the reward model may be.

    Args:
        expected: `[rows]`, the modelled reward of the new policy, `sum_a( pi_new(a) q(a) )`.
        clusters: `[rows]`, whom each row belongs to.
        confidence: level of the interval, 0..1.
    """
    return _mean("direct", _rows("expected", expected), clusters, confidence)


def doubly_robust(
    weight: Float64,
    reward: Float64,
    modelled: Float64,
    expected: Float64,
    *,
    clusters: NDArray | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return the doubly robust estimate: `mean( sum_a( pi_new(a) q(a) ) + w (r - q(shown)) )`.

    Unbiased where the propensities or the reward model are right; fit the model on other rows.

    Reference:
        Dudik, Langford and Li 2011, Doubly robust policy evaluation and learning, arXiv:1103.4601, Eq. 2.

    Args:
        weight: `[rows]`.
        reward: `[rows]`.
        modelled: `[rows]`, the modelled reward of what was shown, q(shown).
        expected: `[rows]`, as for `direct`.
        clusters: `[rows]`, whom each row belongs to.
        confidence: level of the interval, 0..1.
    """
    weight, reward, modelled, expected = _alike(weight, reward, modelled, expected)
    return _mean("doubly_robust", expected + weight * (reward - modelled), clusters, confidence)


def item_position(
    weight: Float64, reward: Float64, *, clusters: NDArray | None = None, confidence: float = 0.95
) -> Estimate:
    """Return the item-position estimate of a list's total reward: `mean over lists of sum_k( w_k r_k )`.

    Needs far less randomness than whole lists do; right where a place's reward depends on its own item alone.

    Reference:
        Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen 2018, Offline evaluation of ranking policies with click
        models, arXiv:1804.10488, Sec. 4.2.

    Args:
        weight: `[rows, k]`, marginal probability of each item at its place under the new policy divided by that under
            the logging policy.
        reward: `[rows, k]`, of each place.
        clusters: `[rows]`, whom each row belongs to.
        confidence: level of the interval, 0..1.
    """
    weight, reward = np.asarray(weight, np.float64), np.asarray(reward, np.float64)
    if weight.ndim != 2 or weight.shape != reward.shape:
        raise ShapeError(describe("weight and reward", (weight.shape, reward.shape), "the same shape [rows, k]"))
    for name, values in (("weight", weight), ("reward", reward)):
        _rows(name, values.ravel())
    return _mean("item_position", (weight * reward).sum(axis=1), clusters, confidence)


def on_policy(reward: Float64, *, clusters: NDArray | None = None, confidence: float = 0.95) -> Estimate:
    """Return the mean reward of the policy that was shown, to compare with."""
    return _mean("on_policy", _rows("reward", reward), clusters, confidence)


def _mean(name: str, values: Float64, clusters: NDArray | None, confidence: float) -> Estimate:
    value = values.mean()
    return _interval(name, value, values - value, clusters, confidence)


def _interval(name: str, value: float, centred: Float64, clusters: NDArray | None, confidence: float) -> Estimate:
    """Return an estimate from its value and its centred rows; of a cluster the sum counts."""
    if not 0 < confidence < 1:
        raise ShapeError(describe("confidence", confidence, "a number between 0 and 1, both excluded"))
    rows = len(centred)
    if clusters is not None:
        if len(clusters) != rows:
            raise ShapeError(describe("clusters", len(clusters), f"{rows}, one for each row"))
        _, owner = np.unique(clusters, return_inverse=True)
        centred = np.bincount(owner, centred)
    count = len(centred)
    error = float(np.sqrt(count / (count - 1) * (centred**2).sum()) / rows) if count > 1 else 0.0
    if error <= ROUNDING * abs(value):
        return Estimate(name, float(value), None, None, None)
    half = stats.norm.ppf((1 + confidence) / 2) * error
    return Estimate(name, float(value), float(value - half), float(value + half), error)


def _rows(name: str, values: Float64) -> Float64:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ShapeError(describe(name, values.shape, "numbers of shape [rows], at least one"))
    if not (np.abs(values) <= MAX_VALUE).all():
        wrong = values[~(np.abs(values) <= MAX_VALUE)]
        raise ShapeError(describe(name, float(wrong[0]), f"numbers between {-MAX_VALUE:g} and {MAX_VALUE:g}"))
    return values


def _alike(*columns: Float64) -> list[Float64]:
    found = [_rows("rows", column) for column in columns]
    if len({len(column) for column in found}) > 1:
        raise ShapeError(describe("rows", [len(column) for column in found], "the same number in every column"))
    return found
