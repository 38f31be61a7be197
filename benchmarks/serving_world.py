"""What the benchmarks of the server ask: releases over a synthetic catalogue, and real queries of every form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.reformulation_serving import with_attention
from recsys import config, pipeline
from recsys.config import Run
from recsys.evaluation.index_quality import Certificate, recall_at_k
from recsys.export.release import Release, open_release
from recsys.files import write_atomically
from recsys.indexes import ExactSearcher
from recsys.types import ITEM_ID, NO_ROW, QUERY_ID, Float32
from twintower import codecs as client_codecs
from twintower.errors import TwintowerError
from twintower.types import Query
from twintower.v1 import recommendation_service_pb2 as pb

DIM = 64
ITEMS, QUICK_ITEMS = 100_000, 500
HISTORY = 20
TUNING_QUERIES = 8_000
"""Enough to certify a recall of .99, and that of .95 without much above it."""
SERVICE = "/twintower.v1.RecommendationService/"
FORMS = ("vector", "entity", "features")
EXPONENTS = ("popularity_exponent", "activity_exponent")


@dataclass(frozen=True)
class World:
    """A release, and queries about the same users in each form, one user a row.

    Attributes:
        release: one whose queries are users, known by id.
        index: what its index settled on, with the recall that it certifies.
        item_vectors: `[items, dim]`, float32, a memory map.
        query_vectors: `[queries, dim]`, float32, unit length: the users'.
        queries: by form, `[queries]`: the vector; the user's id; the user's features and latest 20 items, asked as
            somebody whom the release does not know.
        rows: item rows by item id.
    """

    release: Release
    index: dict[str, Any]
    item_vectors: Float32
    query_vectors: Float32
    queries: dict[str, list[Query]]
    rows: dict[str, int]

    @staticmethod
    def open(release: Release) -> World:
        """Read what the release knows of its golden queries."""
        folder = release.folder
        vectors = np.load(folder / "golden" / "vectors.npy")
        users = pq.read_table(folder / "golden" / "queries.parquet")[QUERY_ID].to_pylist()
        known = {row[QUERY_ID]: row for row in pq.read_table(folder / "queries.parquet").to_pylist()}
        columns = release.facts.query_columns
        described = [
            Query(
                features={column: known[user][column] for column in columns},
                history=tuple(met["item_id"] for met in known[user].get("history", ())[:HISTORY]),
            )
            for user in users
        ]
        certificate = Certificate.read(folder / "index_certificate.json")
        item_ids = pq.read_table(folder / "items.parquet", columns=[ITEM_ID])[ITEM_ID].to_pylist()
        return World(
            release=release,
            index={**certificate.parameters, "recall": certificate.recall, "recall_low": certificate.recall_low},
            item_vectors=np.load(folder / "item_embeddings.npy", mmap_mode="r"),
            query_vectors=vectors,
            queries={
                "vector": [Query(vector=vector) for vector in vectors],
                "entity": [Query(entity_id=user) for user in users],
                "features": described,
            },
            rows={item_id: row for row, item_id in enumerate(item_ids)},
        )

    def recall(self, vectors: Float32, found: Sequence[Sequence[str]], k: int) -> float:
        """Return the mean recall@k of answers.

        Args:
            vectors: `[queries, dim]`, float32, what was searched with.
            found: `[queries]`, the item ids of each answer.
            k: places.
        """
        rows = np.full((len(found), k), NO_ROW, np.int32)
        for place, item_ids in enumerate(found):
            rows[place, : len(item_ids)] = [self.rows[item_id] for item_id in item_ids]
        exact = ExactSearcher(np.array(self.item_vectors)).search(np.ascontiguousarray(vectors), k).item_rows
        return float(recall_at_k(rows, exact, vectors, self.item_vectors).mean())


def nearest(queries: Sequence[Query], k: int) -> list[bytes]:
    """Return a NearestItems request for each query, serialised."""
    return [
        pb.NearestItemsRequest(query=client_codecs.query_to_proto(query), k=k).SerializeToString() for query in queries
    ]


def batches(queries: Sequence[Query], k: int, size: int) -> list[bytes]:
    """Return BatchNearestItems requests of so many queries each, serialised; what fills no batch is left out."""
    messages = [client_codecs.query_to_proto(query) for query in queries]
    return [
        pb.BatchNearestItemsRequest(queries=messages[start : start + size], k=k).SerializeToString()
        for start in range(0, len(messages) - size + 1, size)
    ]


def run_of(quick: bool) -> Run:
    """Return the run of the release: users with a segment, an id and a history; items in groups by what they are.

    Taste alone decides, and items have no id of their own: popular items are far from all others, and a hundred
    thousand hardly trained ids would scatter the groups. A search would have to look everywhere for either.
    """
    size = {"users": 300, "items": QUICK_ITEMS, "interactions": 4_000}
    if not quick:
        size = {"users": 10_000, "items": ITEMS, "interactions": 400_000, "groups": 64}
    return config.from_tables(
        {
            "name": "bench-serving-quick" if quick else "bench-serving",
            "source": {"kind": "synthetic", "sharpness": 16.0, **dict.fromkeys(EXPONENTS, 0.0), **size},
            "query": {
                "features": {
                    "who": {"kind": "id", "width": 16},
                    "segment": {"kind": "categorical", "width": 16},
                    "recent": {
                        "kind": "history",
                        "length": HISTORY,
                        "shared": True,
                        "pooling": "mean",
                        "dropout_rate": 0.0,
                        "width": 32,
                    },
                }
            },
            "item": {
                "features": {
                    "category": {"kind": "categorical", "width": 16},
                    "tags": {"kind": "multi_categorical", "width": 32, "max_values": 3},
                    "price": {"kind": "numeric"},
                },
                "metadata": ["title", "category", "price"],
            },
            "tower": {"kind": "mlp", "hidden": [64], "dim": DIM},
            "objective": {"kind": "sampled_softmax"},
            "training": {
                "epochs": 1 if quick else 2,
                "batch_size": 1024,
                "optimizer": "adagrad",
                "learning_rate": 0.1,
                "validation_cases": 500,
            },
            "evaluation": {"exclude_seen": False, "resamples": 100, "max_cases": 500, "baselines": ["popularity"]},
            "index": {"kind": "brute_force"} if quick else {"kind": "scann", "tuning_queries": TUNING_QUERIES},
        }
    )


def release_at(target: float, work: Path, *, quick: bool) -> Release:
    """Return the release whose index certifies a recall, made once and then kept.

    Args:
        target: recall@10, 0..1; exact search, of the short form, has every recall.
        work: keeps what is trained and published.
        quick: the tiny one.
    """
    folder = work / ("quick" if quick else "full")
    trained = pipeline.train(run_of(quick), folder / "work", folder / "releases")
    kept = folder / "made.json"
    made = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    key = f"{trained.fingerprint} {target}"
    try:
        return open_release(folder / "releases" / made[key])
    except (KeyError, TwintowerError):
        tuned = trained if quick else pipeline.tune_release(trained, [f"index.target_recall={target}"])[0]
        release = with_attention(tuned)
        write_atomically(kept, json.dumps({**made, key: release.folder.name}, indent=1) + "\n")
        return release
