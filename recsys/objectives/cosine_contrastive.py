"""SimpleX: own items at a cosine of 1, and only those others pushed away that lie within a margin."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from recsys.objectives._sets import others_count, own_places
from recsys.registry import settings
from recsys.stack import tf


@settings()
class CosineContrastive:
    """The main task: each query lies at its own items, and no nearer than a margin to all others.

    Up to `exact_items` items a step reads the whole catalog, above a uniform sample and the own items of the batch.

    Attributes:
        margin: cosine up to which another item costs nothing, -1..1.
        negative_weight: weight of the others' mean beside one own item.
        exact_items: the largest catalog that each step reads as a whole.
        sampled_items: size of the sample above that.
        regularization_weight: weight of the squares of the vectors of items, in histories and by id.
        feature_regularization_weight: weight of the squares of all other weights.
        regularization_exponent: 0 regularizes all rows of a table alike, 1 in proportion to how often each is trained.
        weight: factor of this objective in the sum of objectives, unitless.
    """

    reads: ClassVar[str] = "sets"
    unit_length: ClassVar[bool] = True

    margin: float = Field(default=0.4, ge=-1, le=1)
    negative_weight: float = Field(default=150.0, gt=0)
    exact_items: int = Field(default=20_000, ge=1)
    sampled_items: int = Field(default=4_096, ge=1)
    regularization_weight: float = Field(default=0.0, ge=0)
    feature_regularization_weight: float = Field(default=0.0, ge=0)
    regularization_exponent: float = Field(default=0.0, ge=0, le=1)
    weight: float = Field(default=1.0, gt=0)

    def paths(self) -> tuple[Path, ...]:
        """Return the files, other than the source, that training reads: none."""
        return ()

    def loss(
        self,
        queries: tf.Tensor,
        items: tf.Tensor,
        owner: tf.Tensor,
        column: tf.Tensor,
        weight: tf.Tensor,
        stands_for: tf.Tensor,
    ) -> tf.Tensor:
        """Return how far the queries are from their own items, and how near they come to others.

        `sum_(b,j) w_bj (1 - s_bj + negative_weight mean_k max(0, s_bk - margin)) / sum_(b,j) w_bj`, s = cosine, over
        all own items j of each query b; k are the items that b has not met.

        Reference:
            Mao et al. 2021, SimpleX, CIKM, arXiv:2109.12613, Eq. 1.

        Args:
            queries: `[batch, dim]`, float32, unit length.
            items: `[candidates, dim]`, float32, unit length.
            owner: `[pairs]`, int32: the query of each pair of a query and an item that it met.
            column: `[pairs]`, int32: the item's place among the candidates.
            weight: `[pairs]`, float32, >= 0, not all 0.
            stands_for: `[candidates]`, float32, >= 0: how many items of the catalog each stands for.

        Returns:
            Scalar, float32, >= 0 up to rounding.
        """
        scores = tf.matmul(queries, items, transpose_b=True)
        counts = others_count(owner, column, queries, stands_for)
        excess = tf.reduce_sum(counts * tf.nn.relu(scores - self.margin), axis=1)
        nearness = tf.math.divide_no_nan(excess, tf.reduce_sum(counts, axis=1))
        own = tf.gather_nd(scores, own_places(owner, column))
        losses = 1.0 - own + self.negative_weight * tf.gather(nearness, owner)
        return tf.reduce_sum(weight * losses) / tf.reduce_sum(weight)
