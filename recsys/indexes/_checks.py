"""What every index asks of item vectors and of queries, before any library sees them."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import ArrayLike

from recsys.errors import ShapeError
from recsys.types import Float32
from twintower.errors import RequestError, describe, verbatim


def checked_vectors(vectors: np.ndarray, where: str = "vectors") -> Float32:
    """Return item vectors that can be indexed, unchanged.

    Args:
        vectors: `[items, dim]`, float32, finite, at least one row and one column.
        where: what a message calls them.

    Raises:
        ShapeError: they are not such a matrix, or the squared length of a row is beyond float32.
    """
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        shown = f"{vectors.dtype} {list(vectors.shape)}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise ShapeError(describe(where, verbatim(shown), "a float32 matrix with rows and columns"))
    if (row := first_unusable(vectors)) is not None:
        rule = "finite numbers, with a squared length within float32"
        raise ShapeError(describe(f"{where}[{row}]", vectors[row], rule))
    return vectors


def checked_queries(queries: ArrayLike, k: int, dim: int) -> Float32:
    """Return queries as a C-contiguous float32 matrix `[batch, dim]`.

    Args:
        queries: `[batch, dim]`, finite.
        k: places, >= 1.
        dim: the length of the item vectors.

    Raises:
        RequestError: k < 1 (field `k`), or a query of another dimension, with NaN or infinity, or with a squared
            length beyond float32 (field `vector`).
    """
    if operator.index(k) < 1:
        raise RequestError("k", f"got {k}, expected >= 1")
    matrix = np.ascontiguousarray(queries, np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dim:
        raise RequestError("vector", f"got shape {list(matrix.shape)}, expected [batch, {dim}]")
    if (row := first_unusable(matrix)) is not None:
        raise RequestError("vector", f"query {row} holds NaN, infinity or a length beyond float32")
    return matrix


UNUSABLE = "got NaN, infinity or a length beyond float32, expected finite numbers"
"""What is said of a vector that `first_unusable` finds."""


def first_unusable(matrix: Float32) -> int | None:
    """Return the first row that holds NaN or infinity, or has a squared length beyond float32; None for none."""
    # |q . v| <= |q| |v|: where both squared lengths are finite in float32, no score overflows.
    if len(matrix) == 1:  # as a single query comes: a sixth of the time, and no warning of an overflow either
        return None if math.isfinite(np.vdot(matrix, matrix)) else 0
    usable = np.isfinite(np.einsum("ij,ij->i", matrix, matrix))
    return None if usable.all() else int(np.flatnonzero(~usable)[0])
