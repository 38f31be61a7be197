"""Objectives are numbers to minimise; one file is one `kind` of `objective` in the section that trains with it.

A choice has one verb, `loss`, a pure function of tensors, and says with `reads` what it compares:

* for the main task (`[objective]`): `pairs` of queries and items, or `sets`, all that a query entity has met with the
  whole catalog or a sample of it; `matrix`, all interactions at once, has `solve` instead of `loss`: it needs no
  training steps. Its `unit_length` says whether the towers' vectors are compared at unit length, or raw;
* for the second task (`[self_supervision.objective]`): `views` of the same rows;
* for reformulators (`[reformulation.objective]`): `revisions` of one query.

To add one, write `objectives/<kind>.py`; the contract tests check its gradient against finite differences and that
eager and graph agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scipy.sparse import csr_matrix

from recsys.objectives._solved import ColdStart
from recsys.stack import tf
from recsys.types import Float32

MASKED = -1e9
"""Added to a logit, it takes a candidate out of a softmax."""


class SetObjective(Protocol):
    """The contract of an objective that reads `sets`.

    Attributes:
        unit_length: whether vectors are compared at unit length; otherwise lengths carry meaning, such as popularity.
        exact_items: the largest catalog that each step reads as a whole.
        sampled_items: size of the uniform sample that stands for a larger one.
        regularization_weight: weight of the squares of the vectors of items, in histories and by id.
        feature_regularization_weight: weight of the squares of all other weights.
        regularization_exponent: 0 regularizes all rows of a table alike, 1 in proportion to how often each is trained.
    """

    unit_length: bool
    exact_items: int
    sampled_items: int
    regularization_weight: float
    feature_regularization_weight: float
    regularization_exponent: float

    def loss(
        self,
        queries: tf.Tensor,
        items: tf.Tensor,
        owner: tf.Tensor,
        column: tf.Tensor,
        weight: tf.Tensor,
        stands_for: tf.Tensor,
    ) -> tf.Tensor:
        """Return a scalar, float32.

        Args:
            queries: `[batch, dim]`, float32.
            items: `[candidates, dim]`, float32.
            owner: `[pairs]`, int32, ascending: the query of each pair of a query and an item that it met.
            column: `[pairs]`, int32: the item's place among the candidates; distinct for one query.
            weight: `[pairs]`, float32, >= 0.
            stands_for: `[candidates]`, float32, >= 0: how many items of the catalog each candidate stands for; 0 for
                one that is there as an own item only.
        """


class Solvable(Protocol):
    """The contract of an objective that reads `matrix`; `recsys.objectives._solved.Solved` has the common settings.

    Attributes:
        query_feature_weight: factors of the query features as inputs beside the history, to try.
        cold_start: how the item features take part.
    """

    query_feature_weight: tuple[float, ...]
    cold_start: ColdStart

    def candidates(self, *names: str) -> Sequence[Solvable]:
        """Return one objective for each combination of some settings to try; without names, those of the model."""

    def solve(self, met: csr_matrix, items: int, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return what each column adds to a query's vector, and the vector that each item is found by.

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
