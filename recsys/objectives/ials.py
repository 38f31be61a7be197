"""Matrix factorization by alternating least squares, its query vectors read off the history."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveFloat
from scipy.sparse import csr_matrix

from recsys import linear_models
from recsys.registry import settings
from recsys.types import Float32


@settings()
class Ials:
    """iALS: a quadratic loss over all pairs with frequency-scaled regularization. Solved without training steps.

    Its item vectors are what items are found by. A query's vector is a sum over its history, by the linear map that
    best predicts the factorization's own query vectors from random parts of the histories.

    Reference:
        Rendle et al. 2022, arXiv:2110.14037, nu = 1; see `recsys.linear_models.ials` and `history_map`.

    Every combination of the settings to try is solved; the one that is best on the validation cases is taken.

    Attributes:
        unobserved_weight: weights of every pair, alpha0, to try; that of a pair that was met is 1 more.
        regularization_weight: weights lambda of the vectors' squared lengths, to try.
        epochs: sweeps over query entities and items.
        dropout_rate: share (0..1) of the history that is hidden when the map is fitted.
        history_regularization_weight: weight of the map's squared length.
    """

    reads: ClassVar[str] = "matrix"

    unobserved_weight: tuple[PositiveFloat, ...] = Field(default=(0.1, 0.3), min_length=1)
    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(0.003, 0.01), min_length=1)
    epochs: int = Field(default=16, ge=1)
    dropout_rate: float = Field(default=0.5, gt=0, lt=1)
    history_regularization_weight: float = Field(default=50.0, gt=0)

    def paths(self) -> tuple[Path, ...]:
        """Return the files that training reads besides the source: none."""
        return ()

    def candidates(self) -> tuple[Ials, ...]:
        """Return one choice for each combination of settings to try."""
        combinations = itertools.product(self.unobserved_weight, self.regularization_weight)
        return tuple(
            replace(self, unobserved_weight=(unobserved,), regularization_weight=(weight,))
            for unobserved, weight in combinations
        )

    def solve(self, met: csr_matrix, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the tables of the history and of the items, of the first settings; see `linear_models.history_map`."""
        weights = self.unobserved_weight[0], self.regularization_weight[0]
        items = linear_models.ials(met, dim, *weights, self.epochs, seed)
        queries = linear_models.regressed(met, items, *weights)
        history = linear_models.history_map(met, queries, self.dropout_rate, self.history_regularization_weight)
        return history, items
