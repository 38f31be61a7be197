"""Settings that all objectives in closed form share: how features take part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from scipy.sparse import csr_matrix

from recsys import registry
from recsys.registry import combinations, settings
from recsys.search_space import OneOf
from recsys.types import Float32
from twintower.errors import unknown


def solved_kind(kind: str) -> str:
    """Return the kind of an objective that reads `matrix`.

    Raises:
        ValueError: there is none of this kind.
    """
    kinds = registry.names("objectives")
    solved = [each for each in kinds if registry.choice("objectives", each).reads == "matrix"]
    if kind not in solved:
        raise ValueError(f"an objective that reads 'matrix': {unknown('objective', kind, solved)}")
    return kind


@settings()
class ColdStart:
    """How items without interactions, or with few, get vectors from their features; see `training.solutions`.

    Attributes:
        regularization_weight: weights of the squared length of the features' tables, to try; the one that best predicts
            the vectors of a fifth of the items from the others is taken.
        length: lengths of predicted vectors to try, as shares (0..1) of the length of items that are liked as much. The
            longer, the more items without interactions are shown, instead of others. The first one that costs no more
            than half a percent of the best metric on the validation cases is taken; where these name items with and
            without interactions, of the metric of the former.
        residual_shrinkage: k, to try: an item with n interactions keeps n / (n + k) of what the features do not
            explain; 0 keeps all. That turns its vector, which keeps its length: the larger k, the more alike are items
            that share features. Chosen in the same way.
    """

    regularization_weight: tuple[PositiveFloat, ...] = Field(default=(0.3, 1.0, 3.0, 10.0, 30.0), min_length=1)
    length: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1), min_length=1
    )
    residual_shrinkage: tuple[NonNegativeFloat, ...] = Field(default=(0.0, 1.0, 5.0), min_length=1)

    def candidates(self, *names: str) -> tuple[ColdStart, ...]:
        """Return one choice for each combination of some settings to try."""
        return combinations(self, *names)


@settings()
class Solved(ABC):
    """An objective that reads `matrix`: it is solved at once, without training steps.

    Attributes:
        query_feature_weight: factors of the query features as inputs beside the history, to try where there are any.
        cold_start: how items without interactions, or with few, get vectors from their features.
    """

    reads: ClassVar[str] = "matrix"
    unit_length: ClassVar[bool] = False
    own: ClassVar[tuple[tuple[str, ...], ...]]
    """The settings of the linear model itself, in groups: each is chosen after those before it."""

    query_feature_weight: Annotated[tuple[NonNegativeFloat, ...], OneOf((0.0, 0.3, 1.0, 3.0))] = Field(
        default=(1.0, 3.0, 0.3, 0.0), min_length=1
    )
    cold_start: ColdStart = Field(default_factory=ColdStart)

    def paths(self) -> tuple[Path, ...]:
        """Return the files, other than the source, that training reads: none."""
        return ()

    def candidates(self, *names: str) -> tuple[Solved, ...]:
        """Return one choice for each combination of some settings to try; without names, of those chosen first."""
        return combinations(self, *(names or self.own[0]))

    @abstractmethod
    def solve(self, met: csr_matrix, items: int, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return what each column adds to a query's vector, and the vector that each item is found by.

        The first value of each setting to try counts.

        Args:
            met: `[queries, columns]`, float32: how much each query entity met each item, then its features as numbers.
            items: how many of the columns are items. The others predict, and are not predicted.
            dim: length of the vectors, at most.
            seed: of every draw.

        Returns:
            `[columns, up to dim]` and `[items, up to dim]`, float32, the directions that explain most first; a query's
            vector is the sum over its columns.

        Raises:
            SettingError: the data are too large for a closed form, or the settings have no solution.
        """
