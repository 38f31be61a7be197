"""iALS solves each of its least squares problems exactly, so that its objective only falls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys.linear_models import history_map, ials, regressed
from recsys.objectives.ials import Ials

ALPHA, LAMBDA = 0.3, 0.05


def weights_at_random(shape: tuple[int, int], seed: int = 0, density: float = 0.3) -> sparse.csr_array:
    random = np.random.default_rng(seed)
    return sparse.csr_array((random.random(shape) < density) * random.uniform(0.5, 2, shape)).astype(np.float32)


def solved_densely(met: np.ndarray, others: np.ndarray, alpha: float, weight: float) -> np.ndarray:
    """Return the row vectors by the formula, one dense system a row, in float64."""
    everywhere, found = alpha * others.T @ others, []
    for row in met.astype(np.float64):
        penalty = weight * (row.sum() + alpha * len(row)) * np.eye(others.shape[1])
        found.append(np.linalg.solve(everywhere + (others.T * row) @ others + penalty, others.T @ row))
    return np.array(found)


def objective(met: np.ndarray, queries: np.ndarray, items: np.ndarray) -> float:
    """Return the value that iALS minimizes, term by term."""
    scores = queries @ items.T
    query_n, item_n = met.sum(axis=1) + ALPHA * met.shape[1], met.sum(axis=0) + ALPHA * met.shape[0]
    lengths = query_n @ (queries**2).sum(axis=1) + item_n @ (items**2).sum(axis=1)
    return float((met * (scores - 1) ** 2).sum() + ALPHA * (scores**2).sum() + LAMBDA * lengths)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    dim=st.integers(1, 8),
    density=st.floats(0, 1),
    alpha=st.sampled_from([0.01, 0.3, 2.0]),
    weight=st.sampled_from([0.003, 0.1]),
    seed=st.integers(0, 99),
)
def test_each_vector_is_the_dense_solution_for_histories_shorter_and_longer_than_the_dimensions(
    rows, columns, dim, density, alpha, weight, seed
):
    met = weights_at_random((rows, columns), seed, density)
    others = np.random.default_rng(seed).normal(size=(columns, dim)).astype(np.float32)
    expected = solved_densely(met.toarray(), others.astype(np.float64), alpha, weight)
    np.testing.assert_allclose(regressed(met, others, alpha, weight), expected, rtol=0, atol=2e-3)


def test_more_rows_than_are_solved_at_once_are_solved_alike(monkeypatch):
    met, others = weights_at_random((40, 20)), np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    at_once = regressed(met, others, ALPHA, LAMBDA)
    monkeypatch.setattr("recsys.linear_models.GATHERED", 1)
    np.testing.assert_allclose(regressed(met, others, ALPHA, LAMBDA), at_once, rtol=0, atol=1e-5)


def test_a_row_without_columns_gets_zeros():
    met = sparse.csr_array(np.array([[1, 0, 2], [0, 0, 0], [0, 1, 0]], np.float32))
    found = regressed(met, np.ones((3, 2), np.float32), ALPHA, LAMBDA)
    assert (found != 0).any(axis=1).tolist() == [True, False, True]


def test_no_epoch_raises_the_objective():
    met = weights_at_random((40, 25))
    values = []
    for epochs in range(1, 8):
        items = ials(met, 4, ALPHA, LAMBDA, epochs)
        queries = regressed(met, items, ALPHA, LAMBDA)
        values.append(objective(met.toarray(), queries, items))
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_it_is_alternating_least_squares_from_small_normal_vectors():
    met = weights_at_random((12, 9))
    # Given enough epochs, the fixed point does not depend on how precisely the sweeps were computed.
    items = ials(met, 3, ALPHA, LAMBDA, epochs=200)
    queries = solved_densely(met.toarray(), items.astype(np.float64), ALPHA, LAMBDA)
    again = solved_densely(met.toarray().T, queries, ALPHA, LAMBDA)
    np.testing.assert_allclose(again, items, rtol=0, atol=1e-3)


def test_the_seed_decides_the_vectors():
    met = weights_at_random((30, 20))
    first, again, other = (ials(met, 4, ALPHA, LAMBDA, epochs=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("dim", [3, 30])
def test_a_pair_that_was_met_is_scored_above_the_others(dim):
    met = np.kron(np.eye(3), np.ones((6, 5))).astype(np.float32)
    items = ials(sparse.csr_array(met), dim, 0.1, 0.01)
    scores = regressed(sparse.csr_array(met), items, 0.1, 0.01) @ items.T
    assert scores[met > 0].min() > scores[met == 0].max()


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)], ids=["primal", "dual"])
def test_the_history_map_is_the_ridge_regression_that_dropout_amounts_to(shape):
    met, rate, weight = weights_at_random(shape), 0.4, 1.5
    queries = np.random.default_rng(2).normal(size=(shape[0], 3)).astype(np.float32)
    dense = met.toarray().astype(np.float64)
    # Hiding a share p of the inputs adds p / (1 - p) times their energy to the diagonal.
    penalty = np.diag((dense**2).sum(axis=0) * rate / (1 - rate) + weight)
    expected = np.linalg.solve(dense.T @ dense + penalty, dense.T @ queries)
    np.testing.assert_allclose(history_map(met, queries, rate, weight), expected, rtol=0, atol=1e-5)


def test_the_objective_gives_both_sides_the_same_strength_and_leaves_scores_as_they_are():
    met = weights_at_random((60, 40), density=0.2)
    choice = Ials(unobserved_weight=(ALPHA,), regularization_weight=(0.01,))
    history, found = choice.solve(met, 40, 6, seed=3)
    items = ials(met, 6, ALPHA, 0.01, choice.epochs, 3)
    plain = history_map(
        met, regressed(met, items, ALPHA, 0.01), choice.dropout_rate, choice.history_regularization_weight
    )
    np.testing.assert_allclose(history @ found.T, plain @ items.T, atol=1e-5)
    # V = P S R with P and R orthogonal; the item vectors are P S^(1/2), so that their Gramian is S.
    np.testing.assert_allclose(found.T @ found, np.diag(np.linalg.svd(items, compute_uv=False)), atol=1e-4)
