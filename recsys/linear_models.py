"""Linear recommenders: closed forms with their best low-rank parts, and alternating least squares."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from itertools import pairwise

import numpy as np
import threadpoolctl
from numpy.typing import NDArray
from scipy.linalg import lapack, lu
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import LinearOperator

from recsys.types import Float32
from twintower.errors import SettingError, describe, verbatim

MAX_INVERTED = 20_000
"""Rows of the largest matrix that is inverted."""
LIMIT_S, LIMIT_GIB = 230.0, 9.5
"""Seconds of one core and memory that one solution takes at that size: measured with `dlae`, 256 dimensions, at 2,500,
5,000 and 10,000 items (1.2, 5.2 and 28.8 s; 0.24, 0.68 and 2.4 GiB), then by the cube and the square."""
BLOCK = 1024
"""Columns of a dense intermediate that are computed at once."""
OVERSAMPLING = 32
"""Further directions that the randomized range finder follows."""
POWER_ITERATIONS = 3
GATHERED = 2**22
"""Numbers that the vectors of the items of several histories take at once: 16 MB in float32."""

Array = NDArray[np.float64]


def obstacle(queries: int, items: int) -> str:
    """Return why the data are too large for a closed form; empty if they are not."""
    if min(queries, items) <= MAX_INVERTED:
        return ""
    got = verbatim(f"{queries:,} query entities and {items:,} items")
    return describe("closed form", got, f"at most {MAX_INVERTED:,} of either")


def expected_cost(rows: int, solutions: int) -> tuple[float, float]:
    """Return seconds of one core that closed forms take, and the GiB that are in use at once.

    Args:
        rows: of the matrix that is inverted.
        solutions: how many closed forms are computed, one after the other.
    """
    share = rows / MAX_INVERTED
    return solutions * LIMIT_S * share**3, LIMIT_GIB * share**2


class RegularizedInverse:
    """`P = (X^T X + diag(penalty))^-1`, through the smaller of the two Gram matrices of X.

    Where queries are fewer than columns, by Woodbury's identity:
    `P = L^-1 - L^-1 X^T K X L^-1` with `L = diag(penalty)` and `K = (I + X L^-1 X^T)^-1`.

    Args:
        met: X, `[queries, columns]`, float, >= 0: how much each query entity met each item.
        penalty: `[columns]`, float64, > 0.
        items: how many of the columns have their place on the diagonal computed; None means all.

    Attributes:
        met: X, float32.
        penalty: `[columns, 1]`, float32.
        is_dual: whether queries are fewer than columns.
        matrix: K where `is_dual`, else P; float32, symmetric.
        diagonal: the first places on the diagonal of P, `[items]`, float64, > 0.

    Raises:
        SettingError: both Gram matrices are larger than `MAX_INVERTED`, or the penalty is too small for an inverse.
    """

    def __init__(self, met: csr_matrix, penalty: Array, items: int | None = None) -> None:
        self.met, self.penalty = met.astype(np.float32).tocsr(), penalty[:, None].astype(np.float32)
        gram, self.is_dual = _regularized_gram(met, penalty)
        inverse = _inverted(gram)
        self.matrix = inverse.astype(np.float32)
        self.diagonal = _dual_diagonal(met, penalty, inverse, items) if self.is_dual else inverse.diagonal()[:items]

    def apply(self, columns: Float32) -> Float32:
        """Return P times `[columns, k]`."""
        if not self.is_dual:
            return self.matrix @ columns
        scaled = columns / self.penalty
        return scaled - (self.met.T @ (self.matrix @ (self.met @ scaled))) / self.penalty


class ItemWeights:
    """The weights from each column of X to each item, `W = diag(own) - P diag(factor)`, with a diagonal of zeros.

    Args:
        inverse: P.
        own: `[items]`.
        factor: `[items]`.

    Attributes:
        shape: columns of X, and items.
    """

    def __init__(self, inverse: RegularizedInverse, own: Array, factor: Array) -> None:
        self._inverse, self.shape = inverse, (inverse.met.shape[1], len(own))
        self._own, self._factor = (each[:, None].astype(np.float32) for each in (own, factor))

    def matmat(self, of_items: Float32) -> Float32:
        """Return W times `[items, k]`."""
        padding = ((0, self.shape[0] - self.shape[1]), (0, 0))
        own, scaled = (np.pad(each * of_items, padding) for each in (self._own, self._factor))
        return own - self._inverse.apply(scaled)

    def rmatmat(self, of_columns: Float32) -> Float32:
        """Return `W^T` times `[columns, k]`."""
        items = self.shape[1]
        return self._own * of_columns[:items] - self._factor * self._inverse.apply(of_columns)[:items]

    def predictions(self) -> LinearOperator:
        """Return the smaller of the two Gram matrices of the predictions X W, as a function that multiplies by it.

        `X W = X D - K X F` where P has the dual form, with `D = diag(own)` and `F = diag(factor) L^-1`, so that
        `X W (X W)^T = A - B K - K B + K C K` with `A = X D^2 X^T`, `B = X D F X^T` and `C = X F^2 X^T`.
        """
        met, matrix = self._inverse.met, self._inverse.matrix
        if not self._inverse.is_dual:
            gram = _gram(met).astype(np.float32)
            return _symmetric(len(self._own), lambda of_items: self.rmatmat(gram @ self.matmat(of_items)))
        met, own = met[:, : self.shape[1]], self._own[:, 0]
        factor = self._factor[:, 0] / self._inverse.penalty[: self.shape[1], 0]
        of_own, of_both, of_factor = (
            _gram((met @ diags_array(np.sqrt(each))).T.tocsr()).astype(np.float32)
            for each in (own**2, own * factor, factor**2)
        )

        def multiply(of_queries: Float32) -> Float32:
            turned = matrix @ of_queries
            return of_own @ of_queries - of_both @ turned - matrix @ (of_both @ of_queries - of_factor @ turned)

        return _symmetric(len(matrix), multiply)

    def tables(self, directions: Float32) -> tuple[Float32, Float32]:
        """Return `W V` and V, given the eigenvectors of `predictions` that V is made of; see `low_rank`."""
        found = directions
        if self._inverse.is_dual:  # the left singular vectors of X W
            found = self.rmatmat(self._inverse.met.T @ directions)
            found /= np.maximum(np.linalg.norm(found, axis=0), np.finfo(np.float32).tiny)
        return self.matmat(found), found


def evened(met: csr_matrix, items: int, exponent: float) -> csr_matrix:
    """Return X with rows scaled so that each counts `(n / mean n)^-exponent` in a squared error over all rows.

    Args:
        met: X, `[queries, columns]`; see `ease`.
        items: how many of the columns are items; n is their sum. Rows without any count once.
        exponent: >= 0; 0 changes nothing.
    """
    met_items = np.asarray(met[:, :items].sum(axis=1), np.float64).ravel()
    has_any = met_items > 0
    share = np.where(has_any, met_items / met_items[has_any].mean() if has_any.any() else 1, 1)
    return (diags_array((share ** (-exponent / 2)).astype(met.dtype)) @ met).tocsr()


def ease(met: csr_matrix, regularization_weight: float, items: int | None = None) -> ItemWeights:
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
    inverse = RegularizedInverse(met, np.full(met.shape[1], float(regularization_weight)), items)
    return ItemWeights(inverse, np.ones(len(inverse.diagonal)), 1 / inverse.diagonal)


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
    return ridge(met, _dropout_penalty(met, dropout_rate, regularization_weight), queries).astype(np.float32)


def ridge(met: csr_matrix, penalty: Array, targets: NDArray[np.floating]) -> Array:
    """Return the weights of a ridge regression, `(X^T X + diag(penalty))^-1 X^T targets`, `[columns, k]`, float64.

    Args:
        met: X, `[rows, columns]`, float.
        penalty: `[columns]`, float64, > 0.
        targets: `[rows, k]`.

    Raises:
        SettingError: see `RegularizedInverse`.
    """
    gram, is_dual = _regularized_gram(met, penalty)
    factor, wide = _factor(gram), targets.astype(np.float64)
    solution, _ = lapack.dpotrs(factor, wide if is_dual else met.T @ wide, lower=1)
    return (met.T @ solution) / penalty[:, None] if is_dual else solution


def dlae(met: csr_matrix, dropout_rate: float, regularization_weight: float, items: int | None = None) -> ItemWeights:
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
    inverse = RegularizedInverse(met, penalty, items)
    # W = 1 - P L, so that 1 - W(j, j) = P(j, j) L(j)
    return ItemWeights(inverse, inverse.diagonal * penalty[:items], penalty[:items])


def low_rank(weights: ItemWeights, dim: int, seed: int) -> tuple[Float32, Float32]:
    """Return the two tables whose product best replaces the weights on the training histories.

    `E = W V` and `V`, where V are the top right singular vectors of X W: of all E, V of this rank, `X E V^T` is the one
    closest to X W in the squared error (Eckart and Young 1936). They are found by a randomized range finder in the
    smaller of the two spaces, with LU factors instead of orthonormal ones between its steps.

    Reference:
        Halko, Martinsson and Tropp 2011, arXiv:0909.4061, Alg. 4.4 and 5.3.

    Args:
        weights: W, `[columns, items]`.
        dim: rank; more than the number of query entities or of items adds nothing.
        seed: of the first directions.

    Returns:
        What each column of X adds to a query's vector, E, `[columns, dim]`, and the vector that an item is found by, V,
        `[items, dim]`; float32. The directions that explain most come first: the first d columns are those of rank d.
    """
    predictions = weights.predictions()
    size = predictions.shape[0], min(dim + OVERSAMPLING, predictions.shape[0], weights.shape[1])
    found = np.random.default_rng([seed, 17]).normal(size=size).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        predicted = predictions.matmat(found)
        with _one_thread():
            found, _ = lu(predicted, permute_l=True, check_finite=False)
    with _one_thread():
        found, _ = np.linalg.qr(found)
    within = found.T @ predictions.matmat(found)
    with _one_thread():
        _, rotation = np.linalg.eigh(within)
    return weights.tables(found @ rotation[:, : -dim - 1 : -1])


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
    gram = wide.T @ wide
    with _one_thread():
        energies, basis = np.linalg.eigh(gram)
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
    with _one_thread(), ThreadPoolExecutor(cores) as threads:
        for _ in threads.map(solve, pieces):
            pass
    return (found @ basis.T).astype(np.float32)


def _one_thread() -> AbstractContextManager:
    """Keep BLAS on one thread: with some hundred columns a second one gains nothing, and on a busy machine it is late.

    With both cores in use, eigenvectors of 512 columns took 560 ms with two threads and 28 ms with one.
    """
    return _blas().limit(limits=1, user_api="blas")


@cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """Return the libraries that compute, which take milliseconds to find."""
    return threadpoolctl.ThreadpoolController()


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


def _regularized_gram(met: csr_matrix, penalty: Array) -> tuple[Array, bool]:
    """Return the smaller of `X^T X + L` and `I + X L^-1 X^T`, and whether it is the second, the dual form."""
    if beyond := obstacle(*met.shape):
        raise SettingError(f"{beyond} Take the objective 'all_items', which inverts nothing.")
    met = met.astype(np.float64)
    is_dual = met.shape[0] < met.shape[1]
    gram = _gram((met @ diags_array(penalty**-0.5)).T.tocsr() if is_dual else met)
    gram.flat[:: len(gram) + 1] += 1 if is_dual else penalty
    return gram, is_dual


def _symmetric(size: int, multiply: Callable[[Float32], Float32]) -> LinearOperator:
    return LinearOperator((size, size), matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=np.float32)


def _dual_diagonal(met: csr_matrix, penalty: Array, inverse: Array, items: int | None) -> Array:
    """Return the first places on the diagonal of P, from K; see `RegularizedInverse`."""
    by_item, penalty = met[:, :items].tocsc(), penalty[:items]
    explained = np.zeros(by_item.shape[1])
    for item, (start, end) in enumerate(pairwise(by_item.indptr)):
        queries, weights = by_item.indices[start:end], by_item.data[start:end]
        explained[item] = weights @ inverse[queries[:, None], queries] @ weights
    return (1 - explained / penalty) / penalty


def _gram(matrix: csr_matrix) -> Array:
    """Return `matrix^T matrix`, dense."""
    by_column = matrix.T.tocsr()
    gram = np.empty((matrix.shape[1],) * 2)
    for start in range(0, len(gram), BLOCK):
        gram[start : start + BLOCK] = (by_column[start : start + BLOCK] @ matrix).toarray()
    return gram


def _factor(matrix: Array) -> Array:
    """Return the Cholesky factor of a symmetric, positive definite matrix, which is overwritten, in its lower half."""
    # Symmetric, so that its transpose, which LAPACK can overwrite, is the same matrix.
    factor, is_broken = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if is_broken:
        advice = "Some items were always met together; take a larger weight."
        got = verbatim("a value for which the matrix has no inverse")
        raise SettingError(describe("regularization_weight", got, "a larger one", advice))
    return factor


def _inverted(matrix: Array) -> Array:
    """Return the inverse of a symmetric, positive definite matrix, which is overwritten."""
    inverse, _ = lapack.dpotri(_factor(matrix), lower=1, overwrite_c=1)
    upper = inverse.T
    for start in range(0, len(upper), BLOCK):
        rows = slice(start, start + BLOCK)
        on_diagonal = np.triu(upper[rows, rows])
        upper[rows, rows] = on_diagonal + np.triu(on_diagonal, 1).T
        upper[start + BLOCK :, rows] = upper[rows, start + BLOCK :].T
    return upper
