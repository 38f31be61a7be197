"""What having met each item means for a query: the second role of items, as a part of a release."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.errors import ReleaseError
from recsys.export.release import Release
from recsys.files import save_array
from recsys.types import Float32, ItemRoles
from twintower.errors import describe, verbatim

VECTORS, MAP, FACTS = "vectors.npy", "map.npy", "facts.json"
FOLDER = "query_side"
RIDGES = 10.0 ** np.arange(-5, 4)
"""Ridges that are tried, relative to the mean square of the inputs' coordinates times their number."""
HELD_OUT_RATE = 0.1


@dataclass(frozen=True)
class QuerySide:
    """The query side of a release's items.

    Attributes:
        vectors: `[items, dim]`, float32, finite: what having met an item once adds to a query's vector, where the
            vector of a typical query has length 1.
        map: `[dim, dim]`, float32, finite: `found @ map` stands for the vector of an item that the query tower has
            nothing of its own for, such as a new one.
        typical_length: of queries, as `recsys.data.encoders.evidence` gives it, > 0; 0 where lengths say nothing.
    """

    vectors: Float32
    map: Float32
    typical_length: float

    def lengths(self, raw: Float32) -> Float32:
        """Return the lengths of queries where a typical one has length 1, `[batch]`.

        Args:
            raw: their lengths as `recsys.data.encoders.evidence` gives them, `[batch]`.
        """
        if not self.typical_length:
            return np.ones_like(raw)
        return np.maximum(raw / np.float32(self.typical_length), np.float32(1e-6))

    def save(self, folder: Path) -> None:
        """Write the part.

        Args:
            folder: does not exist yet.
        """
        folder.mkdir()
        save_array(folder / VECTORS, self.vectors)
        save_array(folder / MAP, self.map)
        (folder / FACTS).write_text(json.dumps({"typical_length": self.typical_length}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, items: int, dim: int) -> QuerySide:
        """Open what `save` wrote; the vectors stay on disk, mapped.

        Args:
            folder: the part.
            items: rows of the catalog.
            dim: length of the release's vectors.

        Raises:
            ReleaseError: the part is missing, damaged, or of another release.
        """
        try:
            # Still mapped, without the time that slices of `np.memmap` take.
            vectors = np.asarray(np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False))
            to_query_side = np.load(folder / MAP, allow_pickle=False)
            typical = json.loads((folder / FACTS).read_text(encoding="utf-8"))["typical_length"]
            is_number = isinstance(typical, (int, float)) and 0 <= typical < float("inf")
        except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
            raise ReleaseError(f"{folder}: not a part that this version wrote ({error}).") from None
        found = [(str(each.dtype), each.shape) for each in (vectors, to_query_side)]
        expected = [("float32", (items, dim)), ("float32", (dim, dim))]
        if found != expected or not is_number:
            got = verbatim(f"{found} and a typical length of {typical!r}")
            raise ReleaseError(describe(str(folder), got, f"{expected} and a length >= 0"))
        return cls(vectors, to_query_side, float(typical))


def load_query_side(release: Release) -> QuerySide:
    """Return the query side of a release's items.

    Raises:
        ReleaseError: see `QuerySide.load`.
    """
    return QuerySide.load(release.folder / FOLDER, release.facts.item_count, release.facts.dim)


def load_roles(release: Release) -> ItemRoles:
    """Return both vectors of each item of a release.

    Raises:
        ReleaseError: see `QuerySide.load`.
    """
    return ItemRoles(np.load(release.folder / "item_embeddings.npy"), load_query_side(release).vectors)


def fit_map(inputs: Float32, targets: Float32, start: Float32, seed: int) -> Float32:
    """Return the map M that makes `inputs @ M` most like the targets, `[dim, dim]`, float32.

    `M = start + (A^T A + ridge)^-1 A^T (B - A start)`: least squares that prefers `start`. The ridge is the one whose
    squared error on a tenth of the rows, kept from the fit, is the smallest; then all rows are fitted with it.

    Args:
        inputs: A, `[rows, dim]`, float32.
        targets: B, `[rows, dim]`, float32.
        start: `[dim, dim]`, float32; the map where there are fewer than two rows.
        seed: of the draw of the kept rows.
    """
    count = len(inputs)
    if count < 2:
        return start
    given, wanted = inputs.astype(np.float64), targets - inputs.astype(np.float64) @ start
    order = np.random.default_rng([seed, 18]).permutation(count)
    kept = max(1, round(HELD_OUT_RATE * count))
    learn, choose = order[kept:], order[:kept]

    def solutions(rows: np.ndarray) -> list[np.ndarray]:
        values, directions = np.linalg.eigh(given[rows].T @ given[rows])
        scale, turned = max(float(values.mean()), 1e-12), directions.T @ (given[rows].T @ wanted[rows])
        return [directions @ (turned / (np.maximum(values, 0) + ridge * scale)[:, None]) for ridge in RIDGES]

    errors = [np.square(wanted[choose] - given[choose] @ change).sum() for change in solutions(learn)]
    nothing = np.square(wanted[choose]).sum()
    if min(errors) >= nothing:
        return start
    return (start + solutions(np.arange(count))[int(np.argmin(errors))]).astype(np.float32)
