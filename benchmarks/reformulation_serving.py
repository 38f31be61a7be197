"""What feedback costs a caller: `Reformulate` against `NearestItems` on the same server, and attention's two forms."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report
from recsys import config, pipeline, registry
from recsys.export.release import Release, derive
from recsys.retrieval.guard import SIGNALS, Guard
from recsys.retrieval.reformulation import NamedReformulator, feedback_of
from recsys.stack import tf
from recsys.types import Feedback, Float32, ItemRoles
from serving.process import served
from twintower.types import Query

BAR = 2.2
K = 10
DEPTH = 5
NAME = "attention"
ITEMS, DIM = 100_000, 64
START_S = 300


def add_cost(report: Report, *, items: int = ITEMS, rounds: int = 21, calls: int = 200) -> None:
    """Measure the cost of `Reformulate` and of attention's forward pass, each in alternating blocks of one run.

    Args:
        report: receives the rows: subjects `nearest_items` and `reformulate` with `call_us` and `calls_per_s`, the
            latter with `cost_ratio` (of the medians' blocks, one pair a round); subject `attention` with `numpy_us`
            and `tensorflow_us` for one query.
        items: of the synthetic release that is trained for it.
        rounds: blocks of each.
        calls: of one block.
    """
    with tempfile.TemporaryDirectory() as scratch:
        release = _release(Path(scratch), items)
        case = {"data": "synthetic", "items": items, "dim": DIM, "index": release.facts.index, "k": K, "depth": DEPTH}
        queries = np.load(release.folder / "golden" / "vectors.npy")[:calls]
        vectors = np.load(release.folder / "item_embeddings.npy")
        with served(release.folder, Path(scratch), start_s=START_S) as client:
            asked = [Query(vector=vector) for vector in queries]
            blocks = _alternate(
                {
                    "nearest_items": lambda: [client.nearest_items(query, K) for query in asked],
                    "reformulate": lambda: [client.reformulate(query, K, pseudo=True, depth=DEPTH) for query in asked],
                },
                rounds,
            )
    for subject, seconds in blocks.items():
        report.add(case, subject, "call_us", [each / len(asked) * 1e6 for each in seconds])
        report.add(case, subject, "calls_per_s", [len(asked) / each for each in seconds])
    ratios = [much / little for much, little in zip(blocks["reformulate"], blocks["nearest_items"], strict=True)]
    report.add(case, "reformulate", "cost_ratio", ratios)
    word = "met" if report.rows[-1].value <= BAR else "MISSED"
    report.note(
        f"Bar {word}: Reformulate (pseudo feedback, depth {DEPTH}, attention, guard) takes "
        f"{report.rows[-1].value:.2f} of the time of NearestItems, wanted {BAR} or less."
    )
    _add_forward(report, case, queries[:1], vectors, rounds, calls)


def _add_forward(
    report: Report, case: dict[str, Any], query: Float32, vectors: Float32, rounds: int, calls: int
) -> None:
    """Measure attention's forward pass for one query, as the server runs it and as a graph of TensorFlow."""
    attention = _attention()
    rows = np.argsort(-(query @ vectors.T), axis=1)[:, :DEPTH]
    feedback = feedback_of(query, ItemRoles.shared(vectors), rows)
    in_graph = _in_graph(attention, query, feedback)
    expected, _ = attention.choice.direction(np, query, feedback, attention.ready)
    np.testing.assert_allclose(in_graph(), expected, rtol=1e-3, atol=1e-5)
    blocks = _alternate(
        {
            "numpy_us": lambda: [
                attention.choice.direction(np, query, feedback, attention.ready) for _ in range(calls)
            ],
            "tensorflow_us": lambda: [in_graph() for _ in range(calls)],
        },
        rounds,
    )
    for metric, seconds in blocks.items():
        report.add(case, NAME, metric, [each / calls * 1e6 for each in seconds])


def _in_graph(attention: NamedReformulator, query: Float32, feedback: Feedback) -> Callable[[], Float32]:
    """Return a call of the same arithmetic as a graph: arrays in, an array out, as a server would."""
    tnp = tf.experimental.numpy
    weights = {name: tf.constant(value) for name, value in attention.ready.items()}

    @tf.function(reduce_retracing=True)
    def forward(queries: tf.Tensor, *parts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return attention.choice.direction(tnp, queries, Feedback(*parts), weights)

    names = [field.name for field in dataclasses.fields(Feedback) if field.name != "extended"]
    parts = [getattr(feedback, name) for name in names]

    def call() -> Float32:
        item_weights, further = forward(tf.constant(query), *(tf.constant(part) for part in parts))
        further.numpy()
        return item_weights.numpy()

    return call


def _alternate(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each subject's blocks, taken in turns, the order turned round each time."""
    seconds: dict[str, list[float]] = {subject: [] for subject in subjects}
    for subject in subjects.values():
        subject()
    for done in range(rounds):
        for subject in list(subjects)[:: 1 if done % 2 else -1]:
            started = time.perf_counter()
            subjects[subject]()
            seconds[subject].append(time.perf_counter() - started)
    return seconds


def _attention() -> NamedReformulator:
    """Return an attention reformulator with weights that do something, and a guard that thinks but lets all pass."""
    choice = registry.build("reformulators", {"kind": NAME}, NAME)
    weights, random = dict(choice.initial(DIM, 0)), np.random.default_rng(0)
    for name in ("item_weight", "residual"):
        weights[name] = random.normal(0, 0.01, weights[name].shape).astype(np.float32)
    guard = Guard(coefficients=(1.0,) + (0.1,) * len(SIGNALS))
    return NamedReformulator(NAME, choice, weights, guard)


def _release(folder: Path, items: int) -> Release:
    """Train a small two-tower model over a large synthetic catalogue and give its release an attention reformulator."""
    run = config.from_tables(
        {
            "name": "bench-reformulation-serving",
            "source": {"kind": "synthetic", "users": 2_000, "items": items, "interactions": 100_000},
            "query": {"features": {"who": {"kind": "id", "width": 16}}},
            "item": {"features": {"id": {"kind": "id", "width": 16}, "category": {"kind": "categorical"}}},
            "tower": {"kind": "mlp", "hidden": [64], "dim": DIM},
            "objective": {"kind": "sampled_softmax"},
            "training": {"epochs": 1, "batch_size": 1024, "optimizer": "adagrad", "learning_rate": 0.1},
            "evaluation": {"exclude_seen": False, "resamples": 100, "max_cases": 1_000, "baselines": ["popularity"]},
            "index": {"kind": "scann", "leaves": 316, "quantisation": "ah"},
        }
    )
    return with_attention(pipeline.train(run, folder / "work", folder / "releases"))


def with_attention(release: Release) -> Release:
    """Return a release that shares all of another one and answers feedback by attention, whose weights do something."""

    def change(copy: Path) -> dict[str, object]:
        _attention().save(copy, default=True)
        return {}

    return derive(release, change)
