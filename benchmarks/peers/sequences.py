"""Peers that read order: one folder with histories and settings in, vectors after several numbers of epochs out.

The peer's process imports this file, too, so nothing but NumPy and the standard library may be needed here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import environment

SETTINGS, VECTORS = "settings.json", "vectors-*.npz"


@dataclass(frozen=True)
class SequenceSettings:
    """What a peer trains: SASRec with softmax over the whole catalog.

    Attributes:
        dim: length of the vectors.
        blocks: of the transformer.
        heads: of its attention.
        positions: items of a history that count.
        dropout_rate: share (0..1) that is dropped in training.
        batch_size: histories of a step.
        epochs: passes over the histories.
        look_every_epochs: epochs between two looks.
        learning_rate: of Adam.
        seed: of weights, batches and dropout.
    """

    dim: int = 64
    blocks: int = 2
    heads: int = 1
    positions: int = 100
    dropout_rate: float = 0.2
    batch_size: int = 128
    epochs: int = 40
    look_every_epochs: int = 2
    learning_rate: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class History:
    """Interactions, sorted by query row, then time.

    Attributes:
        query_row: `[interactions]`, int32.
        item_row: `[interactions]`, int32.
        timestamp: `[interactions]`, int64, microseconds since 1970 UTC.
    """

    query_row: NDArray[np.int32]
    item_row: NDArray[np.int32]
    timestamp: NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """What a peer trains on and encodes.

    Attributes:
        histories: `train` trains; all are encoded, by name.
        item_count: rows of the catalog.
        query_count: rows of the query side.
        settings: what to train.
    """

    histories: Mapping[str, History]
    item_count: int
    query_count: int
    settings: SequenceSettings

    def save(self, folder: Path) -> None:
        """Write the folder that a peer reads; the vectors of an earlier one are deleted."""
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(VECTORS):
            stale.unlink()
        for name, history in self.histories.items():
            np.savez(folder / f"history-{name}.npz", **vars(history))
        counts = {"item_count": self.item_count, "query_count": self.query_count}
        (folder / SETTINGS).write_text(json.dumps(asdict(self.settings) | counts, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Inputs:
        """Read what `save` wrote."""
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        counts = {name: settings.pop(name) for name in ("item_count", "query_count")}
        histories = {}
        for path in folder.glob("history-*.npz"):
            with np.load(path) as stored:
                histories[path.stem.removeprefix("history-")] = History(**stored)
        return Inputs(histories, **counts, settings=SequenceSettings(**settings))


@dataclass(frozen=True)
class Vectors:
    """What a peer knows after some epochs; inner products rank as it does.

    Attributes:
        queries: `[queries, dim]`, float32, by the name of the history that they are encoded from.
        items: `[items, dim]`, float32.
        seconds: wall time of training until then.
    """

    queries: Mapping[str, NDArray[np.float32]]
    items: NDArray[np.float32]
    seconds: float

    def save(self, folder: Path, epoch: int) -> None:
        """Write the vectors, whole or not at all."""
        path = folder / VECTORS.replace("*", str(epoch))
        draft = path.with_name(f".{path.name}")
        with draft.open("wb") as file:
            of_queries = {f"queries-{name}": vectors for name, vectors in self.queries.items()}
            np.savez(file, items=self.items, seconds=np.float64(self.seconds), **of_queries)
        os.replace(draft, path)


def looks(folder: Path) -> Iterator[tuple[int, Vectors]]:
    """Yield what a peer left in a folder: the epoch and the vectors after it, in order."""
    found = {int(path.stem.rpartition("-")[2]): path for path in folder.glob(VECTORS)}
    for epoch, path in sorted(found.items()):
        with np.load(path) as stored:
            queries = {
                name.removeprefix("queries-"): stored[name] for name in stored.files if name.startswith("queries-")
            }
            yield epoch, Vectors(queries, stored["items"], float(stored["seconds"]))


def train_rectools(folder: Path, inputs: Inputs) -> None:
    """Train RecTools' SASRec in its own environment; `looks` reads what it leaves.

    Raises:
        subprocess.CalledProcessError: the environment cannot be made, or the training failed; see `stderr`.
    """
    inputs.save(folder)
    command = [environment.RECTOOLS.python(), "-m", "benchmarks.peers.rectools_sasrec", folder.resolve()]
    with (folder / "log.txt").open("w") as log:
        subprocess.run(
            command,
            cwd=environment.ROOT,
            env=environment.variables(),
            check=True,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
