"""Matrix factorization by alternating least squares, its query vectors read off the history."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.sparse import csr_matrix

from recsys import linear_models
from recsys.objectives._solved import Solved
from recsys.registry import settings
from recsys.search_space import Between
from recsys.types import Float32

SMALLEST = 1e-12
"""Strength of a direction that counts as one, so that a catalog whose vectors are all zeros stays so."""


@settings()
class Ials(Solved):
    """iALS: a quadratic loss over all pairs with frequency-scaled regularization. Solved without training steps.

    Its item vectors are what items are found by. A query's vector is a sum over its history, by the linear map that
    best predicts the factorization's own query vectors from random parts of the histories.

    Reference:
        Rendle et al. 2022, arXiv:2110.14037, nu = 1; see `recsys.linear_models.ials` and `history_map`.

    Validation chooses the regularization first, with the first of the weights of every pair, then the latter.

    Attributes:
        unobserved_weight: weights of every pair, alpha0, to try; that of a pair that was met is 1 more.
        regularization_weight: weights lambda of the vectors' squared lengths, to try.
        epochs: sweeps over query entities and items.
        dropout_rate: share (0..1) of the history that is hidden when the map is fitted.
        history_regularization_weight: weight of the map's squared length.
    """

    own: ClassVar[tuple[tuple[str, ...], ...]] = (("regularization_weight",), ("unobserved_weight",))

    unobserved_weight: Annotated[tuple[PositiveFloat, ...], Between(0.01, 1.0, log=True)] = Field(
        default=(0.1, 0.3, 1.0), min_length=1
    )
    regularization_weight: Annotated[tuple[PositiveFloat, ...], Between(0.0003, 0.1, log=True)] = Field(
        default=(0.01, 0.1, 0.003, 0.03), min_length=1
    )
    epochs: int = Field(default=16, ge=1)
    dropout_rate: float = Field(default=0.5, gt=0, lt=1)
    history_regularization_weight: float = Field(default=50.0, gt=0)

    def solve(self, met: csr_matrix, items: int, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the vectors of all columns and those that items are found by, of the first settings to try."""
        weights, of_items = (self.unobserved_weight[0], self.regularization_weight[0]), met[:, :items]
        found = linear_models.ials(of_items, dim, *weights, self.epochs, seed)
        queries = linear_models.regressed(of_items, found, *weights)
        # The directions that explain most first. Scores stay if one side is divided by what the other is multiplied
        # with: both get the root, or else the direction of popularity would make all frequent items look alike.
        _, strengths, rotation = np.linalg.svd(found, full_matrices=False)
        roots = np.sqrt(np.maximum(strengths, max(1e-6 * strengths[0], SMALLEST))).astype(np.float32)
        found, queries = found @ rotation.T / roots, queries @ rotation.T * roots
        return linear_models.history_map(met, queries, self.dropout_rate, self.history_regularization_weight), found
