"""A linear autoencoder trained with dropout in closed form, cut to the tower's dimensions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat
from scipy.sparse import csr_matrix

from recsys import linear_models
from recsys.registry import settings
from recsys.types import Float32


@settings()
class Dlae:
    """DLAE: each history is rebuilt from a random part of itself. Solved at once, without training steps.

    Reference:
        Steck 2020, NeurIPS 33; see `recsys.linear_models.dlae` and `low_rank`.

    Every combination of the settings to try is solved; the one that is best on the validation cases is taken.

    Attributes:
        dropout_rate: shares (0..1) of the history that is hidden, to try.
        regularization_weight: weights of the squared length of the item-to-item weights, to try.
    """

    reads: ClassVar[str] = "matrix"

    dropout_rate: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.5,), min_length=1)
    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(10.0, 50.0, 200.0), min_length=1)

    def paths(self) -> tuple[Path, ...]:
        """Return the files that training reads besides the source: none."""
        return ()

    def candidates(self) -> tuple[Dlae, ...]:
        """Return one choice for each combination of settings to try."""
        combinations = itertools.product(self.dropout_rate, self.regularization_weight)
        return tuple(
            replace(self, dropout_rate=(rate,), regularization_weight=(weight,)) for rate, weight in combinations
        )

    def solve(self, met: csr_matrix, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the tables of the history and of the items, of the first settings; see `linear_models.low_rank`."""
        weights = linear_models.dlae(met, self.dropout_rate[0], self.regularization_weight[0])
        return linear_models.low_rank(met, weights, dim, seed)
