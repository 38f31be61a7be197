"""The numbers of an ablation: means over seeds and cases, gains over the baseline, paired intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.ablation.cells import Case, asked
from recsys.ablation.rows import BASELINE
from recsys.evaluation.comparison import holm
from recsys.evaluation.held_out import HeldOut
from recsys.evaluation.slices import ALL, item_slices
from recsys.evaluation.verdict import LEVEL, simplest_of
from recsys.metrics.ranking import measure
from recsys.types import Bool, Int32, RowSets

Float64 = NDArray[np.float64]

SLICES = (ALL, "head", "tail", "cold")
DECILES = tuple(f"decile {number}" for number in range(1, 11))


@dataclass(frozen=True)
class Trial:
    """One look at the validation cases while tuning.

    Attributes:
        case: the comparison.
        subject: the row.
        chosen: values of the searched settings, by path.
        values: by metric, mean over the validation cases.
    """

    case: Case
    subject: str
    chosen: Mapping[str, Any]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """One number of the table.

    Attributes:
        case: the comparison.
        slice: `all`, `head`, `tail`, `cold` or `decile 1` (the most popular tenth of the catalogue) to `decile 10`.
        subject: the row.
        metric: in ir-measures spelling.
        cases: test cases with a relevant item in the slice.
        seeds: trainings behind the number.
        value: mean over seeds and cases, 0..1.
        low: lower bound of its 95 % interval.
        high: upper bound.
        gain_rate: relative gain over the baseline, unitless; NaN where the baseline measures 0.
        gain_low: lower bound of its paired 95 % interval; NaN where there is none.
        gain_high: upper bound; NaN where there is none, because the baseline measures 0 in too many resamples.
        over: the row that the gain is over; `gain_rate` speaks of it as the baseline.
        p_value: of the difference from `over`, two-sided, 0..1.
        corrected_p_value: the same after Holm's correction for all comparisons of the case's tables; NaN where the
            number is not one of these comparisons.
        has_star: the difference is significant, and the baseline is not below the simplest references.
    """

    case: Case
    slice: str
    subject: str
    metric: str
    cases: int
    seeds: int
    value: float
    low: float
    high: float
    gain_rate: float
    gain_low: float
    gain_high: float
    over: str = BASELINE
    p_value: float = float("nan")
    corrected_p_value: float = float("nan")
    has_star: bool = False


@dataclass(frozen=True)
class Ablation:
    """What an ablation found.

    Attributes:
        name: the run's.
        notice: what must be said wherever the data is named.
        metrics: in ir-measures spelling.
        chosen: the settings that tuning chose, by case and row; the baseline's hold for every row of the case.
        trials: every look at the validation cases.
        measured: the table.
        seconds: of all trainings, tuning and table apart, by round.
        remarks: sentences without which the table would say more than was found.
        references: the run's `evaluation.baselines`, by kind: rows to compare with that the ablation did not train.
    """

    name: str
    notice: str
    metrics: tuple[str, ...]
    chosen: Mapping[Case, Mapping[str, Mapping[str, Any]]]
    trials: tuple[Trial, ...]
    measured: tuple[Measured, ...]
    seconds: Mapping[str, float]
    remarks: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def tried(self, case: Case, subject: str) -> int:
        """Return how many settings of a row were looked at on the validation cases."""
        return sum((trial.case, trial.subject) == (case, subject) for trial in self.trials)

    @property
    def cases(self) -> list[Case]:
        """The comparisons, in order."""
        return list(self.chosen)

    @property
    def subjects(self) -> list[str]:
        """The rows, in order, the references last."""
        return list(dict.fromkeys(entry.subject for entry in self.measured))

    @property
    def rivals(self) -> list[str]:
        """The rows that are compared with the baseline: neither itself nor a reference."""
        references = {reference_row(kind) for kind in self.references}
        return [name for name in self.subjects if name != BASELINE and name not in references]

    def find(self, case: Case, slice: str, subject: str, metric: str, over: str = BASELINE) -> Measured | None:
        """Return one number of the table; None where the slice has no case, or the row was not compared with `over`."""
        return self._by_key.get((case, slice, subject, metric, over))

    @cached_property
    def _by_key(self) -> dict[tuple[Case, str, str, str, str], Measured]:
        return {(entry.case, entry.slice, entry.subject, entry.metric, entry.over): entry for entry in self.measured}


def reference_row(kind: str) -> str:
    """Return what the row of a reference is called; no variant can have this name."""
    return f"{kind} (reference)"


def measure_case(
    case: Case,
    test: HeldOut,
    ranked: Mapping[str, Sequence[Int32]],
    metrics: Sequence[str],
    resamples: int,
    seed: int,
    likes: Mapping[str, str],
    references: Mapping[str, Int32] | None = None,
) -> list[Measured]:
    """Return the numbers of one comparison: each row over the baseline, a variant over the row that it is like, too.

    Stars follow Holm's correction over all comparisons in the tables of the case: row, metric and slice of `SLICES`. A
    metric has no stars where a simplest reference has a higher mean over all cases than the baseline.

    Args:
        case: the comparison.
        test: its test cases.
        ranked: by row, for each seed: item rows, `[cases, depth]`, of the cases with a reachable item.
        metrics: in ir-measures spelling.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        likes: the row that each variant starts from, by name.
        references: by kind: item rows as in `ranked`, the same for every seed. They are not among the comparisons.
    """
    references = references or {}
    rows = {reference_row(kind): [of_kind] * len(ranked[BASELINE]) for kind, of_kind in references.items()}
    found = list(_numbers(case, test, {**ranked, **rows}, metrics, resamples, seed, likes))
    compared = [
        place
        for place, entry in enumerate(found)
        if entry.slice in SLICES and entry.subject != entry.over and entry.subject in ranked
    ]
    refused = {metric for metric, _, _ in below_references(found, list(references))}
    corrected = holm(np.array([found[place].p_value for place in compared]))
    for place, p_value in zip(compared, corrected.tolist(), strict=True):
        has_star = p_value < LEVEL and found[place].metric not in refused
        found[place] = replace(found[place], corrected_p_value=p_value, has_star=has_star)
    return found


def below_references(measured: Sequence[Measured], kinds: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return where the baseline is below a simplest reference over all cases: metric, kind and difference of the means.

    Args:
        measured: numbers of one case.
        kinds: of the references.
    """
    values = {(entry.subject, entry.metric): entry.value for entry in measured if entry.slice == ALL}
    return [
        (metric, kind, difference)
        for metric in dict.fromkeys(metric for _, metric in values)
        for kind in simplest_of(kinds)
        if (difference := values[BASELINE, metric] - values[reference_row(kind), metric]) < 0
    ]


