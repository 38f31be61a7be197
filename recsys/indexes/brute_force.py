"""Exact search over all items; the right choice for small catalogues and the yardstick for every other index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.indexes import ExactSearcher
from recsys.indexes._checks import checked_vectors
from recsys.indexes._seal import opened, seal
from recsys.registry import settings
from recsys.types import Float32


@settings()
class BruteForce:
    """Exact search; nothing to set and nothing to store beside the vectors."""

    def build(self, vectors: Float32, folder: Path) -> Mapping[str, Any]:
        """Write `index.json`, which ties the folder to the vectors.

        Args:
            vectors: `[items, dim]`, float32, finite; row = item_row.
            folder: an empty, existing folder.

        Returns:
            No parameters.

        Raises:
            ShapeError: vectors are not a finite float32 matrix with at least one row.
        """
        seal(folder, "brute_force", checked_vectors(vectors), {})
        return {}

    def load(self, folder: Path, vectors: Float32) -> ExactSearcher:
        """Open what `build` wrote.

        Args:
            folder: the folder that `build` filled.
            vectors: the same item vectors, `[items, dim]`, float32; may be a memory map.

        Raises:
            ReleaseError: the folder is incomplete or was built over other vectors.
        """
        opened(folder, "brute_force", vectors)
        return ExactSearcher(vectors)
