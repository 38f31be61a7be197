"""How much of the exact answer an index finds, how surely, and which of its settings find enough in the least time."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys import progress, registry
from recsys.documents import read_json
from recsys.errors import ShapeError
from recsys.files import sha256
from recsys.indexes import ExactSearcher, Index, Searcher, checked_vectors
from recsys.indexes.scann import Scann, ScannSearcher
from recsys.types import NO_ROW, Float32, Int32
from twintower.errors import describe

CERTIFICATE = "index_certificate.json"
"""The part of a release that holds the certificate of its index."""
CHOOSING_CONFIDENCE = 0.99
"""A setting is chosen with more confidence than it must be certified with, so that the other half seldom disagrees."""
BOLDNESS = 0.9
"""Share of the capital that one draw of 0 may cost; bold bets suit recalls near 1."""
LOOKS = 3
"""Settings that may be tried on the certifying half; each gets its share of the error (Bonferroni)."""
LEAVES_FACTORS = (0.5, 1.0, 2.0)
REORDER_FACTORS = (2, 5, 10, 20, 40)
TIMED_QUERIES = 200
TIMED_BATCH = 256
TIMED_BATCHES = 5
LADDER = 24
"""Numbers of leaves to search that are tried, spaced geometrically."""


def recall_at_k(found: Int32, exact: Int32, queries: Float32, vectors: Float32) -> NDArray[np.float64]:
    """Return the share of the true best items that were found, for each query.

    A found item is a hit if its inner product, computed here in float64, is at least that of the last true item:
    among equal items either counts. A row found twice counts once. Every place counts the same.

    Args:
        found: `[queries, k]`, int32, item rows; `NO_ROW` for none.
        exact: `[queries, k]`, int32, rows of the k largest inner products, `NO_ROW` at the end where there are fewer.
        queries: `[queries, dim]`, float32.
        vectors: `[items, dim]`, float32.

    Returns:
        `[queries]`, float64, 0..1.

    Raises:
        ShapeError: `found` and `exact` differ in shape.
    """
    if found.shape != exact.shape:
        raise ShapeError(describe("found", list(found.shape), f"the shape of exact, {list(exact.shape)}"))
    needed = np.where(exact != NO_ROW, _scores(exact, queries, vectors), np.inf).min(axis=1, keepdims=True)
    distinct = np.sort(found, axis=1)
    counted = distinct != NO_ROW
    counted[:, 1:] &= distinct[:, 1:] != distinct[:, :-1]
    hits = (counted & (_scores(distinct, queries, vectors) >= needed)).sum(axis=1)
    true = (exact != NO_ROW).sum(axis=1)
    return np.minimum(hits, true) / true


def _scores(rows: Int32, queries: Float32, vectors: Float32) -> NDArray[np.float64]:
    taken = vectors[np.maximum(rows, 0)].astype(np.float64)
    return np.einsum("qkd,qd->qk", taken, queries.astype(np.float64))


def lower_bound(shares: NDArray[np.floating], confidence: float) -> float:
    """Return a lower confidence bound of the mean of independent draws from 0..1, whatever their distribution.

    A gambler bets on every draw exceeding m; had m been the true mean, the capital would reach `1 / (1 - confidence)`
    with a probability of at most `1 - confidence`. The bound is the smallest m that does not make the gambler so rich:
    `inf{ m : max_t prod_{i<=t}( 1 + min(b_i, 0.9 / m) (x_i - m) ) < 1 / (1 - confidence) }`, with the bet
    `b_i = sqrt( 2 ln(1 / (1 - confidence)) / (n v_{i-1}) )` and v the variance of the draws before.

    Reference:
        Waudby-Smith and Ramdas 2020, "Estimating means of bounded random variables by betting", arXiv:2010.09686,
        the hedged capital process for a fixed number of draws, its lower half only.

    Args:
        shares: `[draws]`, 0..1, in an order that does not depend on their values. The recall of one query is one
            draw: hits within a query depend on one another, queries do not.
        confidence: probability that the bound holds, above 0 and below 1.

    Returns:
        The bound, 0..1; 0 for no draws.
    """
    count = len(shares)
    rich = math.log(1 / (1 - confidence))
    seen = np.arange(1, count + 1)
    mean = (0.5 + np.cumsum(shares)) / (seen + 1)
    variance = (0.25 + np.cumsum((shares - mean) ** 2)) / (seen + 1)
    bet = np.sqrt(2 * rich / (count * np.concatenate([[0.25], variance[:-1]]))) if count else np.zeros(0)
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        m = (low + high) / 2
        capital = np.cumsum(np.log1p(np.minimum(bet, BOLDNESS / m) * (shares - m)))
        if count and capital.max() >= rich:
            low = m
        else:
            high = m
    return low


@dataclass(frozen=True)
class Certificate:
    """What an index finds of the exact answer, measured on query vectors that did not choose its settings.

    Attributes:
        kind: the index's kind in the run file.
        parameters: what its `build` settled on.
        target_recall: share (0..1) of the true k best items that was asked for.
        k: places.
        recall: mean recall@k over the certifying queries, 0..1.
        recall_low: lower confidence bound of that mean for queries like these, 0..1; exact search has 1 by definition.
        confidence: level of the bound, 0..1.
        queries: certifying query vectors.
        query_us: median time of one query alone, microseconds.
        batch_query_us: median time of one query in a batch of up to 256, microseconds.
        exact_query_us: the same for exact search of one query alone.
        exact_batch_query_us: the same for exact search in a batch.
        vectors_sha256: digest of the item vectors.
        note: why these settings, a sentence; may be empty.
    """

    kind: str
    parameters: Mapping[str, Any]
    target_recall: float
    k: int
    recall: float
    recall_low: float
    confidence: float
    queries: int
    query_us: float
    batch_query_us: float
    exact_query_us: float
    exact_batch_query_us: float
    vectors_sha256: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bound reaches the target."""
        return self.recall_low >= self.target_recall

    def write(self, file: Path) -> None:
        """Write the certificate as JSON."""
        file.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def read(file: Path) -> Certificate:
        """Return what `write` wrote.

        Raises:
            ReleaseError: no such file, or not a certificate.
        """
        return read_json(file, Certificate, "Tune the index again.")


