"""Judge reformulators depth by depth: what more feedback gives, whom it hurts, and what a guard is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recsys.data.mined import Mined, joined
from recsys.errors import DataError
from recsys.evaluation.recommenders import VectorRecommender
from recsys.metrics.ranking import Metric, find_hits, measure_hits, parse
from recsys.retrieval.guard import Guard, signals
from recsys.retrieval.reformulation import NamedReformulator, feedback_of, pseudo_feedback
from recsys.types import NO_ROW, Bool, Feedback, Float32, Int32, Int64, ItemRoles, Neighbours, RowSets
from twintower.errors import describe, verbatim
from twintower.types import FeedbackKind

Float64 = NDArray[np.float64]

SURE = 0.01
"""Largest p-value of a gain that counts as sure: small, because the cases have chosen the epoch before."""
FEWEST = 10
"""Cases that can be sure of anything."""
SAME = 1e-9
"""Differences of a metric that count as none: the noise of a sum."""


@dataclass(frozen=True)
class Curve:
    """One reformulator on the same cases at several depths.

    Attributes:
        depths: numbers of items of feedback, ascending; 0 is the original query.
        values: by metric, `[depths, cases]`, float64.
        fell_back: `[depths, cases]`, bool, where the guard kept the original query.
        of_moves: `[depths, cases, signals]`, float32, what a guard sees.
    """

    depths: tuple[int, ...]
    values: Mapping[str, Float64]
    fell_back: Bool
    of_moves: Float32

    def gains(self, metric: str) -> Float64:
        """Return by how much each depth is better than depth 0, `[depths, cases]`."""
        values = self.values[metric]
        return values - values[self.depths.index(0)]

    def mean(self, metric: str) -> float:
        """Return the mean over cases and over depths above 0: what settings of a move are chosen by."""
        return float(self.values[metric][1:].mean())

    def helped(self, metric: str) -> Bool:
        """Return which cases each depth makes better than depth 0, `[depths, cases]`."""
        return self.gains(metric) > SAME

    def hurt(self, metric: str) -> Bool:
        """Return which cases each depth makes worse than depth 0, `[depths, cases]`."""
        return self.gains(metric) < -SAME

    def helped_rate(self, metric: str) -> Float64:
        """Return the share of cases (0..1) that each depth makes better than depth 0, `[depths]`."""
        return self.helped(metric).mean(axis=1)

    def hurt_rate(self, metric: str) -> Float64:
        """Return the share of cases (0..1) that each depth makes worse than depth 0, `[depths]`."""
        return self.hurt(metric).mean(axis=1)

    def robustness_index(self, metric: str) -> Float64:
        """Return `(helped - hurt) / all` of each depth, `[depths]`, -1..1.

        Reference:
            Collins-Thompson 2009, Reducing the risk of query expansion via robust constrained optimization, CIKM.
        """
        return self.helped_rate(metric) - self.hurt_rate(metric)

    def worst_decile(self, metric: str) -> Float64:
        """Return the mean gain of the tenth of the cases that each depth serves worst, `[depths]`."""
        gains = np.sort(self.gains(metric), axis=1)
        return gains[:, : max(1, gains.shape[1] // 10)].mean(axis=1)

    def falling_rate(self, metric: str) -> float:
        """Return the share (0..1) of (case, k < k') pairs whose metric is lower with more feedback."""
        values = self.values[metric]
        pairs = [(low, high) for high in range(len(values)) for low in range(high)]
        falls = [values[high] < values[low] - SAME for low, high in pairs]
        return float(np.mean(falls)) if falls else 0.0

    def under(self, guard: Guard) -> Curve:
        """Return what would have been measured with a guard that keeps the original query where it has doubts."""
        shape = self.fell_back.shape
        fell_back = ~guard.accepts(self.of_moves.reshape(-1, self.of_moves.shape[2])).reshape(shape)
        origin = self.depths.index(0)
        values = {name: np.where(fell_back, value[origin], value) for name, value in self.values.items()}
        return replace(self, values=values, fell_back=fell_back)

    @staticmethod
    def joined(curves: Sequence[Curve]) -> Curve:
        """Return the cases of several curves at the same depths side by side, as one curve."""
        first = curves[0]
        values = {name: np.concatenate([each.values[name] for each in curves], axis=1) for name in first.values}
        fell_back, of_moves = (
            np.concatenate([getattr(each, name) for each in curves], axis=1) for name in ("fell_back", "of_moves")
        )
        return Curve(first.depths, values, fell_back, of_moves)


def curve(
    named: NamedReformulator,
    mined: Mined,
    roles: ItemRoles,
    metrics: Sequence[str],
    depths: Sequence[int],
    feedback: Feedback | None = None,
    first: Callable[[int], Feedback] | None = None,
) -> Curve:
    """Measure a reformulator at several depths with exact search, its guard off; `Curve.under` turns a guard on.

    Args:
        named: what to measure.
        mined: the cases with their first results.
        roles: the vectors of the items.
        metrics: in ir-measures spelling.
        depths: numbers of items of feedback; 0 is added.
        feedback: of the cases, at least as deep as the depths; None means pseudo feedback from the first results.
        first: returns the first items of the feedback, that many of each case; None means `feedback.first`.
    """
    depths = sorted({0, *depths})
    if feedback is None:
        feedback = pseudo_feedback(mined.query_vectors, roles, mined.first, max(depths), mined.query_lengths)
    parsed = [parse(name) for name in metrics]
    values: dict[str, list[Float64]] = {metric.name: [] for metric in parsed}
    of_moves = []
    for depth in depths:
        shown = (first or feedback.first)(depth)
        vectors = named.reformulate(mined.query_vectors, shown).vectors
        for name, of_cases in measured(vectors, roles.found, mined, parsed).items():
            values[name].append(of_cases)
        of_moves.append(signals(mined.query_vectors, shown, vectors))
    stacked = {name: np.stack(of_depths) for name, of_depths in values.items()}
    return Curve(tuple(depths), stacked, np.zeros((len(depths), len(mined)), bool), np.stack(of_moves))


def measured(
    query_vectors: Float32, item_vectors: Float32, mined: Mined, metrics: Sequence[Metric]
) -> dict[str, Float64]:
    """Return each metric of each case for query vectors, by exact search, `[cases]` each."""
    depth = max(metric.cutoff for metric in metrics)
    ranked = first_results(query_vectors, item_vectors, mined.excluded, depth).item_rows
    return measure_hits(metrics, find_hits(ranked, mined.relevant), mined.relevant.sizes)


def fit_guard(found: Curve, metric: str) -> Guard:
    """Return the guard that serves validation cases best: a cap on drift, or a confidence with its threshold.

    The confidence is a logistic regression (with a small ridge) on the signals of all moves, for 'the metric does not
    fall'. Every threshold at a quantile of the moves is tried; the one with the largest mean metric over depths above
    0 is kept, and none where no threshold gains anything.

    Args:
        found: of validation cases, without a guard.
        metric: what must not fall, in ir-measures spelling.
    """
    of_moves = found.of_moves[1:].reshape(-1, found.of_moves.shape[2])
    unhurt = ~found.hurt(metric)[1:].ravel()
    coefficients = _logistic(of_moves, unhurt) if unhurt.any() and not unhurt.all() else ()
    best, best_value = Guard(), found.mean(metric)
    scale = np.linspace(0, 1, 41)[1:-1]
    tried = [Guard(max_drift=float(cap)) for cap in np.unique(np.quantile(of_moves[:, 0], scale).clip(0, 2))]
    if coefficients:
        plain = Guard(coefficients=coefficients)
        thresholds = np.unique(np.quantile(plain.confidence(of_moves), scale))
        tried += [replace(plain, min_confidence=float(threshold)) for threshold in thresholds]
    for guard in tried:
        value = found.under(guard).mean(metric)
        if value > best_value + SAME:
            best, best_value = guard, value
    return best


def simulated_explicit(
    mined: Mined, roles: ItemRoles, *, given: int, disliked_rate: float, seed: int
) -> tuple[Mined, Feedback]:
    """Return cases whose askers have said something: some relevant items as liked, wrong first results as disliked.

    What was liked is no longer asked for: it leaves the relevant items. Nothing that was liked or disliked may be
    shown, whatever the depth, as in a server's answers: gains are those of the moves. Cases with fewer than two
    relevant items, of which one must be left to find, are passed over.

    Args:
        mined: the cases.
        roles: the vectors of the items.
        given: items of feedback for each case, at most; of the relevant ones at most half.
        disliked_rate: share (0..1) of the feedback that says no, as far as there are wrong first results.
        seed: of the draw.

    Raises:
        DataError: no case has two relevant items.
    """
    _, rest, rows, kinds = with_said(mined, given=given, disliked_rate=disliked_rate, seed=seed)
    return rest, said_feedback(rest, roles, rows, kinds)


def with_said(
    mined: Mined, *, given: int, disliked_rate: float, seed: int, likeable: RowSets | None = None
) -> tuple[Int64, Mined, Int32, NDArray[np.int32]]:
    """Return which cases somebody has said something of, these cases, and the rows and kinds of what was said.

    Args:
        mined: see `simulated_explicit`, as all others.
        given: items of feedback.
        disliked_rate: share that says no.
        seed: of the draw.
        likeable: what may be liked of each case; None means half of its relevant items, of cases with two or more.

    Returns:
        Places, `[kept]`; the cases; item rows, `[kept, given]`, `NO_ROW` after the last; values of `FeedbackKind`.

    Raises:
        DataError: no case has two relevant items.
    """
    random = np.random.default_rng([seed, 14])
    kept = np.flatnonzero(mined.relevant.sizes >= 2) if likeable is None else np.arange(len(mined))
    if not len(kept):
        got = verbatim("no case with two relevant items")
        raise DataError(describe("mined", got, "at least one, to like one item and to find the other"))
    mined = mined.take(kept)
    rows = np.full((len(mined), given), NO_ROW, np.int32)
    kinds = np.full((len(mined), given), FeedbackKind.LIKED, np.int32)
    for case in range(len(mined)):
        may_be_liked = mined.likeable(case, random) if likeable is None else likeable[case]
        said, of_kind = mined.explicit(case, may_be_liked, given, disliked_rate, random)
        rows[case, : len(said)], kinds[case, : len(said)] = said, of_kind
    liked, given_rows = (
        RowSets.from_pairs(np.nonzero(chosen)[0], rows[chosen], len(mined))
        for chosen in ((rows != NO_ROW) & (kinds == FeedbackKind.LIKED), rows != NO_ROW)
    )
    rest = replace(mined, relevant=mined.relevant.without(liked), excluded=mined.excluded.union(given_rows))
    return kept, rest, rows, kinds


def said_feedback(mined: Mined, roles: ItemRoles, rows: Int32, kinds: NDArray[np.int32]) -> Feedback:
    """Return what was said of items as feedback on the cases, its ranks unknown."""
    unranked = np.full_like(rows, NO_ROW)
    return feedback_of(mined.query_vectors, roles, rows, query_lengths=mined.query_lengths, kinds=kinds, ranks=unranked)


def as_in_training(
    mined: Mined, roles: ItemRoles, *, given: int, explicit_rate: float, disliked_rate: float, seed: int
) -> tuple[Mined, Feedback]:
    """Return cases with feedback as a training gives it: of some what their askers said, of the others first results.

    Args:
        mined: the cases.
        roles: the vectors of the items.
        given: items of feedback for each case, at most.
        explicit_rate: share (0..1) of the cases whose askers say something; those that can (see `simulated_explicit`).
        disliked_rate: see `simulated_explicit`.
        seed: of the draws.
    """
    drawn = np.random.default_rng([seed, 17]).random(len(mined)) < explicit_rate
    told = drawn & (mined.relevant.sizes >= 2)
    parts = []
    if not told.all():
        others = mined.take(np.flatnonzero(~told))
        first = pseudo_feedback(others.query_vectors, roles, others.first, given, others.query_lengths)
        parts.append((others, first))
    if told.any():
        tellers = mined.take(np.flatnonzero(told))
        parts.append(simulated_explicit(tellers, roles, given=given, disliked_rate=disliked_rate, seed=seed))
    stored = [name for name in Feedback.__dataclass_fields__ if name != "extended"]
    together = (np.concatenate([getattr(part, name) for _, part in parts]) for name in stored)
    return joined([part for part, _ in parts]), Feedback(*together)


def with_noise(first_rows: Int32, items: int, noise_rate: float, seed: int) -> Int32:
    """Return first results of which a share is replaced by random items, `[cases, k]`, int32.

    Args:
        first_rows: `[cases, k]`, int32, `NO_ROW` where there is none.
        items: rows of the catalogue.
        noise_rate: share (0..1) that is replaced; each place by the same draw at every rate, so that curves are smooth.
        seed: of the draws.
    """
    random = np.random.default_rng([seed, 15])
    chance, others = random.random(first_rows.shape), random.integers(0, items, first_rows.shape)
    return np.where((chance < noise_rate) & (first_rows != NO_ROW), others, first_rows).astype(np.int32)


def first_results(query_vectors: Float32, item_vectors: Float32, excluded: RowSets, k: int) -> Neighbours:
    """Return the k best items of each case by exact search; `NO_ROW` where fewer may be shown.

    Args:
        query_vectors: `[cases, dim]`, float32, finite.
        item_vectors: `[items, dim]`, float32, finite.
        excluded: items that may not be shown, one set a case.
        k: places; a smaller catalogue gives as many as it has.
    """
    recommender = VectorRecommender(query_vectors, item_vectors, excluded)
    return recommender.recommend(np.arange(len(query_vectors)), min(k, len(item_vectors)))


def _logistic(of_moves: Float32, unhurt: Bool) -> tuple[float, ...]:
    inputs = of_moves.astype(np.float64)
    mean, deviation = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    scaled = np.column_stack([np.ones(len(inputs)), (inputs - mean) / deviation])
    sign = np.where(unhurt, 1.0, -1.0)

    def cost(factors: Float64) -> tuple[float, Float64]:
        margins = sign * (scaled @ factors)
        wrong = 1 / (1 + np.exp(np.clip(margins, -60, 60)))
        ridge = 1e-3 * np.concatenate([[0.0], factors[1:]])
        gradient = -(scaled * (sign * wrong)[:, None]).mean(axis=0) + ridge
        return float(np.logaddexp(0, -margins).mean() + (ridge * factors).sum() / 2), gradient

    factors = minimize(cost, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    plain = factors[1:] / deviation
    return (float(factors[0] - plain @ mean), *plain.tolist())
