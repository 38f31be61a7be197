"""A linear autoencoder without self-weights in closed form, cut to the tower's dimensions."""

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
class Ease(Solved):
    """EASE: each history is rebuilt from its other items. Solved at once, without training steps.

    Reference:
        Steck 2019, arXiv:1905.03375; see `recsys.linear_models.ease` and `low_rank`.

    Attributes:
        regularization_weight: weights of the squared length of the item-to-item weights to try; the one that is best
            on the validation cases is taken. It is added to each item's count of query entities, so that more data
            wants more of it.
        query_exponent: exponents to try: a query entity with n items counts `(n / mean n)^-exponent` in the squared
            error. 0 counts all once, so that those with long histories, which have most errors, decide.
    """

    own: ClassVar[tuple[tuple[str, ...], ...]] = (("regularization_weight",), ("query_exponent",))

    regularization_weight: Annotated[tuple[PositiveFloat, ...], Between(5.0, 3000.0, log=True)] = Field(
        default=(20.0, 100.0, 500.0, 1000.0), min_length=1
    )
    query_exponent: Annotated[tuple[NonNegativeFloat, ...], Between(0.0, 1.0)] = Field(
        default=(0.5, 0.0, 1.0), min_length=1
    )

    def solve(self, met: csr_matrix, items: int, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the vectors of all columns and those that items are found by, of the first settings to try."""
        met = linear_models.evened(met, items, self.query_exponent[0])
        weights = linear_models.ease(met, self.regularization_weight[0], items)
        return linear_models.low_rank(weights, dim, seed)
