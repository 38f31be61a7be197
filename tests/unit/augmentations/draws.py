"""Features by name and many drawn masks, for the tests of augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.stack import tf
from recsys.views import Fields, Views


def make_fields(
    names: str, ids: str = "", bags: str = "", dependence: Sequence[Sequence[float]] | np.ndarray | None = None
) -> Fields:
    """Return features of which each name is a letter; `dependence` is the same by every measure."""
    matrix = np.zeros((len(names), len(names))) if dependence is None else np.asarray(dependence, np.float64)
    return Fields(tuple(names), frozenset(ids), frozenset(bags), lambda measure, weighted_by: matrix)


def random_dependence(count: int, seed: int) -> np.ndarray:
    """Return a symmetric matrix without two equal numbers off its diagonal, `[count, count]`."""
    upper = np.triu(np.random.default_rng(seed).permutation(count * count).reshape(count, count) + 1.0, 1)
    return upper + upper.T


def with_id(dependence: Sequence[Sequence[float]] | np.ndarray, place: int) -> np.ndarray:
    """Return the matrix with one feature more, which tells more of each than any other does."""
    matrix = np.asarray(dependence, np.float64)
    most = matrix.max() + 1
    return np.insert(np.insert(matrix, place, most, axis=0), place, most, axis=1)


def draw_masks(augmentation: Any, fields: Fields, draws: int, *, rows: int = 1) -> np.ndarray:
    """Return the masks of two views for that many seeds, `[draws, views, rows or 1, features]`, bool."""
    codes = {name: tf.zeros(rows, tf.int32) for name in fields.names}

    @tf.function
    def drawn(seed: tf.Tensor) -> tf.Tensor:
        return augmentation.augment(Views.of(codes, 2), fields, seed).masked

    return np.stack([drawn(tf.constant([seed, 7])).numpy() for seed in range(draws)])
