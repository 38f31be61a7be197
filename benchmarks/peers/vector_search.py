"""How a vector database and our own server are asked in one form: NumPy and standard library only.

A folder holds `vectors.npy` (`[items, dim]`), `queries.npy` (`[queries, dim]`) and `exact.npy` (`[queries, k]`, the
scores of the true best items). A peer's process prints one line of JSON: a list of `Found`, and what it ran with.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

K = 10
Rows = Sequence[Sequence[int]]
Search = Callable[[np.ndarray], Rows]
"""Return the rows of the K best items for each of some queries."""
FORMS = {
    "one_caller": (1, 1),
    "eight_callers": (1, 8),
    "thirty_two_callers": (1, 32),
    "batch_200": (200, 1),
    "batch_1000": (1000, 1),
}
"""Queries in a call, and threads that call."""
KINDS = {
    "single queries": [form for form, (size, _) in FORMS.items() if size == 1],
    "batches": [form for form, (size, _) in FORMS.items() if size > 1],
}
"""What an application asks, and the forms in which it may be asked."""


@dataclass(frozen=True)
class Task:
    """What is asked.

    Attributes:
        vectors: `[items, dim]`, float32, unit length or not: scores are inner products.
        queries: `[queries, dim]`, float32.
        exact: `[queries, K]`, float32, scores of the true best items.
        targets: recalls to be reached, rising.
        seconds: of one block.
        rounds: blocks of each form.
    """

    vectors: np.ndarray
    queries: np.ndarray
    exact: np.ndarray
    targets: Sequence[float]
    seconds: float
    rounds: int

    @staticmethod
    def load(folder: Path, told: Mapping[str, Any]) -> Task:
        """Read the arrays of a folder; the rest is told."""
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("vectors", "queries", "exact")}
        return Task(**arrays, **{name: told[name] for name in ("targets", "seconds", "rounds")})

    def answered(self, search: Search) -> Rows:
        """Return what a search finds for all queries, in calls of 200."""
        starts = range(0, len(self.queries), 200)
        return [row for start in starts for row in search(self.queries[start : start + 200])]

    def recall(self, rows: Rows) -> float:
        """Return mean recall@K: a found item counts if its score is at least that of the last true one."""
        shares = []
        for query, found, exact in zip(self.queries, rows, self.exact, strict=True):
            scores = self.vectors[np.unique(np.asarray(found, np.int64))] @ query
            shares.append(min(int((scores >= exact[-1] - 1e-6).sum()), K) / K)
        return statistics.fmean(shares)


@dataclass(frozen=True)
class Found:
    """A setting that reaches a recall, and how fast it is.

    Attributes:
        target: the recall that was asked for, 0..1.
        settings: build and search parameters.
        recall: mean recall@K, 0..1.
        queries_per_s: by form, queries a second of each block.
    """

    target: float
    settings: Mapping[str, Any]
    recall: float
    queries_per_s: Mapping[str, list[float]] = field(default_factory=dict)


def sweep(task: Task, build: Mapping[str, Any], efforts: Mapping[str, tuple[Mapping[str, Any], Search]]) -> list[Found]:
    """Return, for each target that can be reached, the least effort that reaches it, measured.

    Args:
        task: what is asked.
        build: parameters that the index was built with.
        efforts: by name, search parameters and a search with them, in the order of rising recall.
    """
    found: list[Found] = []
    waiting = list(task.targets)
    for settings, search in efforts.values():
        if not waiting:
            break
        recall = task.recall(task.answered(search))
        if recall >= waiting[0]:
            rates = measured(task, search)
        while waiting and recall >= waiting[0]:
            found.append(Found(waiting.pop(0), {**build, **settings}, recall, rates))
    return found


def measured(task: Task, search: Search, forms: Mapping[str, tuple[int, int]] = FORMS) -> dict[str, list[float]]:
    """Return queries a second of each form, one number a block; the forms take turns."""
    rates: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(task.rounds):
        for form, (size, callers) in forms.items():
            asked = parts(task.queries, size)
            rates[form].append(len(asked[0]) * _calls_per_s(search, asked, callers, task.seconds))
    return rates


def parts(queries: np.ndarray, size: int) -> list[np.ndarray]:
    """Return queries in parts of one size; a rest is left out unless it is all there is."""
    return [queries[start : start + size] for start in range(0, len(queries) - size + 1, size)] or [queries]


def _calls_per_s(search: Search, asked: Sequence[np.ndarray], callers: int, seconds: float) -> float:
    turn = itertools.count()
    search(asked[0])
    start = time.perf_counter()

    def call() -> int:
        for done in itertools.count(1):
            search(asked[next(turn) % len(asked)])
            if time.perf_counter() >= start + seconds:
                return done

    with ThreadPoolExecutor(callers) as pool:
        done = sum(each.result() for each in [pool.submit(call) for _ in range(callers)])
    return done / (time.perf_counter() - start)


def serve(peer: Callable[[Task, Path, Sequence[int]], list[Found]]) -> None:
    """Run a peer as `FOLDER TOLD`, where `TOLD` is JSON with `targets`, `seconds`, `rounds` and `server_cores`.

    Args:
        peer: gets the task, the folder for its files, and the cores of its server.
    """
    folder, told = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = peer(Task.load(folder, told), folder, told["server_cores"])
    print(json.dumps([asdict(each) for each in found]))