@dataclass(frozen=True)
class Trial:
    """One build and re-ranking depth with the fewest leaves that reach the target on the choosing half.

    Attributes:
        index: the settings, settled.
        recall: mean recall@k on the choosing half, 0..1.
        recall_low: its lower confidence bound at 0.99.
        query_us: median time of one query alone, microseconds; infinite where the target was not reached.
    """

    index: Scann
    recall: float
    recall_low: float
    query_us: float


@dataclass(frozen=True)
class Tuning:
    """The outcome of `tune`.

    Attributes:
        index: the choice to build the release's index with, its settings settled.
        certificate: what it finds.
        trials: what was tried, in order.
    """

    index: Index
    certificate: Certificate
    trials: tuple[Trial, ...]


def single_us(search: Callable[[Float32, int], object], queries: Float32, k: int) -> float:
    """Return the median time of one query alone, microseconds, over at most 200 queries.

    Args:
        search: takes `[1, dim]` and k.
        queries: `[queries, dim]`, float32, at least one.
        k: places.
    """
    return _median_us(lambda query: search(query, k), [query[None] for query in queries[:TIMED_QUERIES]])


def batch_us(search: Callable[[Float32, int], object], queries: Float32, k: int) -> float:
    """Return the median time of one query in a batch of at most 256, microseconds, over five batches.

    Args:
        search: takes `[batch, dim]` and k.
        queries: `[queries, dim]`, float32, at least one.
        k: places.
    """
    batch = queries[:TIMED_BATCH]
    return _median_us(lambda queries: search(queries, k), [batch] * TIMED_BATCHES) / len(batch)


def _median_us(call: Callable[[Float32], object], inputs: Sequence[Float32]) -> float:
    call(inputs[0])
    times = []
    for value in inputs:
        start = time.perf_counter()
        call(value)
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e6)