def _numbers(
    case: Case,
    test: HeldOut,
    ranked: Mapping[str, Sequence[Int32]],
    metrics: Sequence[str],
    resamples: int,
    seed: int,
    likes: Mapping[str, str],
) -> Iterator[Measured]:
    """Yield the numbers of one comparison before any correction."""
    _, reachable = asked(test)
    for name, members in _slices(test).items():
        kept = members[reachable.rows]
        relevant = RowSets.from_pairs(reachable.owners[kept], reachable.rows[kept], len(reachable))
        places = np.flatnonzero(relevant.sizes > 0)
        if not len(places):
            continue
        relevant = relevant.take(places)
        values = {subject: _values(of_seeds, places, relevant, metrics) for subject, of_seeds in ranked.items()}
        seeds = values[BASELINE].shape[1]
        draws = _Draws(seeds, len(places), resamples, seed)
        means = {subject: draws.means(of_subject) for subject, of_subject in values.items()}
        compared = [(subject, BASELINE) for subject in ranked]
        compared += [(name, like) for name, like in likes.items() if like != BASELINE and like in ranked]
        for (subject, over), (place, metric) in itertools.product(compared, enumerate(metrics)):
            of_subject, of_other = values[subject][place], values[over][place]
            yield Measured(
                case,
                name,
                subject,
                metric,
                len(places),
                seeds,
                float(of_subject.mean()),
                *_bounds(means[subject][:, place]),
                *_gain(of_subject, of_other, means[subject][:, place], means[over][:, place]),
                over,
                _p_value(of_subject - of_other, means[subject][:, place] - means[over][:, place]),
            )


