"""Peers that rank: vectors trained by another library on our split, to be judged like ours.

The peer's process reads a folder with `train.npz`, `items.npz`, `queries.npz` and `settings.json` and leaves
`vectors.npz` there. It imports this file, too, so nothing but NumPy and the standard library may be needed here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import environment
from benchmarks.peers.protocol import BATCH_SIZE, DIM, HIDDEN, TEMPERATURE, WIDTH

if TYPE_CHECKING:
    from recsys.types import Float32, Interactions

TRAIN, ITEMS, QUERIES, SETTINGS, VECTORS = "train.npz", "items.npz", "queries.npz", "settings.json", "vectors.npz"
PADDING = -1

Features = Mapping[str, NDArray[np.int32]]
"""Codes by feature: `[rows]`, or `[rows, values]` padded with -1; without the entity's own id, which a peer adds."""


@dataclass(frozen=True)
class RankingSettings:
    """What a peer trains.

    Attributes:
        dim: length of both towers' vectors.
        hidden: units of the layers before it.
        width: length of each feature's vector.
        batch_size: examples of a step, which are each other's negatives.
        epochs: passes over the training interactions.
        learning_rate: of Adam.
        temperature: divides the inner products, in the self-supervised loss as well.
        ssl_pattern: how item features are masked for self-supervision; None trains without it.
        alpha: weight of the self-supervised loss.
        seed: of weights, batches and masks.
    """

    dim: int = DIM
    hidden: tuple[int, ...] = (HIDDEN,)
    width: int = WIDTH
    batch_size: int = BATCH_SIZE
    epochs: int = 10
    learning_rate: float = 0.001
    temperature: float = TEMPERATURE
    ssl_pattern: Literal["cfm", "rfm", "rfm-complementary"] | None = None
    alpha: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Inputs:
    """What a peer trains on.

    Attributes:
        query_row: `[interactions]`, int32.
        item_row: `[interactions]`, int32.
        items: features of the catalogue.
        queries: features of the query side; may be empty.
        item_count: rows of the catalogue.
        query_count: rows of the query side.
        settings: what to train.
    """

    query_row: NDArray[np.int32]
    item_row: NDArray[np.int32]
    items: Features
    queries: Features
    item_count: int
    query_count: int
    settings: RankingSettings

    def save(self, folder: Path) -> None:
        """Write the folder that a peer reads; what an earlier one left there goes."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VECTORS).unlink(missing_ok=True)
        np.savez(folder / TRAIN, query_row=self.query_row, item_row=self.item_row)
        np.savez(folder / ITEMS, **self.items)
        np.savez(folder / QUERIES, **self.queries)
        counts = {"item_count": self.item_count, "query_count": self.query_count}
        (folder / SETTINGS).write_text(json.dumps(asdict(self.settings) | counts, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Inputs:
        """Read what `save` wrote."""
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        counts = {name: settings.pop(name) for name in ("item_count", "query_count")}
        train = _arrays(folder / TRAIN)
        settings["hidden"] = tuple(settings["hidden"])
        return Inputs(
            train["query_row"],
            train["item_row"],
            _arrays(folder / ITEMS),
            _arrays(folder / QUERIES),
            **counts,
            settings=RankingSettings(**settings),
        )


def save_vectors(folder: Path, query_vectors: Float32, item_vectors: Float32, seconds: float) -> None:
    """Write a peer's answer, whole or not at all.

    Args:
        folder: the one that the inputs lie in.
        query_vectors: `[queries, dim]`; inner products with `item_vectors` rank as the peer does.
        item_vectors: `[items, dim]`.
        seconds: wall time of training.
    """
    draft = folder / f".{VECTORS}.{os.getpid()}"
    with draft.open("wb") as file:
        np.savez(
            file,
            query_vectors=query_vectors.astype(np.float32),
            item_vectors=item_vectors.astype(np.float32),
            seconds=np.float64(seconds),
        )
    os.replace(draft, folder / VECTORS)


def librecommender_vectors(
    folder: Path,
    train: Interactions,
    item_features: Features,
    query_features: Features,
    settings: RankingSettings,
    *,
    item_count: int | None = None,
    query_count: int | None = None,
) -> tuple[Float32, Float32]:
    """Train LibRecommender's TwoTower in its own environment; see `benchmarks.peers.librecommender_ranking`.

    Args:
        folder: for inputs and outputs; made where it does not exist.
        train: the training interactions.
        item_features: codes of the catalogue, without the item's own id.
        query_features: codes of the query side, without its own id; may be empty.
        settings: what to train.
        item_count: rows of the catalogue; None where a feature tells, or the last row is in training.
        query_count: rows of the query side; None likewise.

    Returns:
        Query vectors `[queries, dim + 1]` and item vectors `[items, dim + 1]`, float32; the further dimension only
        puts items that training does not know last. `training_seconds(folder)` tells how long it took.

    Raises:
        subprocess.CalledProcessError: the environment cannot be made, or the training failed; see `stderr`.
    """
    inputs = Inputs(
        train.query_row,
        train.item_row,
        item_features,
        query_features,
        _count(item_count, item_features, train.item_row),
        _count(query_count, query_features, train.query_row),
        settings,
    )
    inputs.save(folder)
    command = [environment.LIBRECOMMENDER.python(), "-m", "benchmarks.peers.librecommender_ranking", folder.resolve()]
    subprocess.run(
        command, cwd=environment.ROOT, env=environment.variables(), check=True, capture_output=True, text=True
    )
    vectors = _arrays(folder / VECTORS)
    return vectors["query_vectors"], vectors["item_vectors"]


def training_seconds(folder: Path) -> float:
    """Return the wall time of the training that left its vectors in the folder."""
    with np.load(folder / VECTORS) as stored:
        return float(stored["seconds"])


def _count(given: int | None, features: Features, rows: NDArray[np.int32]) -> int:
    if given is not None:
        return given
    return next((len(codes) for codes in features.values()), int(rows.max()) + 1)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)
