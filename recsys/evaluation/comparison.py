"""Compare two recommenders case by case: differences with intervals, and a test of whether they are chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recsys.errors import RefusedError
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.report import DIGEST_KEY
from recsys.evaluation.slices import ALL
from twintower.errors import describe, verbatim

Float64 = NDArray[np.float64]

BLOCK_FLIPS = 2**22
"""Signs that are held in memory at once: 32 MB."""

KEY_COLUMNS = ("recommender", "slice", "case_id", "relevant_count")


@dataclass(frozen=True)
class Difference:
    """One metric of two recommenders on the same cases.

    Attributes:
        metric: in `ir-measures` spelling.
        first: mean of the first over the cases, 0..1.
        second: mean of the second.
        difference: second minus first.
        low: lower bound of the paired bootstrap interval of the difference.
        high: upper bound.
        p_value: of the paired randomisation test, two-sided, 0..1.
        corrected_p_value: the same after Holm's correction for the number of metrics compared.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    corrected_p_value: float


@dataclass(frozen=True)
class Comparison:
    """What comparing two recommenders found.

    Attributes:
        names: what the first and the second are called in tables.
        slice: the slice compared.
        cases: cases in the slice.
        confidence: level of the intervals, 0..1.
        differences: one a metric.
    """

    names: tuple[str, str]
    slice: str
    cases: int
    confidence: float
    differences: tuple[Difference, ...]


def compare(
    first: pa.Table,
    second: pa.Table,
    names: tuple[str, str],
    *,
    slice: str = ALL,
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    resamples: int = 1000,
    flips: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two recommenders that answered the same cases.

    Args:
        first: case values of one recommender, from `EvaluationReport.case_values_of`.
        second: those of another.
        names: what to call them.
        slice: the slice to compare.
        metrics: metrics to compare, in `ir-measures` spelling; none means all that both have.
        confidence: level of the intervals, 0..1.
        resamples: bootstrap resamples.
        flips: random sign flips of the test; where all combinations of signs are no more, all are tried.
        seed: of resamples and flips.

    Raises:
        RefusedError: the two answered different cases, have no such slice, or lack a metric.
    """
    _check_same_cases(first, second, names)
    first, second = (_of_slice(table, slice) for table in (first, second))
    keys = ["case_id", "relevant_count"]
    if len(first) == 0 or not first.select(keys).equals(second.select(keys)):
        got = f"{len(first):,} and {len(second):,} cases that are not the same or none"
        advice = "Slices by training count agree only between releases trained on the same interactions."
        raise RefusedError(
            describe(f"slice {slice} of {names[0]} and {names[1]}", verbatim(got), "the same cases", advice)
        )
    shared = [name for name in first.column_names if name not in KEY_COLUMNS and name in second.column_names]
    chosen = list(metrics) or shared
    if not chosen or not set(chosen) <= set(shared):
        raise RefusedError(describe("metrics", chosen, f"metrics that both have: {', '.join(shared) or 'none'}"))
    values = [np.column_stack([table[name].to_numpy() for name in chosen]) for table in (first, second)]
    differences = values[1] - values[0]
    interval = bootstrap_means(differences, confidence=confidence, resamples=resamples, seed=seed)
    p_values = randomisation_test(differences, flips=flips, seed=seed)
    columns = (
        *(value.mean(axis=0) for value in values),
        differences.mean(axis=0),
        interval.low,
        interval.high,
        p_values,
        holm(p_values),
    )
    rows = zip(chosen, *(column.tolist() for column in columns), strict=True)
    return Comparison(names, slice, len(first), confidence, tuple(Difference(*row) for row in rows))


def randomisation_test(differences: Float64, *, flips: int, seed: int) -> Float64:
    """Return how likely so large a mean difference is, were the two of each pair exchanged at random.

    `p = ( 1 + #{ |mean(sign * difference)| >= |mean(difference)| } ) / ( 1 + flips )`, signs drawn at random; where all
    combinations of signs are no more than `flips`, the exact share of them instead.

    All columns share the signs, which is what makes it quick: one matrix product. `scipy.stats.permutation_test` gives
    the same p-values one column at a time.

    Reference:
        Smucker, Allan and Carterette 2007, A Comparison of Statistical Significance Tests for Information Retrieval
        Evaluation, CIKM, Sec. 3.1.

    Args:
        differences: `[cases, columns]`, float64, of paired values.
        flips: random sign flips, >= 1.
        seed: of the signs.

    Returns:
        `[columns]`, float64, two-sided, 0 < p <= 1; 1 where all differences are 0.
    """
    differences = differences[(differences != 0).any(axis=1)]
    cases = len(differences)
    # Sums that are equal on paper may differ in their last bits.
    observed = np.abs(differences.sum(axis=0)) - 1e-9 * np.abs(differences).sum(axis=0)
    if 2**cases <= flips:
        signs = (np.arange(2**cases)[:, None] >> np.arange(cases) & 1) * 2.0 - 1.0
        return (np.abs(signs @ differences) >= observed).mean(axis=0)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_FLIPS // cases)
    as_large = np.zeros(differences.shape[1], np.int64)
    for start in range(0, flips, block):
        size = min(block, flips - start)
        signs = generator.integers(0, 2, (size, cases), dtype=np.int8) * 2.0 - 1.0
        as_large += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return (1 + as_large) / (1 + flips)


def holm(p_values: Float64) -> Float64:
    """Return p-values corrected for their number, so that the chance of any false alarm stays below the level.

    `corrected_(i) = max over j <= i of min(1, (n - j + 1) * p_(j))`, p in ascending order

    Reference:
        Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6.

    Args:
        p_values: `[n]`, float64.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(count)
    corrected[order] = np.minimum(1, np.maximum.accumulate((count - np.arange(count)) * p_values[order]))
    return corrected


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison as a table that a person can read."""
    first, second = comparison.names
    table = Table(
        title=f"{second} against {first}: {comparison.cases:,} cases, slice {comparison.slice}",
        caption=f"difference: {second} minus {first}, with its {comparison.confidence:.0%} paired bootstrap interval\n"
        "p: paired randomisation test, two-sided · corrected: Holm, over the metrics of this table",
    )
    table.title_justify = table.caption_justify = "left"
    table.add_column("metric")
    for column in (first, second, "difference", "interval", "p", "corrected p"):
        table.add_column(column, justify="right")
    for row in comparison.differences:
        table.add_row(
            row.metric,
            f"{row.first:.4f}",
            f"{row.second:.4f}",
            f"{row.difference:+.4f}",
            f"{row.low:+.4f} {row.high:+.4f}",
            f"{row.p_value:.4f}",
            f"{row.corrected_p_value:.4f}",
        )
    console.print(table)


def _check_same_cases(first: pa.Table, second: pa.Table, names: tuple[str, str]) -> None:
    digests = [(table.schema.metadata or {}).get(DIGEST_KEY, b"").decode() for table in (first, second)]
    if not digests[0] or digests[0] != digests[1]:
        got = " and ".join(f"{digest[:12] or 'none'} ({name})" for digest, name in zip(digests, names, strict=True))
        advice = (
            "They were tested on other cases or under another rule on seen items: evaluate both with the same source, "
            "split and evaluation settings."
        )
        raise RefusedError(describe("digest of the test cases", verbatim(got), "the same digest", advice))


def _of_slice(table: pa.Table, slice: str) -> pa.Table:
    return table.filter(pc.equal(table["slice"], slice)).sort_by("case_id").combine_chunks()
