"""Choose on validation cases how much an entity's own items add to the dense list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix

from recsys.data.history import Met
from recsys.evaluation.cases import EvaluationCases
from recsys.evaluation.recommenders import VectorRecommender
from recsys.export.own_items import Fusion
from recsys.features._history_encoder import entries_of
from recsys.metrics.ranking import measure_hits, parse
from recsys.types import NO_ROW, Bool, Float32, Int64

COUNTING = ("count", "log_count", "none")
HALF_LIVES_DAYS = (0.0, 30.0, 60.0, 90.0, 120.0, 240.0)
WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""What is tried. An inner product is at most 1, so that with the largest weight nearly all own items come first."""
MAX_CASES = 2000
"""Cases that the choice is made on, drawn at random where there are more."""
BLOCK_PAIRS = 2**16
"""Inner products of single pairs that are computed at once."""


def own_scores(fusion: Fusion, met: Met, items: int) -> csr_matrix:
    """Return what each case's own items add to their scores, `[cases, items]`, float32.

    Args:
        fusion: how they are added.
        met: what the cases' entities met before they ask.
        items: rows of the catalog.
    """
    found = entries_of(fusion, met.owners, met.item_row, met.age_days)
    scores = found.weight * np.float32(fusion.weight)
    return csr_matrix((scores, (found.owner, found.value)), (len(met.lengths), items))


def choose_fusion(
    dense: VectorRecommender, cases: EvaluationCases, met: Met, metrics: Sequence[str], seed: int = 0
) -> Fusion | None:
    """Return the fusion with the largest geometric mean of all metrics; None where the dense list alone has it.

    One metric of the first places alone would not see what the fusion does to the rest of a list.

    Args:
        dense: the model's recommender of the cases, without own items.
        cases: the validation cases.
        met: what the cases' entities met before they ask.
        metrics: in `ir-measures` spelling.
        seed: of the draw of cases.
    """
    rows = np.flatnonzero(cases.reachable.sizes > 0)
    if len(rows) > MAX_CASES:
        rows = np.sort(np.random.default_rng([seed, 18]).choice(rows, MAX_CASES, replace=False))
    if len(rows) == 0 or len(met.item_row) == 0:
        return None
    parsed, items = [parse(name) for name in metrics], len(cases.item_ids)
    k, relevant = max(metric.cutoff for metric in parsed), cases.reachable.take(rows)

    def value(hits: Bool) -> float:
        means = [values.mean() for values in measure_hits(parsed, hits, relevant.sizes).values()]
        return float(np.prod(means) ** (1 / len(means)))

    # Own items and the first k of the dense list hold the first k of every fusion: what is added is not negative.
    tried = [Fusion(1.0, days, weights) for weights in COUNTING for days in HALF_LIVES_DAYS]
    own = own_scores(tried[0], met, items)[rows].tocoo()
    listed = dense.recommend(rows, k)
    keys = np.arange(len(rows))[:, None] * items + listed.item_rows
    is_other = (listed.item_rows != NO_ROW) & ~np.isin(keys, own.row.astype(np.int64) * items + own.col)
    owners = np.concatenate([own.row, np.nonzero(is_other)[0]]).astype(np.int64)
    item_rows = np.concatenate([own.col, listed.item_rows[is_other]])
    products = np.concatenate([_products(dense, rows[own.row], own.col), listed.scores[is_other]])
    is_hit = relevant.contains(owners, item_rows)
    if cases.excluded is not None:
        products[cases.excluded.take(rows).contains(owners, item_rows)] = -np.inf
    best, chosen = value(_first_hits(owners, products, is_hit, len(rows), k)), None
    for fusion in tried:
        added = np.zeros(len(owners), np.float32)
        added[: len(own.data)] = own_scores(fusion, met, items)[rows].data
        for weight in WEIGHTS:
            candidate = value(_first_hits(owners, products + weight * added, is_hit, len(rows), k))
            if candidate > best:
                best, chosen = candidate, replace(fusion, weight=weight)
    return chosen


def _products(dense: VectorRecommender, cases: Int64, item_row: Int64) -> Float32:
    """Return the inner products of pairs of cases and items, `[pairs]`."""
    products = np.empty(len(cases), np.float32)
    for start in range(0, len(cases), BLOCK_PAIRS):
        part = slice(start, start + BLOCK_PAIRS)
        found = dense.query_vectors[cases[part]], dense.item_vectors[item_row[part]]
        products[part] = np.einsum("pd,pd->p", *found)
    return products


def _first_hits(owners: Int64, scores: Float32, is_hit: Bool, count: int, k: int) -> Bool:
    """Return which of the k items with the largest scores of each owner are hits, `[count, k]`."""
    by_score = np.argsort(-scores)
    # Stable sorts of 16 bits are radix sorts, several times as fast as one sort by both.
    order = by_score[np.argsort(owners[by_score].astype(np.min_scalar_type(count)), kind="stable")]
    place = np.arange(len(owners)) - np.searchsorted(owners[order], np.arange(count))[owners[order]]
    first = order[place < k]
    hits = np.zeros((count, k), bool)
    hits[owners[first], place[place < k]] = is_hit[first]
    return hits
