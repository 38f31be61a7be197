"""Linear recommenders in closed form, and their best low-rank parts, which are the tables of a two-tower model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import LinearOperator

from recsys.errors import SettingError, describe, verbatim
from recsys.types import Float32

MAX_INVERTED = 20_000
"""Rows of the largest matrix that is inverted: 3.2 GB in float64, minutes on two cores; time grows with the cube."""
BLOCK = 1024
"""Columns of a dense intermediate that are computed at once."""
OVERSAMPLING = 32
"""Further directions that the randomized range finder follows."""
POWER_ITERATIONS = 4

Array = NDArray[np.float64]


class RegularizedInverse:
    """`(X^T X + diag(penalty))^-1`, through the smaller of the two Gram matrices of X.

    Where queries are fewer than items, by Woodbury's identity:
    `L^-1 - L^-1 X^T (I + X L^-1 X^T)^-1 X L^-1` with `L = diag(penalty)`.

    Args:
        met: X, `[queries, items]`, float, >= 0: how much each query entity met each item.
        penalty: `[items]`, float64, > 0.

    Raises:
        SettingError: both Gram matrices are larger than `MAX_INVERTED`, or the penalty is too small for an inverse.
    """

    def __init__(self, met: csr_matrix, penalty: Array) -> None:
        if min(met.shape) > MAX_INVERTED:
            got = verbatim(f"{met.shape[0]:,} query entities and {met.shape[1]:,} items")
            advice = "Take the objective 'all_items', which inverts nothing."
            raise SettingError(describe("closed form", got, f"at most {MAX_INVERTED:,} of either", advice))
        self._met, self._penalty = met.astype(np.float64).tocsr(), penalty
        self._is_dual = met.shape[0] < met.shape[1]
        if self._is_dual:
            gram = _gram((self._met @ diags_array(penalty**-0.5)).T.tocsr())
            gram.flat[:: len(gram) + 1] += 1
        else:
            gram = _gram(self._met)
            gram.flat[:: len(gram) + 1] += penalty
        self._inverse = _inverted(gram)

    def apply(self, columns: Array) -> Array:
        """Return the inverse times `[items, k]`."""
        if not self._is_dual:
            return self._inverse @ columns
        scaled = columns / self._penalty[:, None]
        inner = self._inverse @ (self._met @ scaled)
        return scaled - (self._met.T @ inner) / self._penalty[:, None]

    def diagonal(self) -> Array:
        """Return the inverse's diagonal, `[items]`, > 0."""
        if not self._is_dual:
            return self._inverse.diagonal()
        by_item = self._met.tocsc()
        explained = np.empty(len(self._penalty))
        for start in range(0, len(explained), BLOCK):
            block = by_item[:, start : start + BLOCK].toarray()
            explained[start : start + BLOCK] = np.einsum("qi,qi->i", block, self._inverse @ block)
        return (1 - explained / self._penalty) / self._penalty


