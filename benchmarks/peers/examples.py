"""The training examples as every peer reads them: integer codes in a random order, one NumPy file; no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.protocol import BATCH_SIZE

FILE = "examples.npz"


@dataclass(frozen=True)
class Examples:
    """Training examples by feature.

    Attributes:
        query: codes of the query side, `[examples]` each, int32; the query entity's own id is the first.
        item: codes of the item side, `[examples]` each, int32; the item's own id is the first.
        sizes: how many codes each feature has.
    """

    query: dict[str, NDArray[np.int32]]
    item: dict[str, NDArray[np.int32]]
    sizes: dict[str, int]

    @property
    def columns(self) -> dict[str, NDArray[np.int32]]:
        """All features."""
        return self.query | self.item

    @property
    def batches(self) -> int:
        """Whole batches in one pass."""
        return len(next(iter(self.query.values()))) // BATCH_SIZE

    def save(self, folder: Path) -> None:
        """Write them; names tell the sides apart."""
        np.savez(
            folder / FILE,
            **{f"query {name}": codes for name, codes in self.query.items()},
            **{f"item {name}": codes for name, codes in self.item.items()},
            **{f"size {name}": np.int64(size) for name, size in self.sizes.items()},
        )

    @staticmethod
    def load(folder: Path) -> Examples:
        """Read what `save` wrote."""
        kinds: dict[str, dict] = {"query": {}, "item": {}, "size": {}}
        with np.load(folder / FILE) as stored:
            for key in stored.files:
                kind, _, name = key.partition(" ")
                kinds[kind][name] = stored[key]
        return Examples(kinds["query"], kinds["item"], {name: int(size) for name, size in kinds["size"].items()})
