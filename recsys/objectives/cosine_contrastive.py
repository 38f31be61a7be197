"""SimpleX: own items at a cosine of 1, and only those others pushed away that lie within a margin."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from recsys.objectives._sets import SetObjective, Sets
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf


@settings()
class CosineContrastive(SetObjective):
    """The main task: each query lies at its own items, and no nearer than a margin to all others.

    Attributes:
        margin: cosine up to which another item costs nothing, -1..1.
        negative_weight: weight of the others' mean beside one own item.
    """

    unit_length: ClassVar[bool] = True

    margin: Annotated[float, Between(0.0, 0.9)] = Field(default=0.4, ge=-1, le=1)
    negative_weight: Annotated[float, Between(10.0, 1000.0, log=True)] = Field(default=150.0, gt=0)

    def loss(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets) -> tf.Tensor:
        """Return how far the queries are from their own items, and how near they come to others.

        `sum_(b,j) w_bj (1 - s_bj + negative_weight mean_k max(0, s_bk - margin)) / sum_(b,j) w_bj`, s = cosine, over
        all own items j of each query b; k are the items that b has not met.

        Reference:
            Mao et al. 2021, SimpleX, CIKM, arXiv:2109.12613, Eq. 1.

        Args:
            queries: `[batch, dim]`, float32, unit length.
            items: `[candidates, dim]`, float32, unit length.
            sets: what the queries have met.

        Returns:
            Scalar, float32, >= 0 up to rounding.
        """
        scores = tf.matmul(queries, items, transpose_b=True)
        counts = sets.others_count(queries)
        excess = tf.reduce_sum(counts * tf.nn.relu(scores - self.margin), axis=1)
        nearness = tf.math.divide_no_nan(excess, tf.reduce_sum(counts, axis=1))
        return sets.weighted_mean(1.0 - sets.own(scores) + self.negative_weight * tf.gather(nearness, sets.owner))
