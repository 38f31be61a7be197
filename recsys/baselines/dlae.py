"""A linear autoencoder trained with dropout, all of its rank."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat

from recsys import linear_models
from recsys.baselines import Histories, Scorer, linear_scorer
from recsys.registry import combinations, settings


@settings()
class Dlae:
    """DLAE: a linear model that rebuilds each history from a random part of it, in closed form.

    Items that the history says nothing about have the score 0; they are ordered by popularity.

    Reference:
        Steck 2020, NeurIPS 33; see `recsys.linear_models.dlae`.

    Attributes:
        dropout_rate: shares (0..1) of the history that is hidden, to try.
        regularization_weight: weights of the squared length of the item-to-item weights, to try.
    """

    reads_history: ClassVar[bool] = True

    dropout_rate: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.5,), min_length=1)
    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(50.0, 200.0, 10.0, 800.0), min_length=1)

    def candidates(self) -> tuple[Dlae, ...]:
        """Return one choice for each combination of settings to try."""
        return combinations(self, "dropout_rate", "regularization_weight")

    def obstacle(self, queries: int, items: int) -> str:
        """Return the limit of closed forms where the data are beyond it."""
        return linear_models.obstacle(queries, items)

    def fit(self, training: Histories) -> Scorer:
        """Invert the items' co-occurrences; see `Baseline.fit`."""
        weights = linear_models.dlae(training.met, self.dropout_rate[0], self.regularization_weight[0])
        return linear_scorer(weights, training)
