"""Linear recommenders: closed forms with their best low-rank parts, and alternating least squares."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl
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
GATHERED = 2**22
"""Numbers that the vectors of the items of several histories take at once: 16 MB in float32."""

Array = NDArray[np.float64]


def obstacle(queries: int, items: int) -> str:
    """Return why the data are too large for a closed form; empty if they are not."""
    if min(queries, items) <= MAX_INVERTED:
        return ""
    got = verbatim(f"{queries:,} query entities and {items:,} items")
    return describe("closed form", got, f"at most {MAX_INVERTED:,} of either")


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
        if beyond := obstacle(*met.shape):
            raise SettingError(f"{beyond} Take the objective 'all_items', which inverts nothing.")
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
        bounds = list(zip(by_item.indptr[:-1], by_item.indptr[1:], strict=True))
        explained = np.zeros(len(bounds))
        for item, (start, end) in enumerate(bounds):
            queries, weights = by_item.indices[start:end], by_item.data[start:end]
            explained[item] = weights @ self._inverse[queries[:, None], queries] @ weights
        return (1 - explained / self._penalty) / self._penalty


def ease(met: csr_matrix, regularization_weight: float, items: int | None = None) -> LinearOperator:
    """Return the weights of EASE from each column to each item, `[columns, items]`, with a diagonal of zeros.

    `B(i, j) = -P(i, j) / P(j, j)`, `P = (X^T X + regularization_weight * identity)^-1`

    Reference:
        Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data, arXiv:1905.03375, Eq. 8.

    Args:
        met: X, `[queries, columns]`, float: the items, >= 0, then any features of the query entities.
        regularization_weight: weight of the squared length of B, > 0.
        items: how many of the columns are items; None means all. Further columns predict, and are not predicted.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    inverse = RegularizedInverse(met, np.full(met.shape[1], float(regularization_weight)))
    scale = 1 / inverse.diagonal()[:, None]
    return _operator(
        (met.shape[1], met.shape[1] if items is None else items),
        lambda columns: columns - inverse.apply(columns * scale),
        lambda columns: columns - inverse.apply(columns) * scale,
    )


