"""Settings that all objectives in closed form share: how features take part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat

from recsys.registry import combinations, settings


@settings()
class ColdStart:
    """How items without interactions, or with few, get vectors from their features; see `training.solutions`.

    Attributes:
        regularization_weight: weights of the squared length of the features' tables, to try; the one that best predicts
            the vectors of a fifth of the items from the others is taken.
        length: lengths of predicted vectors to try, as shares (0..1) of the length of items that are liked as much. The
            longer, the more items without interactions are shown, instead of others. The first one that costs no more
            than half a percent of the best metric on the validation cases is taken.
        residual_shrinkage: k, to try: an item with n interactions keeps n / (n + k) of what the features do not
            explain; 0 keeps all. Chosen in the same way.
    """

    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(0.3, 1.0, 3.0, 10.0, 30.0), min_length=1)
    length: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1), min_length=1
    )
    residual_shrinkage: tuple[NonNegativeFloat, ...] = Field(default=(0.0, 1.0, 5.0), min_length=1)

    def candidates(self, *names: str) -> tuple[ColdStart, ...]:
        """Return one choice for each combination of some settings to try."""
        return combinations(self, *names)


@settings()
class Solved:
    """An objective that is solved at once, without training steps.

    Attributes:
        query_feature_weight: factors of the query features as inputs beside the history, to try where there are any.
        cold_start: how the item features take part.
    """

    reads: ClassVar[str] = "matrix"
    unit_length: ClassVar[bool] = False
    own: ClassVar[tuple[str, ...]]
    """The settings of the linear model itself."""

    query_feature_weight: tuple[NonNegativeFloat, ...] = Field(default=(1.0, 3.0, 0.3, 0.0), min_length=1)
    cold_start: ColdStart = Field(default_factory=ColdStart)

    def paths(self) -> tuple[Path, ...]:
        """Return the files, other than the source, that training reads: none."""
        return ()

    def candidates(self, *names: str) -> tuple[Solved, ...]:
        """Return one choice for each combination of some settings to try; without names, those of the model itself."""
        return combinations(self, *(names or self.own))
