"""Matrix factorization by alternating least squares."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from recsys import linear_models
from recsys.baselines import Histories, Scorer, popularity_background
from recsys.registry import combinations, settings
from recsys.types import Float32


@settings()
class Ials:
    """iALS with frequency-scaled regularization: matrix factorization with a quadratic loss over all pairs.

    Each query's vector is solved from its history, so that query entities unknown to training have one, too. A query
    without a history gets the most popular items.

    Reference:
        Rendle et al. 2022, arXiv:2110.14037, nu = 1; see `recsys.linear_models.ials`.

    Attributes:
        dim: lengths of the vectors, to try.
        unobserved_weight: weights of every pair, alpha0, to try; that of a pair that was met is 1 more.
        regularization_weight: weights lambda of the vectors' squared lengths, to try: small ones suit many
            interactions, large ones few.
        epochs: sweeps over queries and items.
        seed: of the first vectors.
    """

    reads_history: ClassVar[bool] = True

    dim: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    unobserved_weight: tuple[PositiveFloat, ...] = Field(default=(0.1, 0.3, 1.0), min_length=1)
    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(0.01, 0.1, 0.003, 0.03), min_length=1)
    epochs: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)

    def candidates(self) -> tuple[Ials, ...]:
        """Return one choice for each combination of settings to try."""
        return combinations(self, "dim", "unobserved_weight", "regularization_weight")

    def obstacle(self, queries: int, items: int) -> str:
        """Return nothing: time and memory grow with the interactions, not with the catalog's square."""
        return ""

    def fit(self, training: Histories) -> Scorer:
        """Factorize; see `Baseline.fit`."""
        weights = self.unobserved_weight[0], self.regularization_weight[0]
        vectors = linear_models.ials(training.met, self.dim[0], *weights, self.epochs, self.seed)
        background = popularity_background(training)

        def score(histories: Histories) -> Float32:
            scores = linear_models.regressed(histories.met, vectors, *weights) @ vectors.T
            without_history = np.diff(histories.met.indptr) == 0
            scores[without_history] = background
            return scores

        return score