def ease(met: csr_matrix, regularization_weight: float) -> LinearOperator:
    """Return the item-to-item weights of EASE, `[items, items]`, with a diagonal of zeros.

    `B(i, j) = -P(i, j) / P(j, j)`, `P = (X^T X + regularization_weight * identity)^-1`

    Reference:
        Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data, arXiv:1905.03375, Eq. 8.

    Args:
        met: X, `[queries, items]`, float, >= 0.
        regularization_weight: weight of the squared length of B, > 0.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    inverse = RegularizedInverse(met, np.full(met.shape[1], float(regularization_weight)))
    scale = 1 / inverse.diagonal()[:, None]
    return _operator(
        met.shape[1],
        lambda columns: columns - inverse.apply(columns * scale),
        lambda columns: columns - inverse.apply(columns) * scale,
    )


def dlae(met: csr_matrix, dropout_rate: float, regularization_weight: float) -> LinearOperator:
    """Return the item-to-item weights of a linear autoencoder trained with dropout, with a diagonal of zeros.

    `W = (X^T X + L)^-1 X^T X`, `L = dropout_rate / (1 - dropout_rate) * diag(X^T X) + regularization_weight * identity`

    Reference:
        Steck 2020, Autoencoders that don't overfit towards the Identity, NeurIPS 33, Eq. 4.
    Differs:
        the diagonal is left out. It scores the items of the history itself, which are not shown, and would take the
        first directions of a low rank.

    Args:
        met: X, `[queries, items]`, float, >= 0.
        dropout_rate: share (0..1) of the history that is hidden.
        regularization_weight: weight of the squared length of W, > 0.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    energy = np.asarray(met.multiply(met).sum(axis=0), np.float64).ravel()
    penalty = energy * dropout_rate / (1 - dropout_rate) + regularization_weight
    inverse, weight = RegularizedInverse(met, penalty), penalty[:, None]
    off_diagonal = inverse.diagonal()[:, None] * weight  # W = 1 - P L, so that 1 - W(j, j) = P(j, j) L(j)
    return _operator(
        met.shape[1],
        lambda columns: off_diagonal * columns - inverse.apply(weight * columns),
        lambda columns: off_diagonal * columns - weight * inverse.apply(columns),
    )


def low_rank(met: csr_matrix, weights: LinearOperator, dim: int, seed: int) -> tuple[Float32, Float32]:
    """Return the two tables whose product best replaces the weights on the training histories.

    `E = W V` and `V`, where V are the top right singular vectors of X W: of all E, V of this rank, `X E V^T` is the one
    closest to X W in the squared error (Eckart and Young 1936). V by a randomized range finder.

    Reference:
        Halko, Martinsson and Tropp 2011, arXiv:0909.4061, Alg. 4.4 and 5.1.

    Args:
        met: X, `[queries, items]`, float, >= 0.
        weights: W, `[items, items]`.
        dim: rank, at most the number of query entities and of items.
        seed: of the first directions.

    Returns:
        What having met an item adds to a query's vector, E, and the vector that an item is found by, V; each
        `[items, dim]`, float32.
    """
    met = met.astype(np.float64)
    random = np.random.default_rng([seed, 17])
    found = random.normal(size=(met.shape[1], min(dim + OVERSAMPLING, *met.shape)))
    for _ in range(POWER_ITERATIONS):
        found, _ = np.linalg.qr(weights.rmatmat(met.T @ (met @ weights.matmat(found))))
    history = weights.matmat(found)
    _, _, rotation = np.linalg.svd(met @ history, full_matrices=False)
    turned = rotation[:dim].T
    return (history @ turned).astype(np.float32), (found @ turned).astype(np.float32)


def _operator(items: int, apply: Callable[[Array], Array], transposed: Callable[[Array], Array]) -> LinearOperator:
    def vector(of_columns: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda values: of_columns(values.reshape(-1, 1)).ravel()

    return LinearOperator(
        (items, items),
        dtype=np.float64,
        matvec=vector(apply),
        rmatvec=vector(transposed),
        matmat=apply,
        rmatmat=transposed,
    )


def _gram(matrix: csr_matrix) -> Array:
    """Return `matrix^T matrix`, dense."""
    by_column = matrix.T.tocsr()
    gram = np.empty((matrix.shape[1],) * 2)
    for start in range(0, len(gram), BLOCK):
        gram[start : start + BLOCK] = (by_column[start : start + BLOCK] @ matrix).toarray()
    return gram


def _inverted(matrix: Array) -> Array:
    """Return the inverse of a symmetric, positive definite matrix, which is overwritten."""
    # Symmetric, so that its transpose, which LAPACK can overwrite, is the same matrix.
    factor, is_broken = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if is_broken:
        advice = "Some items were always met together; take a larger weight."
        got = verbatim("a value for which the matrix has no inverse")
        raise SettingError(describe("regularization_weight", got, "a larger one", advice))
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = inverse.T
    return np.triu(inverse) + np.triu(inverse, 1).T
