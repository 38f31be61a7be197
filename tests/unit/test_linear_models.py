"""Linear models in closed form equal their formulas, in either form of the inverse, and lose nothing at full rank."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys.linear_models import RegularizedInverse, dlae, ease, evened, expected_cost, low_rank, ridge
from twintower.errors import SettingError

MANY_QUERIES, MANY_ITEMS = (40, 15), (15, 40)


def met_at_random(shape: tuple[int, int]) -> sparse.csr_array:
    met = sparse.random_array(shape, density=0.25, rng=np.random.default_rng(3)).tocsr()
    met.data[:] = 1
    return met


def dense(operator) -> np.ndarray:
    return operator.matmat(np.eye(operator.shape[0]))


both_shapes = pytest.mark.parametrize("shape", [MANY_QUERIES, MANY_ITEMS], ids=["primal", "dual"])


@both_shapes
def test_the_inverse_is_that_of_the_regularized_gram_matrix(shape):
    met, penalty = met_at_random(shape), np.linspace(0.5, 3, shape[1])
    expected = np.linalg.inv(met.toarray().T @ met.toarray() + np.diag(penalty))
    inverse = RegularizedInverse(met, penalty)
    np.testing.assert_allclose(inverse.apply(np.eye(shape[1])), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(inverse.diagonal, np.diag(expected), rtol=1e-5)


@both_shapes
def test_a_ridge_regression_solves_its_normal_equations(shape):
    met, penalty = met_at_random(shape), np.linspace(0.5, 3, shape[1])
    targets = np.random.default_rng(0).normal(size=(shape[0], 3))
    expected = np.linalg.solve(met.toarray().T @ met.toarray() + np.diag(penalty), met.toarray().T @ targets)
    np.testing.assert_allclose(ridge(met, penalty, targets), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_rows_count_in_the_squared_error_by_the_inverse_of_their_length(exponent):
    met = sparse.csr_matrix(np.array([[1, 1, 1, 1, 5.0], [1, 0, 0, 0, 7.0], [0, 0, 0, 0, 3.0], [0, 1, 1, 2, 0.0]]))
    lengths = np.array([4, 1, 3, 4])  # the last column is a feature; the third row has no item and counts as the mean
    expected = (lengths / 3)[:, None] ** (-exponent / 2) * met.toarray()
    np.testing.assert_allclose(evened(met, 4, exponent).toarray(), expected, rtol=1e-12)


@both_shapes
def test_ease_is_steck_2019_equation_8(shape):
    met, weight = met_at_random(shape), 2.0
    inverse = np.linalg.inv(met.toarray().T @ met.toarray() + weight * np.eye(shape[1]))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    found = ease(met, weight)
    np.testing.assert_allclose(dense(found), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.rmatmat(np.eye(shape[1])), expected.T, rtol=0, atol=1e-5)


@both_shapes
def test_dlae_is_steck_2020_equation_4_without_its_diagonal(shape):
    met, rate, weight = met_at_random(shape), 0.4, 1.5
    gram = met.toarray().T @ met.toarray()
    penalty = np.diag(gram) * rate / (1 - rate) + weight
    expected = np.linalg.inv(gram + np.diag(penalty)) @ gram
    np.fill_diagonal(expected, 0)
    found = dlae(met, rate, weight)
    np.testing.assert_allclose(dense(found), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.rmatmat(np.eye(shape[1])), expected.T, rtol=0, atol=1e-5)


@both_shapes
def test_at_full_rank_the_tables_score_as_the_weights_do(shape):
    met = met_at_random(shape)
    weights = ease(met, 2.0)
    history, found = low_rank(weights, min(shape), seed=0)
    np.testing.assert_allclose(met @ history @ found.T, met @ dense(weights), rtol=0, atol=1e-5)


def test_a_lower_rank_is_as_close_as_the_best_one():
    met = met_at_random((200, 60))
    weights = ease(met, 5.0)
    wanted = met @ dense(weights)
    history, found = low_rank(weights, 10, seed=0)
    # Eckart and Young: the best rank-10 matrix leaves the energy of the other singular values.
    best = np.sqrt((np.linalg.svd(wanted, compute_uv=False)[10:] ** 2).sum())
    assert np.linalg.norm(met @ history @ found.T - wanted) <= 1.01 * best


def test_more_dimensions_than_directions_are_left_empty():
    history, found = low_rank(ease(met_at_random((6, 9)), 1.0), 32, seed=0)
    assert history.shape == found.shape == (9, 6)


def test_items_that_were_always_met_together_want_a_larger_weight():
    met = sparse.csr_array(np.ones((9, 4)))
    with pytest.raises(SettingError, match="larger"):
        ease(met, 1e-300)


@both_shapes
@pytest.mark.parametrize("model", [lambda *a: ease(a[0], 2.0, *a[1:]), lambda *a: dlae(a[0], 0.4, 1.5, *a[1:])])
def test_columns_that_are_no_items_predict_and_are_not_predicted(shape, model):
    met, items = met_at_random(shape), shape[1] - 4
    whole, cut = dense(model(met)), model(met, items)
    assert cut.shape == (shape[1], items)
    np.testing.assert_allclose(cut.matmat(np.eye(items)), whole[:, :items], rtol=0, atol=1e-5)
    np.testing.assert_allclose(cut.rmatmat(np.eye(shape[1])), whole[:, :items].T, rtol=0, atol=1e-5)
    columns, found = low_rank(cut, min(shape[0], items), seed=0)
    np.testing.assert_allclose(met @ columns @ found.T, met @ whole[:, :items], rtol=0, atol=1e-5)


def test_the_first_columns_of_a_solution_are_that_of_a_lower_rank():
    met = met_at_random((200, 60))
    weights = ease(met, 5.0)
    (history, found), (fewer, fewer_found) = (low_rank(weights, dim, seed=0) for dim in (20, 5))
    np.testing.assert_allclose(met @ history[:, :5] @ found[:, :5].T, met @ fewer @ fewer_found.T, rtol=0, atol=5e-3)


def test_time_grows_with_the_cube_of_the_matrix_and_memory_with_its_square():
    seconds, gib = expected_cost(10_000, 1)
    # Measured at 10,000 items on one core: 28.8 s and 2.4 GiB.
    assert seconds == pytest.approx(28.8, rel=0.05)
    assert gib == pytest.approx(2.4, rel=0.05)
    assert expected_cost(20_000, 3) == pytest.approx((3 * 8 * seconds, 4 * gib))
