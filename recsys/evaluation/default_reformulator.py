"""Choose on validation queries the reformulator that answers by default, and the weights of untrained ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import ttest_1samp

from recsys import registry
from recsys.config import Run
from recsys.data import encoders
from recsys.data.mined import Mined
from recsys.data.prepare import Codes, Prepared
from recsys.evaluation.comparison import holm
from recsys.evaluation.held_out import HeldOut
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.reformulation import (
    FEWEST,
    SAME,
    SURE,
    Curve,
    Float64,
    curve,
    first_results,
    measured,
    said_feedback,
    with_said,
)
from recsys.export.query_side import QuerySide
from recsys.export.saved_model import Tower
from recsys.features import Encoder
from recsys.features._history_encoder import Meeting
from recsys.metrics.ranking import parse
from recsys.reformulators import Reformulator
from recsys.retrieval.reformulation import FOLDER, UNTRAINED, NamedReformulator, pseudo_feedback, set_default
from recsys.retrieval.retriever import MET
from recsys.types import ITEM_ID, NO_ROW, Feedback, Float32, Int32, Int64, ItemRoles, RowSets
from twintower.types import FeedbackKind

IDENTITY = "identity"
EXPLICIT, PSEUDO = "explicit", "pseudo"
DEPTHS = (1, 3, 5, 10)
"""Numbers of items of feedback that gains are measured at."""
FIRST_K = 20
"""First results of a query, of which wrong ones may be disliked."""
DISLIKED_RATE = 0.25
"""Share of simulated explicit feedback that says no."""
MAX_CASES, MAX_SCORES = 1000, 2**25
"""Validation queries that decide, drawn at random where there are more, and scores of items that a search may take."""
CHOOSING_DEPTH = 5
"""That weights of untrained reformulators are chosen at."""


@dataclass(frozen=True)
class Gain:
    """What one reformulator gains at one depth over the original query.

    Attributes:
        reformulator: its name.
        feedback: `explicit` or `pseudo`.
        depth: items of feedback.
        queries: that it was measured on.
        original: the metric of the original queries, 0..1.
        gain: by how much the moved ones are better, mean over queries.
        low: lower bound of its 95 % bootstrap interval.
        high: upper bound.
        helped_rate: share (0..1) of the queries that it makes better.
        hurt_rate: share (0..1) of the queries that it makes worse.
        p_value: that the mean gain over depths is chance; one-sided t-test, Holm's correction for all reformulators
            and kinds of feedback; the same at every depth.
    """

    reformulator: str
    feedback: str
    depth: int
    queries: int
    original: float
    gain: float
    low: float
    high: float
    helped_rate: float
    hurt_rate: float
    p_value: float


@dataclass(frozen=True)
class DefaultChoice:
    """Which reformulator answers requests that name none, and why.

    Attributes:
        name: of the reformulator.
        sentence: why, with figures.
        metric: that decided, in ir-measures spelling.
        gains: of every candidate, kind of feedback and depth.
    """

    name: str
    sentence: str
    metric: str
    gains: tuple[Gain, ...] = ()

    def save(self, home: Path) -> None:
        """Write it into a release folder that has a reformulator of this name."""
        set_default(home, self.name, {name: value for name, value in asdict(self).items() if name != "name"})


@dataclass(frozen=True)
class FeedbackCases:
    """Queries with one kind of feedback on them.

    Attributes:
        mined: the queries.
        feedback: on them, as many items as `DEPTHS` go deep.
        extend: returns the queries encoded again with what was liked among that many first items, `[queries, dim]`;
            None where no tower reads a history.
    """

    mined: Mined
    feedback: Feedback
    extend: Callable[[int], Float32] | None = None

    @property
    def kinds(self) -> frozenset[FeedbackKind]:
        """The kinds of the feedback."""
        return frozenset(map(FeedbackKind, self.feedback.kinds[self.feedback.present].tolist()))

    def first(self, depth: int) -> Feedback:
        """Return the first items of each query's feedback."""
        shown = self.feedback.first(depth)
        return shown if self.extend is None else replace(shown, extended=self.extend(depth))


