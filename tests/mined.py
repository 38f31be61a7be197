"""Mined feedback made by hand, and a small world in which the right move is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from recsys.data.mined import Mined
from recsys.data.prepare import Prepared
from recsys.evaluation.reformulation import first_results
from recsys.types import NO_ROW, Float32, ItemRoles, Neighbours, RowSets


def sets(*of_owners: Sequence[int]) -> RowSets:
    """Return one set for each argument."""
    sizes = [len(rows) for rows in of_owners]
    rows = np.concatenate([np.asarray(rows, np.int32) for rows in of_owners])
    return RowSets.from_pairs(np.repeat(np.arange(len(of_owners)), sizes), rows, len(of_owners))


def mined_of(
    first: Sequence[Sequence[int]],
    relevant: Sequence[Sequence[int]],
    *,
    excluded: Sequence[Sequence[int]] | None = None,
    vectors: Float32 | None = None,
    facts: Mapping[str, str] | None = None,
) -> Mined:
    """Return queries with these first results and relevant items; their vectors are of no matter unless given."""
    rows = np.array(first, np.int32)
    scores = np.where(rows == NO_ROW, -np.inf, -np.arange(rows.shape[1]) / 10).astype(np.float32)
    vectors = np.eye(len(rows), 4, dtype=np.float32) + 0.5 if vectors is None else vectors
    nothing = RowSets.empty(len(rows))
    return Mined(
        case_ids=pa.array([f"query-ü{place}" for place in range(len(rows))]),
        query_vectors=vectors,
        query_lengths=np.ones(len(rows), np.float32),
        first=Neighbours(rows, scores),
        relevant=sets(*relevant),
        excluded=nothing if excluded is None else sets(*excluded),
        facts={} if facts is None else facts,
    )


def mined_for_training(prepared: Prepared, k: int = 3) -> Mined:
    """Return k items that each training query has not met as what was found first for it: its row's next ones."""
    positives = prepared.positives("train")
    asked = np.flatnonzero(positives.sizes > 0)
    near = (asked[:, None] + np.arange(prepared.item_count)) % prepared.item_count
    first = [[item for item in row if item not in positives[query]][:k] for query, row in zip(asked, near, strict=True)]
    facts = {"part": "train", "training_data": prepared.training_digest}
    return mined_of(first, [positives[query] for query in asked], facts=facts)


def unit(vectors: np.ndarray) -> Float32:
    """Return vectors of unit length."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(
    queries: int, *, clusters: int = 20, each: int = 8, dim: int = 12, noise: float = 0.25, seed: int = 0
) -> tuple[Mined, ItemRoles]:
    """Return queries that lie some way off a cluster, whose items answer them, and the items.

    The first results are mostly of the cluster, so that a query does well to move towards their mean.
    """
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(clusters, dim)))
    items = unit(np.repeat(centres, each, axis=0) + 0.5 * noise * random.normal(size=(clusters * each, dim)))
    asked = random.integers(0, clusters, queries)
    vectors = unit(centres[asked] + noise * random.normal(size=(queries, dim)))
    relevant = asked[:, None] * each + np.arange(each)
    first = first_results(vectors, items, RowSets.empty(queries), 10)
    made = mined_of(first.item_rows, relevant, vectors=vectors, facts={"search": "by hand"})
    return replace(made, first=first), ItemRoles.shared(items)