def certify(
    index: Index,
    searcher: Searcher,
    parameters: Mapping[str, Any],
    vectors: Float32,
    queries: Float32,
    *,
    target_recall: float,
    k: int,
    confidence: float = 0.95,
    looks: int = 1,
    note: str = "",
) -> Certificate:
    """Measure an open index against exact search.

    Args:
        index: the choice that built it.
        searcher: what its `load` returned.
        parameters: what its `build` returned.
        vectors: `[items, dim]`, float32.
        queries: `[queries, dim]`, float32, at least one; drawn at random from those that will be asked, and not used to
            choose the index's settings.
        target_recall: share (0..1) of the true k best items to certify.
        k: places.
        confidence: level of the lower bound, 0..1.
        looks: indexes that may be measured on the same queries until one passes; each gets an equal share of the error.
        note: why these settings, a sentence.
    """
    exact = ExactSearcher(vectors)
    if isinstance(searcher, ExactSearcher):
        recall = recall_low = 1.0
    else:
        shares = recall_at_k(
            searcher.search(queries, k).item_rows, exact.search(queries, k).item_rows, queries, vectors
        )
        recall, recall_low = float(shares.mean()), lower_bound(shares, 1 - (1 - confidence) / looks)
    return Certificate(
        kind=registry.kind_of(index),
        parameters=dict(parameters),
        target_recall=target_recall,
        k=k,
        recall=recall,
        recall_low=recall_low,
        confidence=confidence,
        queries=len(queries),
        query_us=single_us(searcher.search, queries, k),
        batch_query_us=batch_us(searcher.search, queries, k),
        exact_query_us=single_us(exact.search, queries, k),
        exact_batch_query_us=batch_us(exact.search, queries, k),
        vectors_sha256=sha256(vectors),
        note=note,
    )


def tune(
    vectors: Float32, queries: Float32, index: Index, folder: Path, *, confidence: float = 0.95, seed: int = 0
) -> Tuning:
    """Build the fastest index whose recall can be certified, and certify it.

    One half of the queries chooses: every build (leaves, quantisation) is tried with every re-ranking depth, and the
    fewest leaves to search are found for which the lower bound at 0.99 reaches the target. The other half certifies
    the fastest of these, at most three. Settings that the run file fixes stay. Where none passes, none is faster than
    exact search, or there are too few queries for any to pass, exact search it is, and the certificate's note says so.

    Args:
        vectors: `[items, dim]`, float32, finite; row = item_row.
        queries: `[queries, dim]`, float32, at least two: real query vectors that trained nothing.
        index: the choice of the run file; any other than `scann` is built as it is.
        folder: an empty, existing folder; gets the very index that the certificate speaks of.
        confidence: level of the certificate's lower bound, 0..1.
        seed: of the draw of queries and of their halves.

    Raises:
        ShapeError: vectors or queries are not finite float32 matrices of one dim, or there are fewer than two queries.
    """
    checked_vectors(vectors)
    if checked_vectors(queries, "queries").shape[1] != vectors.shape[1] or len(queries) < 2:
        expected = f"at least two of dim {vectors.shape[1]}, as the item vectors"
        raise ShapeError(describe("queries", list(queries.shape), expected))
    order = np.random.default_rng(seed).permutation(len(queries))
    if not isinstance(index, Scann):
        drawn = queries[order[:TIMED_QUERIES]]
        return _built(index, vectors, drawn, folder, target_recall=1.0, k=10, confidence=confidence)
    drawn = queries[order[: index.tuning_queries]]
    choosing, certifying = drawn[::2], drawn[1::2]
    target = {"target_recall": index.target_recall, "k": index.target_k, "confidence": confidence}
    items = len(vectors)
    if index.exact(items):
        note = f"Exact search: {items} items are fewer than brute_force_below = {index.brute_force_below}."
        return _built(index, vectors, certifying, folder, **target, note=note)
    exact_search = dataclasses.replace(index, brute_force_below=items + 1)
    if (most := _certifiable(len(certifying), confidence)) < index.target_recall:
        needed = math.ceil(len(drawn) * (1 - most) / (1 - index.target_recall))
        note = (
            f"Exact search: {len(drawn)} queries certify a recall of at most {most:.4f}, even where nothing is missed; "
            f"{index.target_recall} takes about {needed} (index.tuning_queries; in training training.validation_cases "
            "as well)."
        )
        return _built(exact_search, vectors, certifying, folder, **target, note=note)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        tried = list(_tried(index, vectors, choosing, Path(scratch)))
        trials = tuple(trial for trial, _ in tried)
        exact_us = single_us(ExactSearcher(vectors).search, choosing, index.target_k)
        faster = sorted((pair for pair in tried if pair[0].query_us < exact_us), key=lambda pair: pair[0].query_us)
        for trial, home in faster[:LOOKS]:
            parameters = trial.index.resettle(home, vectors)
            searcher = trial.index.load(home, vectors)
            certificate = certify(trial.index, searcher, parameters, vectors, certifying, **target, looks=LOOKS)
            if certificate.holds:
                for file in home.iterdir():
                    shutil.move(file, folder)
                return Tuning(trial.index, certificate, trials)
    best = max(trial.recall_low for trial in trials)
    note = (
        f"Exact search: no setting faster than its {exact_us:.0f} us was certified; the best of {len(trials)} settings "
        f"had a lower bound of {best:.4f} for recall at {index.target_k} on {len(choosing)} queries."
    )
    tuning = _built(exact_search, vectors, certifying, folder, **target, note=note)
    return dataclasses.replace(tuning, trials=trials)