def _values(ranked: Sequence[Int32], places: NDArray[np.integer], relevant: RowSets, metrics: Sequence[str]) -> Float64:
    """Return every metric, `[metrics, seeds, cases]`."""
    measured = [measure(metrics, of_seed[places], relevant) for of_seed in ranked]
    return np.stack([np.stack([of_seed[metric] for of_seed in measured]) for metric in metrics])


class _Draws:
    """Bootstrap draws of seeds and of cases, the same for every row, so that differences are paired.

    Reference:
        Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2): both ways of a crossed design are drawn
        with replacement, independently.
    """

    def __init__(self, seeds: int, cases: int, resamples: int, seed: int) -> None:
        random = np.random.default_rng([seed, 8])
        self._of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
        self._of_cases = np.empty((resamples, cases), np.float32)
        for row in range(resamples):
            drawn = random.integers(0, cases, cases)
            self._of_cases[row] = np.bincount(drawn, minlength=cases) / cases

    def means(self, values: Float64) -> Float64:
        """Return the resampled means, `[resamples, metrics]`, of values `[metrics, seeds, cases]`."""
        by_seed = np.einsum("rc,msc->rms", self._of_cases, values.astype(np.float32), optimize=True)
        return np.einsum("rms,rs->rm", by_seed, self._of_seeds)


def _bounds(means: Float64) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _gain(values: Float64, baseline: Float64, means: Float64, of_baseline: Float64) -> tuple[float, float, float]:
    """Return the relative gain with its paired interval; NaN where the baseline measures 0, or a bound is not finite.

    Of a resample in which the baseline measures 0, the gain may be anything up to infinity: each bound takes what is
    worst for it, the lower one -1 where the row measures 0, too.
    """
    if baseline.mean() == 0:
        return float("nan"), float("nan"), float("nan")
    gains = np.divide(means, of_baseline, out=np.full_like(means, np.inf), where=of_baseline > 0) - 1
    neither = (of_baseline <= 0) & (means <= 0)
    low, high = _quantile(np.where(neither, -1.0, gains), 0.025), _quantile(gains, 0.975)
    return float(values.mean() / baseline.mean() - 1), low, high


def _p_value(differences: Float64, means: Float64) -> float:
    """Return a two-sided p-value of a mean difference by its bootstrap standard error, in normal approximation.

    Counting resamples could not give p-values that are small enough to survive a correction for a whole table. Where
    few cases differ, a standard error means little: no p-value is below `2^(1 - n)`, the smallest that a randomization
    test over the n cases that differ could give.

    Args:
        differences: `[seeds, cases]`, float64, paired.
        means: `[resamples]`, the resampled means of `differences`.
    """
    differing = np.count_nonzero(differences.mean(axis=0))
    if not differing:
        return 1.0
    error = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    deviations = abs(float(differences.mean())) / error if error else math.inf
    return max(math.erfc(deviations / math.sqrt(2)), 2.0 ** (1 - int(differing)))


def _quantile(values: Float64, at: float) -> float:
    """Return a quantile of values that may be infinite; NaN where it is itself."""
    with np.errstate(invalid="ignore"):  # between infinite neighbours NumPy interpolates to NaN
        found = float(np.quantile(values, at))
    return found if np.isfinite(found) else float("nan")


def _slices(test: HeldOut) -> dict[str, Bool]:
    """Return the items of each slice: those of the table, and tenths of the catalogue by training count."""
    counts = test.cases.item_counts
    parts = {ALL: np.ones(len(counts), bool), **item_slices(counts)}
    found = {name: parts[name] for name in SLICES}
    order = np.lexsort((np.arange(len(counts)), -counts))
    for name, rows in zip(DECILES, np.array_split(order, len(DECILES)), strict=True):
        found[name] = np.isin(np.arange(len(counts)), rows)
    return found
