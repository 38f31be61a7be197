"""Small controlled randomisation of a list, with the exact probability of every list, and of items at places."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.errors import ShapeError
from recsys.registry import parse, settings
from recsys.types import Int64
from twintower.errors import SettingError, describe, unknown

Float64 = NDArray[np.float64]

STEP = 0.1
"""Of the quadrature over the logarithm of time; the integrands are analytic in a strip, so the error is below 1e-12."""
BLOCK = 1024
"""Nodes of the quadrature that are held at once: 16 MB for 100 candidates and 10 places."""


@settings()
class PlackettLuce:
    """Draws places one after another, each in proportion to `exp(score / temperature)` of the candidates left.

    Sorting `score / temperature` plus Gumbel noise draws exactly that.

    Reference:
        Plackett 1975, The Analysis of Permutations, Applied Statistics 24. The noise: Yellott 1977, J. Math. Psych. 15.

    Attributes:
        temperature: in units of scores; towards 0 the list stays as it was.
    """

    temperature: float = Field(gt=0)

    def draw(self, scores: Float64, k: int, generator: np.random.Generator) -> Int64:
        """Return the places among the candidates of the k items to show, best first.

        Args:
            scores: `[candidates]`, finite.
            k: items to show, 1..candidates.
            generator: source of the noise.
        """
        scores = _checked(scores, k)
        noisy = scores / self.temperature + generator.gumbel(size=len(scores))
        return np.argsort(-noisy, kind="stable")[:k]

    def log_propensity(self, scores: Float64, slate: Int64) -> float:
        """Return the logarithm of the probability that `draw` returns exactly this list.

        `sum_k( s_k - log( sum_j( exp(s_j) ) ) )`, `s = score / temperature`, j over the candidates not yet placed at k

        Args:
            scores: `[candidates]`, finite.
            slate: `[k]`, distinct places among the candidates.
        """
        slate = _checked_slate(scores, slate)
        logits = _checked(scores, len(slate)) / self.temperature
        left = np.delete(logits, slate)
        after = np.logaddexp.reduce(left) if len(left) else -np.inf
        # From the last place backwards: what is left when place k is filled is the rest and everything from k on.
        remaining = np.logaddexp.accumulate(np.concatenate([[after], logits[slate][::-1]]))[1:][::-1]
        return float((logits[slate] - remaining).sum())

    def marginals(self, scores: Float64, k: int) -> Float64:
        """Return the probability of each candidate at each place.

        Candidate i arrives after a time `E_i ~ Exp(w_i)`, `w_i = exp(score_i / temperature)`; the order of arrival has
        the law of `draw`. So it is at place p with probability
        `integral of w_i e^(-w_i t) P( exactly p of the others have come by t ) dt`, one quadrature for all; how many
        have come is a sum of independent indicators whose distribution is built up one candidate after another.

        Args:
            scores: `[candidates]`, finite; keep them to a few hundred.
            k: places, 1..candidates.

        Returns:
            `[candidates, k]`, each column sums to 1.
        """
        logits = _checked(scores, k) / self.temperature
        logits = logits - logits.max()
        # Candidate i comes between e^-30 and e^4 times its mean time of arrival, but for one case in 10^13.
        ticks = [np.arange(int((-logit - 30) // STEP), int((-logit + 4) // STEP) + 1) for logit in logits]
        log_times = STEP * np.unique(np.concatenate(ticks))
        found = np.zeros((len(logits), k))
        for start in range(0, len(log_times), BLOCK):
            found += STEP * _arrivals(logits, log_times[start : start + BLOCK], k)
        return found


@settings()
class EpsilonSwap:
    """With a small probability exchanges one place of the list with another place of the candidates.

    The place that is shown and the other one are uniform; the other one may be shown, too, or lie beyond the list.

    Attributes:
        epsilon: probability of an exchange, 0..1.
    """

    epsilon: float = Field(ge=0, le=1)

    def draw(self, scores: Float64, k: int, generator: np.random.Generator) -> Int64:
        """Return the places among the candidates of the k items to show, best first.

        Args:
            scores: `[candidates]`, finite, best first; only their number matters.
            k: items to show, 1..candidates.
            generator: source of the draws.
        """
        places = np.arange(len(_checked(scores, k)))
        if len(places) > 1 and generator.random() < self.epsilon:
            one, other = generator.integers(k), generator.integers(len(places) - 1)
            other += other >= one
            places[[one, other]] = places[[other, one]]
        return places[:k]

    def log_propensity(self, scores: Float64, slate: Int64) -> float:
        """Return the logarithm of the probability that `draw` returns exactly this list; `-inf` where it cannot.

        `1 - epsilon` for the list as it was; `epsilon / (k (candidates - 1))` with one item from beyond the list;
        twice that with two of its items exchanged.

        Args:
            scores: `[candidates]`, finite, best first.
            slate: `[k]`, distinct places among the candidates.
        """
        slate = _checked_slate(scores, slate)
        candidates, k = len(_checked(scores, len(slate))), len(slate)
        moved = np.flatnonzero(slate != np.arange(k))
        if len(moved) == 0:
            probability = 1 - self.epsilon if candidates > 1 else 1.0
        elif len(moved) == 1:
            probability = self.epsilon / (k * (candidates - 1))
        elif len(moved) == 2 and (slate[moved] == moved[::-1]).all():
            probability = 2 * self.epsilon / (k * (candidates - 1))
        else:
            probability = 0.0
        return float(np.log(probability)) if probability > 0 else -np.inf

    def marginals(self, scores: Float64, k: int) -> Float64:
        """Return the probability of each candidate at each place, `[candidates, k]`, each column sums to 1."""
        candidates = len(_checked(scores, k))
        found = np.zeros((candidates, k))
        if candidates > 1:
            once = self.epsilon / (k * (candidates - 1))
            found += once
            # An exchange of two shown places can be drawn from either of them.
            found[:k] += once
        np.fill_diagonal(found, 0.0)
        found[np.arange(k), np.arange(k)] = 1 - found.sum(axis=0)
        return found


POLICIES: dict[str, type] = {"plackett_luce": PlackettLuce, "epsilon_swap": EpsilonSwap}
"""By their names in the exposure log."""


def policy_of(name: str, parameter: float) -> PlackettLuce | EpsilonSwap:
    """Return the policy that an exposure's `slate_policy` and `slate_parameter` name.

    Raises:
        SettingError: an unknown name, or a parameter out of its range.
    """
    if name not in POLICIES:
        raise SettingError(unknown("slate policy", name, POLICIES))
    values: dict[str, Any] = {"temperature" if name == "plackett_luce" else "epsilon": parameter}
    return parse(POLICIES[name], values, name)


def _arrivals(logits: Float64, log_times: Float64, k: int) -> Float64:
    """Return the sum over times of the density of each candidate's arrival in each place, `[candidates, k]`."""
    rate_time = np.exp(np.minimum(logits[:, None] + log_times, 700.0))
    come, density = -np.expm1(-rate_time), rate_time * np.exp(-rate_time)
    ahead, behind = _counts(come, k), _counts(come[::-1], k)[::-1]
    found = np.empty((len(logits), k))
    for i in range(len(logits)):
        for place in range(k):
            others = (ahead[i][: place + 1] * behind[i + 1][place::-1]).sum(axis=0)
            found[i, place] = (density[i] * others).sum()
    return found


def _counts(come: Float64, k: int) -> Float64:
    """Return how many of the first i candidates have come by each time.

    Args:
        come: `[candidates, times]`, the probability of each by each time.
        k: counts 0..k-1 matter.

    Returns:
        `[candidates + 1, k, times]`, probabilities.
    """
    counts = np.zeros((len(come) + 1, k, come.shape[1]))
    counts[0, 0] = 1.0
    for i, probability in enumerate(come):
        counts[i + 1] = counts[i] * (1 - probability)
        counts[i + 1, 1:] += counts[i, :-1] * probability
    return counts


def _checked(scores: Float64, k: int) -> Float64:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ShapeError(describe("scores", scores.shape, "finite numbers of shape [candidates]"))
    if not 1 <= k <= len(scores):
        raise ShapeError(describe("k", k, f"1..{len(scores)}, the number of candidates"))
    return scores


def _checked_slate(scores: Float64, slate: Int64) -> Int64:
    slate = np.asarray(slate)
    inside = slate.ndim == 1 and len(slate) > 0 and slate.min() >= 0 and slate.max() < len(scores)
    if not inside or len(np.unique(slate)) < len(slate):
        raise ShapeError(describe("slate", slate.tolist(), f"distinct places below {len(scores)}"))
    return slate