def _certifiable(queries: int, confidence: float) -> float:
    """Return the bound that an index which misses nothing gets from so many queries for each half."""
    nothing_missed = np.ones(queries)
    return min(
        lower_bound(nothing_missed, CHOOSING_CONFIDENCE), lower_bound(nothing_missed, 1 - (1 - confidence) / LOOKS)
    )


def _built(index: Index, vectors: Float32, queries: Float32, folder: Path, **measured: Any) -> Tuning:
    parameters = index.build(vectors, folder)
    certificate = certify(index, index.load(folder, vectors), parameters, vectors, queries, **measured)
    return Tuning(index, certificate, ())


def _tried(index: Scann, vectors: Float32, queries: Float32, scratch: Path) -> Iterator[tuple[Trial, Path]]:
    """Yield what the choosing half says of every build and re-ranking depth, with the folder of the build."""
    k = index.target_k
    exact = ExactSearcher(vectors).search(queries, k).item_rows
    builds = _builds(index, len(vectors))
    with progress.task("tuning the index", len(builds), "builds") as running:
        for number, build in enumerate(builds):
            home = scratch / str(number)
            home.mkdir()
            build.build(vectors, home)
            searcher = build.load(home, vectors)
            depths = [index.reorder_k] if index.reorder_k else [k * factor for factor in REORDER_FACTORS]
            for reorder_k in depths if build.quantisation == "ah" else depths[:1]:
                trial = _trial(index, build, searcher, reorder_k, queries, exact, vectors)
                yield trial, home
            running.advance(note=f"{build.leaves} leaves, {build.quantisation}: recall {trial.recall:.4f}")


def _builds(index: Scann, items: int) -> list[Scann]:
    root = math.sqrt(items)
    leaves = [index.leaves] if index.leaves else [math.ceil(factor * root) for factor in LEAVES_FACTORS]
    quantised = [] if index.quantisation == "none" else leaves
    plain = {"none": leaves, "ah": [], "auto": leaves[len(leaves) // 2 :][:1]}[index.quantisation]
    asked = [(count, "ah") for count in quantised] + [(count, "none") for count in plain]
    return [dataclasses.replace(index, leaves=count, quantisation=kind).settled(items) for count, kind in asked]


def _trial(
    index: Scann,
    build: Scann,
    searcher: ScannSearcher,
    reorder_k: int,
    queries: Float32,
    exact: Int32,
    vectors: Float32,
) -> Trial:
    k = index.target_k

    def measured(leaves_to_search: int) -> tuple[float, float]:
        found = searcher.search(queries, k, leaves_to_search=leaves_to_search, reorder_k=reorder_k).item_rows
        shares = recall_at_k(found, exact, queries, vectors)
        return float(shares.mean()), lower_bound(shares, CHOOSING_CONFIDENCE)

    most = index.leaves_to_search or build.leaves
    ladder = [most] if index.leaves_to_search else np.unique(np.geomspace(1, most, LADDER).round().astype(int)).tolist()
    recall, low = measured(ladder[-1])
    enough = len(ladder) - 1
    if low >= index.target_recall:
        too_few = -1
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            got = measured(ladder[middle])
            if got[1] >= index.target_recall:
                enough, (recall, low) = middle, got
            else:
                too_few = middle
    chosen = dataclasses.replace(build, leaves_to_search=ladder[enough], reorder_k=reorder_k)
    if low < index.target_recall:
        return Trial(chosen, recall, low, math.inf)
    settled = functools.partial(searcher.search, leaves_to_search=ladder[enough], reorder_k=reorder_k)
    return Trial(chosen, recall, low, single_us(settled, queries, k))
