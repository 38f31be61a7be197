"""A retriever over given vectors that works without a trained release, for tests of the wire."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from recsys.export.release import Facts, Manifest, Release
from recsys.retrieval import Answer, Encoding, Matches
from twintower.errors import RequestError
from twintower.types import NO_DIVERSITY, Diversity, FilterType, Origin, Query, SearchPlan

FINGERPRINT = "0123456789abcdef" * 4
VECTORS = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8), "ü": (-1.0, 0.0)}
SHARES = {"c": 0.5, "a": 0.25, "b": 0.25, "ü": 0.0}
ENTITIES = {"Zoë": (0.0, 1.0)}
TASTES = {"east": (1.0, 0.0)}


class ExactRetriever:
    """Exact search over four items in two dimensions: a = (1, 0), b = (0, 1), c = (0.6, 0.8), ü = (-1, 0).

    The entity Zoë is (0, 1), the taste `east` is (1, 0); an unknown entity without a known taste gets popular items.
    """

    def __init__(self) -> None:
        facts = Facts(
            run="exact",
            query_entity="user",
            query_columns=("taste",),
            reads_history=False,
            dim=2,
            item_count=4,
            query_count=1,
            index="brute_force",
            notice="made up",
            metrics={"nDCG@10": 0.5},
            cases_digest="",
            index_recall=1.0,
        )
        manifest = Manifest(
            fingerprint=FINGERPRINT,
            format_version=4,
            created="2026-01-02T03:04:05+00:00",
            parent="",
            versions={"numpy": "2"},
            facts=facts,
            parts={},
        )
        self.release = Release(Path("exact-0123456789ab"), manifest)
        self.answered = 0
        self.features: list[Any] = []

    reformulators = ("average", "identity")
    default_reformulator = "average"
    metadata_bytes = 30.0
    filter_fields: ClassVar[dict[str, FilterType]] = {}

    def warm(self) -> None:
        """Nothing to replay."""

    def encode(self, queries: Sequence[Query]) -> Encoding:
        made = [self._encode(query, f"queries[{place}]") for place, query in enumerate(queries)]
        vectors, origins, missing_ids = zip(*made, strict=True)
        return Encoding(np.array(vectors, np.float32), origins, missing_ids, np.ones(len(origins), np.float32))

    def nearest(
        self,
        queries: Sequence[Query],
        k: int,
        diversity: Diversity = NO_DIVERSITY,
        *,
        effort: float = 1.0,
        exact: bool = False,
    ) -> list[Answer]:
        encoding = self.encode(queries)
        answers = []
        for place, query in enumerate(queries):
            scores = {item_id: float(np.dot(encoding.vectors[place], vector)) for item_id, vector in VECTORS.items()}
            if encoding.origins[place] is Origin.POPULARITY:
                scores = SHARES
            ranked = sorted(scores, key=lambda item_id: -scores[item_id])
            kept = [item_id for item_id in ranked if item_id not in query.excluded_ids][:k]
            values = np.array([scores[item_id] for item_id in kept], np.float32)
            origin, missing_ids = encoding.origins[place], encoding.missing_ids[place]
            plan = None if origin is Origin.POPULARITY else SearchPlan.INDEX
            answers.append(Answer(tuple(kept), values, origin, missing_ids, plan, degraded=effort < 1))
        self.answered += len(answers)
        return answers

    def search_vectors(self, vectors: np.ndarray, k: int, *, effort: float = 1.0) -> Matches:
        answers = self.nearest([Query(vector=vector) for vector in vectors], k, effort=effort)
        return Matches(
            np.array([len(answer.item_ids) for answer in answers]),
            [item_id for answer in answers for item_id in answer.item_ids],
            np.concatenate([answer.scores for answer in answers]),
            effort < 1,
        )

    def seen_count(self, query: Query) -> int:
        return len(query.reported_ids)

    def metadata(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        return [{"title": f"Thing {item_id}", "tags": ["x", "y"], "price": float("nan")} for item_id in item_ids]

    def _encode(self, query: Query, where: str) -> tuple[Any, Origin, tuple[str, ...]]:
        if query.vector is not None:
            if query.vector.shape != (2,):
                raise RequestError(f"{where}.vector", f"got shape {query.vector.shape}, expected (2,)")
            if not np.isfinite(query.vector).all():
                raise RequestError(f"{where}.vector", "got NaN or infinity, expected finite numbers")
            return query.vector, Origin.VECTOR, ()
        if query.item_ids:
            missing = tuple(item_id for item_id in query.item_ids if item_id not in VECTORS)
            known = [VECTORS[item_id] for item_id in query.item_ids if item_id in VECTORS]
            return (np.mean(known, axis=0), Origin.ITEMS, missing) if known else ((0, 0), Origin.POPULARITY, missing)
        if query.entity_id in ENTITIES:
            return ENTITIES[query.entity_id], Origin.KNOWN_ENTITY, ()
        self.features.append(query.features)
        missing = (() if query.entity_id is None else (query.entity_id,)) + tuple(
            item_id for item_id in query.history if item_id not in VECTORS
        )
        for name in query.features or {}:
            if name not in ("taste", "number", "real", "several", "vector", "nothing"):
                raise RequestError(f"{where}.features.{name}", "no query feature of this name")
        taste = (query.features or {}).get("taste")
        return (TASTES[taste], Origin.FEATURES, missing) if taste in TASTES else ((0, 0), Origin.POPULARITY, missing)


class GatedRetriever(ExactRetriever):
    """Answers only when the gate is open; `entered` says that a call waits at it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate, self.calls = threading.Event(), threading.Event(), 0

    def nearest(
        self, queries: Sequence[Query], k: int, diversity: Diversity = NO_DIVERSITY, **how: Any
    ) -> list[Answer]:
        self.calls += 1
        self.entered.set()
        assert self.gate.wait(30)
        return super().nearest(queries, k, diversity, **how)


class BrokenRetriever(ExactRetriever):
    """Fails with the given error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def nearest(
        self, queries: Sequence[Query], k: int, diversity: Diversity = NO_DIVERSITY, **how: Any
    ) -> list[Answer]:
        raise self.error