def history_map(met: csr_matrix, queries: Float32, dropout_rate: float, regularization_weight: float) -> Float32:
    """Return the vectors of columns whose sum over random parts of a history best predicts the query's vector.

    `E = (X^T X + L)^-1 X^T U`, with L as in `dlae`.

    Args:
        met: X, `[queries, columns]`, float; see `ease`.
        queries: U, `[queries, dim]`, float32.
        dropout_rate: share (0..1) of the history that is hidden.
        regularization_weight: weight of the squared length of E.

    Returns:
        `[columns, dim]`, float32.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    penalty = _dropout_penalty(met, dropout_rate, regularization_weight)
    return RegularizedInverse(met, penalty).apply(met.T @ queries.astype(np.float64)).astype(np.float32)


def dlae(
    met: csr_matrix, dropout_rate: float, regularization_weight: float, items: int | None = None
) -> LinearOperator:
    """Return the weights of a linear autoencoder trained with dropout, `[columns, items]`, with a diagonal of zeros.

    `W = (X^T X + L)^-1 X^T X`, `L = dropout_rate / (1 - dropout_rate) * diag(X^T X) + regularization_weight * identity`

    Reference:
        Steck 2020, Autoencoders that don't overfit towards the Identity, NeurIPS 33, Eq. 4.
    Differs:
        the diagonal is left out. It scores the items of the history itself, which are not shown, and would take the
        first directions of a low rank.

    Args:
        met: X, `[queries, columns]`, float; see `ease`.
        dropout_rate: share (0..1) of the history that is hidden.
        regularization_weight: weight of the squared length of W, > 0.
        items: see `ease`.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    penalty = _dropout_penalty(met, dropout_rate, regularization_weight)
    inverse, weight = RegularizedInverse(met, penalty), penalty[:, None]
    off_diagonal = inverse.diagonal()[:, None] * weight  # W = 1 - P L, so that 1 - W(j, j) = P(j, j) L(j)
    return _operator(
        (met.shape[1], met.shape[1] if items is None else items),
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
        met: X, `[queries, columns]`, float; see `ease`.
        weights: W, `[columns, items]`.
        dim: rank, at most the number of query entities and of items.
        seed: of the first directions.

    Returns:
        What each column of X adds to a query's vector, E, `[columns, dim]`, and the vector that an item is found by, V,
        `[items, dim]`; float32. The directions that explain most come first: the first d columns are those of rank d.
    """
    met = met.astype(np.float64)
    random = np.random.default_rng([seed, 17])
    found = random.normal(size=(weights.shape[1], min(dim + OVERSAMPLING, met.shape[0], weights.shape[1])))
    for _ in range(POWER_ITERATIONS):
        found, _ = np.linalg.qr(weights.rmatmat(met.T @ (met @ weights.matmat(found))))
    history = weights.matmat(found)
    _, _, rotation = np.linalg.svd(met @ history, full_matrices=False)
    turned = rotation[:dim].T
    return (history @ turned).astype(np.float32), (found @ turned).astype(np.float32)


def ials(
    met: csr_matrix,
    dim: int,
    unobserved_weight: float,
    regularization_weight: float,
    epochs: int = 16,
    seed: int = 0,
) -> Float32:
    """Return the item vectors of matrix factorization by alternating least squares over all pairs.

    The vectors u of query entities and v of items minimize

    `sum_{(q, i) in X}( x_qi (u_q v_i - 1)^2 ) + alpha0 sum_{all q, i}( (u_q v_i)^2 )
    + lambda ( sum_q n_q |u_q|^2 + sum_i n_i |v_i|^2 )`, `n_q = sum_i x_qi + alpha0 items`, `n_i` in the same way

    Reference:
        Rendle, Krichene, Zhang and Koren 2022, Revisiting the Performance of iALS on Item Recommendation Benchmarks,
        arXiv:2110.14037, Eq. 1 to 5 with nu = 1.

    Args:
        met: X, `[queries, items]`, float, >= 0: the weight of each pair that was met.
        dim: length of the vectors.
        unobserved_weight: alpha0, the weight of every pair, > 0.
        regularization_weight: lambda, > 0.
        epochs: sweeps over query entities and items.
        seed: of the first item vectors, which are normal with standard deviation `.1 / sqrt(dim)`.

    Returns:
        `[items, dim]`, float32; `regressed` gives the vectors of query entities.
    """
    of_items = met.T.tocsr()
    random = np.random.default_rng([seed, 18])
    items = random.normal(scale=0.1 / np.sqrt(dim), size=(met.shape[1], dim)).astype(np.float32)
    for _ in range(epochs):
        queries = regressed(met, items, unobserved_weight, regularization_weight)
        items = regressed(of_items, queries, unobserved_weight, regularization_weight)
    return items


def regressed(met: csr_matrix, others: Float32, unobserved_weight: float, regularization_weight: float) -> Float32:
    """Return for each row of X the vector that best scores its own columns 1 and all columns 0; see `ials`.

    `u_q = (alpha0 V^T V + sum_i x_qi v_i v_i^T + lambda n_q identity)^-1 sum_i x_qi v_i`. In the eigenbasis of `V^T V`
    all but the middle term is diagonal, so that a row with fewer columns than dimensions takes, by Woodbury's identity,
    a system of its columns.

    Args:
        met: X, `[rows, columns]`, float, >= 0.
        others: V, the vectors of the columns, `[columns, dim]`, float32.
        unobserved_weight: alpha0, > 0.
        regularization_weight: lambda, > 0.

    Returns:
        `[rows, dim]`, float32; zeros for a row without columns.
    """
    met = met.tocsr()
    wide = others.astype(np.float64)
    energies, basis = np.linalg.eigh(wide.T @ wide)
    vectors = np.vstack([wide @ basis, np.zeros(len(basis))]).astype(np.float32)  # the last row fills short histories
    row_weights = np.asarray(met.sum(axis=1), np.float64).ravel()
    penalty = regularization_weight * (row_weights + unobserved_weight * met.shape[1])
    diagonal = (unobserved_weight * np.maximum(energies, 0) + penalty[:, None]).astype(np.float32)
    found = np.zeros((met.shape[0], len(basis)), np.float32)
    sizes = np.diff(met.indptr)
    order = np.argsort(-sizes, kind="stable")
    pieces, start, end = [], 0, int((sizes > 0).sum())
    while start < end:
        at_once = max(1, GATHERED // (max(int(sizes[order[start]]), len(basis)) * len(basis)))
        pieces.append(order[start : min(end, start + at_once)])
        start += at_once

    def solve(rows: NDArray[np.integer]) -> None:
        found[rows] = _ridge(*_gathered(met, rows, int(sizes[rows[0]]), vectors), diagonal[rows])

    # Threads over the pieces: within systems this small, they take longer to meet than to work.
    cores = len(os.sched_getaffinity(0))
    with threadpoolctl.threadpool_limits(1, "blas"), ThreadPoolExecutor(cores) as threads:
        for _ in threads.map(solve, pieces):
            pass
    return (found @ basis.T).astype(np.float32)


def _gathered(met: csr_matrix, rows: NDArray[np.integer], width: int, vectors: Float32) -> tuple[Float32, Float32]:
    """Return the roots of the weights of some rows, `[rows, width]`, and their columns' vectors times these."""
    places = met.indptr[rows][:, None] + np.arange(width)
    is_inside = places < met.indptr[rows + 1][:, None]
    places = np.minimum(places, len(met.indices) - 1)
    roots = np.where(is_inside, np.sqrt(met.data[places]), 0).astype(np.float32)
    return roots, vectors[np.where(is_inside, met.indices[places], -1)] * roots[..., None]


def _ridge(roots: Float32, inputs: Float32, diagonal: Float32) -> Float32:
    """Return `(A^T A + D)^-1 A^T roots` of each row, `[rows, dim]`, through the smaller system.

    Args:
        roots: `[rows, width]`.
        inputs: A, `[rows, width, dim]`.
        diagonal: of D, `[rows, dim]`, > 0.
    """
    transposed = inputs.swapaxes(1, 2)
    if inputs.shape[1] < inputs.shape[2]:
        scaled = transposed / diagonal[..., None]
        system = inputs @ scaled
        system[:, *np.diag_indices(inputs.shape[1])] += 1
        return (scaled @ np.linalg.solve(system, roots[..., None]))[..., 0]
    system = transposed @ inputs
    system[:, *np.diag_indices(inputs.shape[2])] += diagonal
    return np.linalg.solve(system, transposed @ roots[..., None])[..., 0]


def _dropout_penalty(met: csr_matrix, dropout_rate: float, regularization_weight: float) -> Array:
    """Return the diagonal of what dropout and the regularization add to `X^T X`, `[items]`; see `dlae`."""
    energy = np.asarray(met.multiply(met).sum(axis=0), np.float64).ravel()
    return energy * dropout_rate / (1 - dropout_rate) + regularization_weight


def _operator(
    shape: tuple[int, int], apply: Callable[[Array], Array], transposed: Callable[[Array], Array]
) -> LinearOperator:
    """Return the first columns of a square matrix, given as the functions that multiply with it and its transpose."""
    size, columns = shape

    def padded(values: Array) -> Array:
        return np.pad(values, ((0, size - columns), (0, 0))) if columns < size else values

    def vector(of_columns: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda values: of_columns(values.reshape(-1, 1)).ravel()

    def multiplied(values: Array) -> Array:
        return apply(padded(values))

    def transposed_multiplied(values: Array) -> Array:
        return transposed(values)[:columns]

    return LinearOperator(
        shape,
        dtype=np.float64,
        matvec=vector(multiplied),
        rmatvec=vector(transposed_multiplied),
        matmat=multiplied,
        rmatmat=transposed_multiplied,
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
    upper = inverse.T
    for start in range(0, len(upper), BLOCK):
        rows = slice(start, start + BLOCK)
        on_diagonal = np.triu(upper[rows, rows])
        upper[rows, rows] = on_diagonal + np.triu(on_diagonal, 1).T
        upper[start + BLOCK :, rows] = upper[rows, start + BLOCK :].T
    return upper