def validation_cases(
    run: Run, prepared: Prepared, validation: HeldOut, tower: Tower, side: QuerySide, item_vectors: Float32
) -> dict[str, FeedbackCases]:
    """Return the validation queries with pseudo feedback, and with simulated explicit feedback where that is possible.

    Where the tower reads a history, it ends at a random item, as those give feedback of whom little is known; the items
    after it are liked, and the held-out ones are to be found. Elsewhere half of a query's held-out items are liked.

    Args:
        run: gives the seed.
        prepared: the data that the towers were fitted on.
        validation: the queries; at most 1,000 are drawn, of a catalog of more than 33,000 items fewer.
        tower: the query tower.
        side: what having met each item means for a query, by that tower.
        item_vectors: `[items, dim]`, float32, unit length.
    """
    cases, roles = validation.cases, ItemRoles(item_vectors, side.vectors)
    item_ids = np.array(prepared.items[ITEM_ID].to_pylist(), dtype=object)
    rows = np.flatnonzero(cases.reachable.sizes > 0)
    if len(rows) > (most := max(FEWEST, min(MAX_CASES, MAX_SCORES // len(item_vectors)))):
        rows = np.sort(np.random.default_rng([run.seed, 20]).choice(rows, most, replace=False))

    def mined(rows: Int64, codes: Codes, withheld: RowSets) -> tuple[Int64, Mined]:
        """Return which queries say something, and their first results without the items that are withheld."""
        vectors, raw = tower.encode(codes)
        lengths = side.lengths(encoders.evidence(prepared.query_encoders, codes, raw))
        shown = withheld if cases.excluded is None else cases.excluded.take(rows).union(withheld)
        first = first_results(vectors, item_vectors, shown, FIRST_K)
        ids, relevant = cases.case_ids.take(pa.array(rows)), cases.reachable.take(rows)
        found = Mined(ids, vectors, lengths, first, relevant, shown, {})
        speaks = np.flatnonzero(vectors.any(axis=1))  # a tower that only reads a history says nothing without one
        return speaks, found.take(speaks)

    codes = {name: of_case[rows] for name, of_case in validation.codes.items()}
    speaks, asked = mined(rows, codes, RowSets.empty(len(rows)))
    if len(asked) < FEWEST:
        return {}
    pseudo = pseudo_feedback(asked.query_vectors, roles, asked.first, max(DEPTHS), asked.query_lengths)
    found = {PSEUDO: FeedbackCases(asked, pseudo)}
    reads_history, likeable = any(map(encoders.is_history, prepared.query_encoders.values())), None
    if reads_history:
        places, codes, likeable = _shortened(validation, rows, prepared.query_encoders, item_ids, run.seed)
        speaks, asked = mined(rows[places], codes, likeable)
        likeable = likeable.take(speaks)
    if (len(asked) if reads_history else np.count_nonzero(asked.relevant.sizes >= 2)) < FEWEST:
        return found
    kept, rest, said, kinds = with_said(
        asked, given=max(DEPTHS), disliked_rate=DISLIKED_RATE, seed=run.seed, likeable=likeable
    )
    extend = None
    if reads_history:
        of_kept = {name: of_case[speaks[kept]] for name, of_case in codes.items()}
        met = np.where(np.isin(kinds, MET), said, NO_ROW)
        extend = functools.partial(_extended, tower, prepared.query_encoders, of_kept, item_ids, met)
    return {EXPLICIT: FeedbackCases(rest, said_feedback(rest, roles, said, kinds), extend), **found}


def _shortened(
    validation: HeldOut, rows: Int64, query_encoders: Mapping[str, Encoder], item_ids: np.ndarray, seed: int
) -> tuple[Int64, Codes, RowSets]:
    """Return which queries met two items or more, their codes with a history that ends earlier, and what came after it.

    The logarithm of a history's length is drawn evenly. What came after it are at most as many items as `DEPTHS` go
    deep, and none that a query is to find.
    """
    random = np.random.default_rng([seed, 21])
    met, ends = validation.met, np.cumsum(validation.met.lengths)
    places, withheld, histories = [], [], []
    for place, row in enumerate(rows):
        own = slice(ends[row] - met.lengths[row], ends[row])
        items, ages = met.item_row[own], met.age_days[own]
        distinct = items[np.sort(np.unique(items, return_index=True)[1])]  # newest first
        if len(distinct) < 2:
            continue
        length = int((len(distinct) - 1) ** random.random())  # 1 to all but one
        later = distinct[:-length]
        liked = later[~np.isin(later, validation.cases.reachable[row])][-max(DEPTHS) :]
        if len(liked):
            left = ~np.isin(items, later)
            places.append(place)
            withheld.append(liked)
            histories.append([Meeting(*each) for each in zip(item_ids[items[left]], ages[left].tolist(), strict=True)])
    codes = {
        name: encoder.encode_values(histories) if encoders.is_history(encoder) else validation.codes[name][rows[places]]
        for name, encoder in query_encoders.items()
    }
    owners = np.repeat(np.arange(len(places)), [len(each) for each in withheld])
    items = np.concatenate([*withheld, np.zeros(0, np.int32)])
    return np.array(places, np.int64), codes, RowSets.from_pairs(owners, items, len(places))


def _extended(
    tower: Tower,
    query_encoders: Mapping[str, Encoder],
    codes: Codes,
    item_ids: np.ndarray,
    met: Int32,
    depth: int,
) -> Float32:
    """Return queries encoded again with the first `depth` items of `met`, `[queries, k]`, in their histories."""
    added = [item_ids[of_query[of_query != NO_ROW]].tolist() for of_query in met[:, :depth]]
    longer = {
        name: encoders.extended(query_encoders[name], of_query, added)
        if encoders.is_history(query_encoders[name])
        else of_query
        for name, of_query in codes.items()
    }
    return tower.encode(longer)[0]


def choose_default(curves: Mapping[str, Mapping[str, Curve]], metric: str) -> DefaultChoice:
    """Return the reformulator with the largest mean gain of those that gain significantly and do no harm.

    A candidate gains significantly where its mean gain over depths is above 0 at the 1 % level, after Holm's
    correction, by some kind of feedback. It does no harm where at no depth, and by no kind of feedback, its mean is
    below the original queries' or it hurts more queries than it helps. Where there is none, it is `identity`. The mean
    gain is over all kinds of feedback that any candidate reads: one that ignores a kind gains nothing by it.

    Args:
        curves: of each candidate by name, and by each kind of feedback that it reads, on the same validation queries
            at the same depths.
        metric: that decides, in ir-measures spelling.
    """
    metric = parse(metric).name
    pairs = [(name, feedback) for name, by_feedback in curves.items() for feedback in by_feedback]
    means = {pair: curves[pair[0]][pair[1]].gains(metric)[1:].mean(axis=0) for pair in pairs}
    corrected = holm(np.array([_p_value(means[pair]) for pair in pairs])).tolist()
    p_values = dict(zip(pairs, corrected, strict=True))
    kinds = {feedback for by_feedback in curves.values() for feedback in by_feedback}
    best = {
        name: sum(float(means[name, feedback].mean()) for feedback in by_feedback) / len(kinds)
        for name, by_feedback in curves.items()
        if any(p_values[name, feedback] < SURE for feedback in by_feedback)
        and not any(harms(found, metric) for found in by_feedback.values())
    }
    name = max(best, key=best.__getitem__, default=IDENTITY)
    gains = tuple(gain for pair in pairs for gain in _gains(*pair, curves[pair[0]][pair[1]], metric, p_values[pair]))
    return DefaultChoice(name, _sentence(name, gains, metric), metric, gains)


def choose_untrained(
    cases: Mapping[str, FeedbackCases], roles: ItemRoles, metric: str
) -> tuple[tuple[NamedReformulator, ...], DefaultChoice]:
    """Return the untrained reformulators with weights chosen on validation queries, and which of them is the default.

    The weights are those with the largest mean of the metric over the kinds of feedback, at five items of feedback.

    Args:
        cases: by kind of feedback; none keeps the weights as they are, and `identity` is the default.
        roles: the vectors of the items.
        metric: that decides, in ir-measures spelling.
    """
    kinds = [kind for kind in UNTRAINED if kind != IDENTITY]
    named = tuple(NamedReformulator(kind, _tuned(kind, cases.values(), roles, metric)) for kind in kinds)
    curves = {
        one.name: {
            feedback: curve(one, each.mined, roles, [metric], DEPTHS, each.feedback, first=each.first)
            for feedback, each in cases.items()
            if not each.kinds <= one.ignores
        }
        for one in named
    }
    return named, choose_default({name: found for name, found in curves.items() if found}, metric)


def _tuned(kind: str, cases: Collection[FeedbackCases], roles: ItemRoles, metric: str) -> Reformulator:
    given = registry.build(FOLDER, {"kind": kind}, kind)
    candidates = given.candidates()
    if len(candidates) == 1 or not cases:
        return given
    wanted = [parse(metric)]

    def value(candidate: Reformulator) -> float:
        total = 0.0
        for each in cases:
            moved = candidate.reformulate(each.mined.query_vectors, each.first(CHOOSING_DEPTH)).vectors
            total += measured(moved, roles.found, each.mined, wanted)[wanted[0].name].mean()
        return total

    return max(candidates, key=value)


def _p_value(gains: Float64) -> float:
    """Return the probability of gains as large as these where there are none; 1 where they cannot show any."""
    if len(gains) < FEWEST or np.ptp(gains) <= SAME:
        return 1.0
    return float(ttest_1samp(gains, 0.0, alternative="greater").pvalue)


def harms(found: Curve, metric: str) -> bool:
    """Return whether a mean lies below the original queries' at some depth, or more queries are hurt than helped."""
    is_below = found.gains(metric).mean(axis=1) < -SAME
    return bool(is_below.any() or (found.hurt_rate(metric) > found.helped_rate(metric)).any())


def _gains(name: str, feedback: str, found: Curve, metric: str, p_value: float) -> list[Gain]:
    gains = found.gains(metric)
    interval = bootstrap_means(gains.T, confidence=0.95, resamples=1000, seed=0)
    columns = (gains.mean(axis=1), interval.low, interval.high, found.helped_rate(metric), found.hurt_rate(metric))
    original = float(found.values[metric][0].mean())
    return [
        Gain(name, feedback, depth, gains.shape[1], original, *map(float, row), p_value)
        for depth, *row in zip(found.depths, *columns, strict=True)
        if depth
    ]


def _sentence(name: str, gains: Sequence[Gain], metric: str) -> str:
    """Return which reformulator is the default and why."""
    if not gains:
        return "Feedback: identity answers by default: there are no validation queries to measure a gain on."
    if name == IDENTITY:
        best = max(gains, key=lambda gain: gain.gain)
        return (
            f"Feedback: identity answers by default: on {best.queries:,} validation queries no reformulator gains "
            f"significantly in {metric} without harm at some depth; the best is {_in_words(best, metric)}."
        )
    deepest = max(gain.depth for gain in gains)
    own = [gain for gain in gains if gain.reformulator == name and gain.depth == deepest]
    return f"Feedback: {name} answers by default: {'; '.join(_in_words(gain, metric) for gain in own)}."


def _in_words(gain: Gain, metric: str) -> str:
    p_value = "< .001" if gain.p_value < 0.001 else f"= {gain.p_value:.3f}"
    return (
        f"{gain.reformulator} with {gain.depth} items of {gain.feedback} feedback, {metric} of {gain.queries:,} "
        f"validation queries {gain.original:.4f} {gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], p {p_value}, "
        f"{gain.helped_rate:.0%} helped and {gain.hurt_rate:.0%} hurt"
    )
