"""Small worlds on disk that tests train on: every fact about them is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.baselines import Histories
from recsys.export.release import Release
from recsys.types import Interactions

USERS, ITEMS, PER_USER = 60, 40, 12
DAY_US = 86_400_000_000
POOLED = {"shared": True, "pooling": "mean", "dropout_rate": 0.0}
"""Settings of a history that is the mean of its items' id vectors."""
TOY_MET = np.array(
    [[1, 1, 0, 0, 1], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 0]],
)
"""How often each of five query entities met each of five items."""


def histories_of(counts: Any) -> Histories:
    """Return the histories with the given counts, `[owners, items]`."""
    counts = np.asarray(counts)
    owner, item = np.nonzero(counts)
    often = counts[owner, item]
    met = Interactions(np.repeat(owner, often).astype(np.int32), np.repeat(item, often).astype(np.int32))
    return Histories(met, *counts.shape)


def block_histories(
    blocks: int = 4, queries: int = 30, items: int = 12, met: int = 5, seed: int = 0
) -> tuple[Histories, np.ndarray]:
    """Return histories of items of the query entity's block alone, and one further item of the block for each."""
    random = np.random.default_rng(seed)
    counts, missing = np.zeros((blocks * queries, blocks * items), int), np.empty(blocks * queries, int)
    for query in range(len(counts)):
        chosen = random.choice(items, met + 1, replace=False) + query // queries * items
        counts[query, chosen[:met]] = 1
        missing[query] = chosen[met]
    return histories_of(counts), missing


def write_block_world(folder: Path, users: int = USERS) -> None:
    """Write `interactions`, `items` and `users`: users of a taste only meet the items of that taste.

    There are two tastes; even users and even items are of the first. Each user meets twelve items, one a day.
    """
    random = np.random.default_rng(1)
    user_ids, items = [f"user {row}" for row in range(users)], [f"item-ü{row}" for row in range(ITEMS)]
    pairs = [
        (user, 2 * int(item) + user % 2, day)
        for user in range(users)
        for day, item in enumerate(random.permutation(ITEMS // 2)[:PER_USER])
    ]
    pq.write_table(
        pa.table(
            {
                "user_id": [user_ids[user] for user, _, _ in pairs],
                "item_id": [items[item] for _, item, _ in pairs],
                "time": pa.array([day * DAY_US for _, _, day in pairs], pa.timestamp("us", "UTC")),
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "item_id": items,
                "taste": [("salt", "sweet")[row % 2] for row in range(ITEMS)],
                "tags": [["all", f"tag {row % 4}"] for row in range(ITEMS)],
                "price": [float(row) if row % 5 else None for row in range(ITEMS)],
                "title": [f"Thing number {row}" for row in range(ITEMS)],
                "vector": pa.array([[1.0, float(row % 3), 0.5] for row in range(ITEMS)], pa.list_(pa.float32(), 3)),
            }
        ),
        folder / "items.parquet",
    )
    pq.write_table(
        pa.table({"user_id": user_ids, "town": [("north", "south", None)[row % 3] for row in range(users)]}),
        folder / "users.parquet",
    )


def block_run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the tables of a run file over the block world; `changes` replace whole sections."""
    tables = {
        "name": "blocks",
        "seed": 3,
        "source": {
            "kind": "parquet",
            "interactions": str(folder / "interactions.parquet"),
            "items": str(folder / "items.parquet"),
            "users": str(folder / "users.parquet"),
            "timestamp_column": "time",
        },
        "query": {
            "features": {
                "town": {"kind": "categorical", "width": 4},
                "who": {"kind": "id", "width": 8},
                "recent": {"kind": "history", "length": 5, **POOLED},
            }
        },
        "item": {
            "features": {
                "id": {"kind": "id", "width": 8},
                "taste": {"kind": "categorical", "width": 4},
                "tags": {"kind": "multi_categorical", "width": 4, "max_values": 3},
                "price": {"kind": "numeric"},
                "title": {"kind": "text", "width": 4, "buckets": 50, "max_terms": 4},
                "vector": {"kind": "embedding"},
            },
            "metadata": ["title", "taste"],
            "filters": ["taste", "tags", "price"],
        },
        "split": {"kind": "leave_last"},
        "tower": {"kind": "mlp", "hidden": [16], "dim": 8},
        "objective": {"kind": "sampled_softmax"},
        "training": {
            "epochs": 4,
            "batch_size": 64,
            "optimizer": "adagrad",
            "learning_rate": 0.1,
            "schedule": {"kind": "constant"},
            "deterministic": True,
        },
        "evaluation": {"resamples": 100, "baselines": ["popularity", "item_knn"]},
        "index": {"kind": "brute_force"},
    }
    changed = tables | changes
    changed["evaluation"] = {"exclude_seen": False, **changed["evaluation"]}
    return changed


def copy_of(release: Release, root: Path) -> Release:
    """Return a copy below a folder of its own, for tests that derive others from it, promote it or damage it."""
    folder = root / release.name
    shutil.copytree(release.folder, folder)
    return Release(folder, release.manifest)


def write_repeat_world(folder: Path) -> None:
    """Write `interactions` and `items` of users who buy four staples every week, and something else once a week.

    The staples of a user are 4 of the 40 items, drawn at random; twelve weeks.
    """
    random = np.random.default_rng(2)
    rows = []
    for user in range(USERS):
        staples = random.choice(ITEMS, 4, replace=False)
        for week in range(12):
            bought = sorted({*staples.tolist(), int(random.integers(ITEMS))})
            rows += [(f"user {user}", f"item {item}", (7 * week + user % 3) * DAY_US) for item in bought]
    users, items, times = (list(column) for column in zip(*rows, strict=True))
    interactions = {"user_id": users, "item_id": items, "time": pa.array(times, pa.timestamp("us", "UTC"))}
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    catalog = {"item_id": [f"item {row}" for row in range(ITEMS)], "taste": [str(row % 2) for row in range(ITEMS)]}
    pq.write_table(pa.table(catalog), folder / "items.parquet")


def repeat_run(folder: Path) -> dict[str, Any]:
    """Return the tables of a run file over the repeat world: a closed form over whole histories."""
    source = {name: str(folder / f"{name}.parquet") for name in ("interactions", "items")}
    return {
        "name": "repeats",
        "source": {"kind": "parquet", **source, "timestamp_column": "time"},
        "query": {
            "features": {
                "met": {"kind": "history", "shared": False, "pooling": "sum", "width": 8, "half_life_days": 14.0}
            }
        },
        "item": {"features": {"id": {"kind": "id", "width": 8}}, "filters": ["taste"]},
        "split": {"kind": "by_time", "test_rate": 0.1, "validation_rate": 0.1},
        "tower": {"kind": "sum", "dim": 8},
        "objective": {"kind": "dlae"},
        "evaluation": {"metrics": ["nDCG@5", "R@5"], "resamples": 100, "baselines": ["popularity"]},
        "index": {"kind": "brute_force"},
    }
