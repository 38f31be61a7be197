"""A linear autoencoder without self-weights, all of its rank."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveFloat

from recsys import linear_models
from recsys.baselines import Histories, Scorer, linear_scorer
from recsys.registry import combinations, settings


@settings()
class Ease:
    """EASE: a linear model that rebuilds each history from its other items, in closed form.

    Items that the history says nothing about have the score 0; they are ordered by popularity.

    Reference:
        Steck 2019, arXiv:1905.03375; see `recsys.linear_models.ease`.

    Attributes:
        regularization_weight: weights of the squared length of the item-to-item weights, to try. It is added to each
            item's count of query entities, so that more data wants more of it.
    """

    reads_history: ClassVar[bool] = True

    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(250.0, 20.0, 100.0, 750.0), min_length=1)

    def candidates(self) -> tuple[Ease, ...]:
        """Return one choice for each weight to try."""
        return combinations(self, "regularization_weight")

    def obstacle(self, queries: int, items: int) -> str:
        """Return the limit of closed forms where the data are beyond it."""
        return linear_models.obstacle(queries, items)

    def fit(self, training: Histories) -> Scorer:
        """Invert the items' co-occurrences; see `Baseline.fit`."""
        return linear_scorer(linear_models.ease(training.met, self.regularization_weight[0]), training)
