"""A linear autoencoder trained with dropout in closed form, cut to the tower's dimensions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from scipy.sparse import csr_matrix

from recsys import linear_models
from recsys.objectives._solved import Solved
from recsys.registry import settings
from recsys.search_space import Between
from recsys.types import Float32


@settings()
class Dlae(Solved):
    """DLAE: each history is rebuilt from a random part of itself. Solved at once, without training steps.

    Reference:
        Steck 2020, NeurIPS 33; see `recsys.linear_models.dlae` and `low_rank`.

    Every combination of the settings to try is solved; the one that is best on the validation cases is taken.

    Attributes:
        dropout_rate: shares (0..1) of the history that is hidden, to try.
        regularization_weight: weights of the squared length of the item-to-item weights, to try.
        query_exponent: exponents to try: a query entity with n items counts `(n / mean n)^-exponent` in the squared
            error. 0 counts all once, so that those with long histories, which have most errors, decide.
    """

    own: ClassVar[tuple[tuple[str, ...], ...]] = (("dropout_rate", "regularization_weight"), ("query_exponent",))

    dropout_rate: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Between(0.1, 0.8)] = Field(
        default=(0.5,), min_length=1
    )
    regularization_weight: Annotated[tuple[PositiveFloat, ...], Between(3.0, 2000.0, log=True)] = Field(
        default=(50.0, 200.0, 10.0, 800.0), min_length=1
    )
    query_exponent: Annotated[tuple[NonNegativeFloat, ...], Between(0.0, 1.0)] = Field(
        default=(0.5, 0.0, 1.0), min_length=1
    )

    def solve(self, met: csr_matrix, items: int, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the vectors of all columns and those that items are found by, of the first settings to try."""
        met = linear_models.evened(met, items, self.query_exponent[0])
        weights = linear_models.dlae(met, self.dropout_rate[0], self.regularization_weight[0], items)
        return linear_models.low_rank(weights, dim, seed)
