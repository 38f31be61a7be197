"""What objectives share that compare each query, with all items that it has met, with the catalog."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field, field_validator

from recsys.objectives import MASKED
from recsys.objectives._solved import solved_kind
from recsys.registry import settings
from recsys.search_space import OneOf
from recsys.stack import tf


class Sets(NamedTuple):
    """What the queries of a batch have met, and how the candidates stand for the catalog.

    Attributes:
        owner: `[pairs]`, int32, ascending: the query of each pair of a query and an item that it met.
        column: `[pairs]`, int32: the item's index among the candidates; distinct for one query.
        weight: `[pairs]`, float32, >= 0.
        stands_for: `[candidates]`, float32, >= 0: how many items of the catalog each candidate stands for; 0 for one
            that is there as an own item only.
    """

    owner: tf.Tensor
    column: tf.Tensor
    weight: tf.Tensor
    stands_for: tf.Tensor

    def own(self, scores: tf.Tensor) -> tf.Tensor:
        """Return the scores of the pairs, `[pairs]`, out of those of all candidates, `[queries, candidates]`."""
        return tf.gather_nd(scores, self._own_indices)

    def weighted_mean(self, losses: tf.Tensor) -> tf.Tensor:
        """Return the mean of the losses of the pairs, `[pairs]`, by their weights, which are not all 0; a scalar."""
        return tf.reduce_sum(self.weight * losses) / tf.reduce_sum(self.weight)

    def others_count(self, queries: tf.Tensor) -> tf.Tensor:
        """Return how many items that a query has not met each candidate stands for.

        Returns:
            `[queries, candidates]`, float32; 0 for a query's own items.
        """
        counts = tf.tile(self.stands_for[None, :], [tf.shape(queries)[0], 1])
        return tf.tensor_scatter_nd_update(counts, self._own_indices, tf.zeros(tf.shape(self.owner)[0]))

    def catalog_logits(self, logits: tf.Tensor) -> tf.Tensor:
        """Return logits whose softmax is that over the whole catalog, estimated from the candidates.

        A query's own items count once each; any other candidate counts as often as the catalog has items for it.

        Args:
            logits: `[queries, candidates]`, float32.
        """
        shift = tf.where(self.stands_for > 0, tf.math.log(tf.maximum(self.stands_for, 1e-9)), MASKED)
        return tf.tensor_scatter_nd_update(logits + shift, self._own_indices, self.own(logits))

    @property
    def _own_indices(self) -> tf.Tensor:
        return tf.stack([self.owner, self.column], axis=1)


@settings()
class SetObjective(ABC):
    """An objective that reads `sets`.

    Up to `exact_items` items a step reads the whole catalog, above a uniform sample and the own items of the batch.

    Attributes:
        exact_items: the largest catalog that each step reads as a whole.
        sampled_items: size of the sample above that.
        regularization_weight: weight of the squares of the vectors of items, in histories and by id.
        feature_regularization_weight: weight of the squares of all other weights.
        regularization_exponent: 0 regularizes all rows of a table alike, 1 in proportion to how often each is trained.
        weight: factor of this objective in the sum of objectives, unitless.
        start: kind of the objective in closed form whose solution training starts from, such as `dlae`; empty starts
            from random vectors. Its settings are chosen on the validation cases, and training that makes nothing
            better there keeps it.
    """

    reads: ClassVar[str] = "sets"
    unit_length: ClassVar[bool]
    """Whether vectors are compared at unit length; otherwise lengths carry meaning, such as popularity."""

    exact_items: int = Field(default=20_000, ge=1)
    sampled_items: int = Field(default=4_096, ge=1)
    regularization_weight: float = Field(default=0.0, ge=0)
    feature_regularization_weight: float = Field(default=0.0, ge=0)
    regularization_exponent: float = Field(default=0.0, ge=0, le=1)
    weight: float = Field(default=1.0, gt=0)
    start: Annotated[str, OneOf(("", "dlae"))] = ""

    @field_validator("start")
    @classmethod
    def _is_solved(cls, start: str) -> str:
        return start and solved_kind(start)

    def paths(self) -> tuple[Path, ...]:
        """Return the files, other than the source, that training reads: none."""
        return ()

    @abstractmethod
    def loss(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets) -> tf.Tensor:
        """Return a scalar, float32.

        Args:
            queries: `[batch, dim]`, float32, of unit length where `unit_length`.
            items: `[candidates, dim]`, float32, of unit length where `unit_length`.
            sets: what the queries have met.
        """
