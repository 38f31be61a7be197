"""Softmax over the whole catalog: each query must pick all items that it has met, its multinomial likelihood."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.objectives._sets import SetObjective, Sets
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf


@settings()
class Softmax(SetObjective):
    """The main task: the probability of each query's own items among all items of the catalog.

    Attributes:
        similarity: score by the `cosine`, or by the `dot` product, whose lengths carry popularity.
        temperature: divides the scores, > 0; some .1 suits the cosine, 1 the dot product.
    """

    similarity: Literal["dot", "cosine"] = "cosine"
    temperature: Annotated[float, Between(0.03, 2.0, log=True)] = Field(default=0.1, gt=0)
    regularization_weight: Annotated[float, Between(1e-6, 1e-3, log=True)] = Field(default=1e-5, ge=0)
    feature_regularization_weight: Annotated[float, Between(1e-6, 1e-3, log=True)] = Field(default=1e-5, ge=0)

    @property
    def unit_length(self) -> bool:
        """Whether towers are trained at unit length, so that lengths carry nothing."""
        return self.similarity == "cosine"

    def loss(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets) -> tf.Tensor:
        """Return how badly the queries pick their own items.

        `sum_(b,j) w_bj (-log softmax_j(<u_b, v_j> / temperature)) / sum_(b,j) w_bj` over all own items j of each b

        The sum over the catalog is that over the own items and, as often as it stands for items, each other candidate.

        Reference:
            Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, arXiv:1802.05814, Eq. 2.
        Differs:
            the mean over pairs, not the sum over each query, so that its size does not depend on the data.

        Args:
            queries: `[batch, dim]`, float32.
            items: `[candidates, dim]`, float32.
            sets: what the queries have met.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding.
        """
        scores = tf.matmul(queries / self.temperature, items, transpose_b=True)
        partition = tf.reduce_logsumexp(sets.catalog_logits(scores), axis=1)
        return sets.weighted_mean(tf.gather(partition, sets.owner) - sets.own(scores))
