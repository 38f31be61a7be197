"""Accuracy of rankings, one number a case, as `trec_eval` defines it and `ir-measures` spells it.

Conventions that surprise:

- `Success@k` is the hit rate of recommender papers.
- `AP@k` divides by *all* relevant items of the case, also where there are more than k. The MAP@10 of papers with one
  relevant item a case agrees with it; a MAP@10 that divides by `min(relevant, k)` is larger where a case has more.
- `P@k` divides by k, also where fewer than k items were ranked.
- `nDCG@k` takes relevance as 0 or 1; its ideal ranking has `min(relevant, k)` hits on top.
- A case without relevant items measures 0 on everything; leave such cases out before averaging.

The project measures with NumPy over all cases at once instead of through `ir-measures`' own providers, which want one
Python object for each ranked item; the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.types import Bool, Int32, Int64, RowSets
from twintower.errors import SettingError, describe

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One measure of a ranking.

    Attributes:
        measure_name: `nDCG`, `AP`, `R`, `RR`, `Success` or `P`.
        cutoff: places that count, >= 1.
    """

    measure_name: str
    cutoff: int

    @property
    def name(self) -> str:
        """The metric in `ir-measures` spelling, such as `nDCG@10`."""
        return f"{self.measure_name}@{self.cutoff}"

    def measure(self, hits: Bool, relevant_counts: Int64) -> Float64:
        """Return the metric of each case.

        Args:
            hits: `[cases, k]`, whether the item at each place is relevant, best place first.
            relevant_counts: `[cases]`, int64, how many items are relevant for each case, found or not.

        Returns:
            `[cases]`, float64, 0..1, higher is better.
        """
        return FORMULAS[self.measure_name](hits[:, : self.cutoff], relevant_counts, self.cutoff)


def parse(name: str, where: str = "evaluation.metrics") -> Metric:
    """Return the metric of a name in `ir-measures` spelling; its aliases (`MAP@10`, `MRR@10`) count, too.

    Args:
        name: such as `nDCG@10`.
        where: the setting that holds the name, for messages.

    Raises:
        SettingError: unknown, without a cutoff, or with options that implicit relevance has no use for.
    """
    import ir_measures

    known = ", ".join(f"{measure_name}@k" for measure_name in FORMULAS)
    try:
        parsed = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError):
        raise SettingError(describe(where, name, f"one of {known}")) from None
    if parsed.NAME not in FORMULAS or parsed.params.keys() != {"cutoff"} or parsed.params["cutoff"] < 1:
        raise SettingError(describe(where, name, f"one of {known} with k >= 1"))
    return Metric(parsed.NAME, parsed.params["cutoff"])


def measure(names: Iterable[str], ranked: Int32, relevant: RowSets) -> dict[str, Float64]:
    """Return each metric of each case.

    Args:
        names: metrics in `ir-measures` spelling.
        ranked: `[cases, k]`, int32, item rows, best first, each item once a case; `NO_ROW` after the last.
        relevant: the relevant items of each case, `cases` sets.

    Returns:
        By the metric's name in `ir-measures` spelling: `[cases]`, float64, 0..1.

    Raises:
        SettingError: a name that `parse` refuses.
        ShapeError: `ranked` and `relevant` are of different numbers of cases.
    """
    hits = find_hits(ranked, relevant)
    return measure_hits([parse(name) for name in names], hits, relevant.sizes)


def measure_hits(metrics: Sequence[Metric], hits: Bool, relevant_counts: Int64) -> dict[str, Float64]:
    """Return each metric of each case from hits that `find_hits` found; for several metrics over the same hits."""
    return {metric.name: metric.measure(hits, relevant_counts) for metric in metrics}


def find_hits(ranked: Int32, sets: RowSets) -> Bool:
    """Return which ranked items are in the case's set, `[cases, k]`; padding never is.

    Args:
        ranked: `[cases, k]`, int32, item rows or `NO_ROW`.
        sets: one set of item rows a case.

    Raises:
        ShapeError: different numbers of cases, or no place at all.
    """
    if ranked.ndim != 2 or len(ranked) != len(sets) or ranked.shape[1] == 0:
        raise ShapeError(describe("ranked", ranked.shape, f"[cases, k] with {len(sets)} cases and k >= 1"))
    return sets.contains(np.arange(len(sets))[:, None], ranked)


def _success(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return 1 where a relevant item is among the first k, else 0: the hit rate."""
    return hits.any(axis=1).astype(np.float64)


def _precision(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return precision: the relevant items among the first k, divided by k."""
    return hits.sum(axis=1) / cutoff


def _recall(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return recall: the relevant items among the first k, divided by all relevant ones."""
    return hits.sum(axis=1) / np.maximum(relevant_counts, 1)


def _reciprocal_rank(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return 1 / rank of the first relevant item among the first k, else 0."""
    return (hits / _ranks(hits)).max(axis=1)


def _average_precision(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return the precisions at the relevant items among the first k, added up and divided by all relevant ones."""
    precisions = np.cumsum(hits, axis=1) / _ranks(hits)
    return (precisions * hits).sum(axis=1) / np.maximum(relevant_counts, 1)


def _ndcg(hits: Bool, relevant_counts: Int64, cutoff: int) -> Float64:
    """Return the discounted gain 1 / log2(rank + 1) of the relevant items among the first k, as a share of the best."""
    gains = 1.0 / np.log2(np.arange(2, cutoff + 2))
    ideal = np.concatenate([[1.0], np.cumsum(gains)])[np.minimum(relevant_counts, cutoff)]
    # Summed in the same order as the ideal, so that a perfect ranking measures exactly 1.
    return np.cumsum(hits * gains[: hits.shape[1]], axis=1)[:, -1] / ideal


def _ranks(hits: Bool) -> Int64:
    return np.arange(1, hits.shape[1] + 1)


FORMULAS: dict[str, Callable[[Bool, Int64, int], Float64]] = {
    "nDCG": _ndcg,
    "AP": _average_precision,
    "R": _recall,
    "RR": _reciprocal_rank,
    "Success": _success,
    "P": _precision,
}
