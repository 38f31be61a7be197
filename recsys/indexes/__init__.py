"""Indexes answer largest-inner-product queries over the item vectors; one file is one `[index] kind`.

A choice has one verb, `build(vectors, folder)`, which writes a self-contained folder, and `load(folder, vectors)`,
which opens it as a `Searcher`. To add one, write `indexes/<kind>.py`; the contract tests compare it with exact search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from recsys.indexes._checks import UNUSABLE as UNUSABLE
from recsys.indexes._checks import checked_vectors as checked_vectors
from recsys.indexes._checks import first_unusable as first_unusable
from recsys.indexes._exact import ExactSearcher as ExactSearcher
from recsys.types import Float32, Neighbours


class Searcher(Protocol):
    """An open index. Safe for calls from several threads."""

    def search(self, queries: Float32, k: int, *, effort: float = 1.0, effort_k: int = 0) -> Neighbours:
        """Return the k largest inner products for each query.

        Args:
            queries: `[batch, dim]`, float32, finite, C-contiguous.
            k: places, >= 1; more than there are items gives `NO_ROW` at the end.
            effort: how many times as much of the catalogue to look at as settled for the index, > 0.
            effort_k: make the effort of a search for so many results, and return k of those that it scores; 0 means k.
                Costs hardly more than a search for `effort_k`, which serves callers that drop some of the k results.

        Raises:
            RequestError: wrong dimension, NaN or infinity in a query, or k < 1.
        """

    def tuned(self, settings: Mapping[str, Any]) -> Searcher:
        """Return the same index searched with other settings; nothing large is copied.

        Args:
            settings: by name, those of the choice that count at search time.

        Raises:
            SettingError: it has no such setting, or not with such a value.
        """


class Index(Protocol):
    """The contract of the family."""

    def build(self, vectors: Float32, folder: Path) -> Mapping[str, Any]:
        """Write an index over item vectors into an empty, existing folder.

        Args:
            vectors: `[items, dim]`, float32, finite; row = item_row.
            folder: gets every file that `load` needs beside the vectors.

        Returns:
            The parameters that were settled on (leaves, quantisation, ...), plain values for JSON.

        Raises:
            ShapeError: vectors are not a finite float32 matrix with at least one row.
        """

    def load(self, folder: Path, vectors: Float32) -> Searcher:
        """Open what `build` wrote.

        Args:
            folder: the folder that `build` filled.
            vectors: the same item vectors, `[items, dim]`, float32; may be a memory map.

        Raises:
            ReleaseError: the folder is incomplete or was built over other vectors.
        """
