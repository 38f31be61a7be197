"""Softmax over the whole catalog: each query must pick all items that it has met, its multinomial likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from recsys.objectives._sets import catalog_logits, own_places
from recsys.registry import settings
from recsys.stack import tf


@settings()
class Softmax:
    """The main task: the probability of each query's own items among all items of the catalog.

    Up to `exact_items` items a step reads the whole catalog, above a uniform sample and the own items of the batch.

    Attributes:
        similarity: score by the `cosine`, or by the `dot` product, whose lengths carry popularity.
        temperature: divides the scores, > 0; some .1 suits the cosine, 1 the dot product.
        exact_items: the largest catalog that each step reads as a whole.
        sampled_items: size of the sample above that.
        regularization_weight: weight of the squares of the vectors of items, in histories and by id.
        feature_regularization_weight: weight of the squares of all other weights.
        regularization_exponent: 0 regularizes all rows of a table alike, 1 in proportion to how often each is trained.
        weight: factor of this objective in the sum of objectives, unitless.
    """

    reads: ClassVar[str] = "sets"

    similarity: Literal["dot", "cosine"] = "cosine"
    temperature: float = Field(default=0.1, gt=0)
    exact_items: int = Field(default=20_000, ge=1)
    sampled_items: int = Field(default=4_096, ge=1)
    regularization_weight: float = Field(default=1e-5, ge=0)
    feature_regularization_weight: float = Field(default=1e-5, ge=0)
    regularization_exponent: float = Field(default=0.0, ge=0, le=1)
    weight: float = Field(default=1.0, gt=0)

    @property
    def unit_length(self) -> bool:
        """Whether towers are trained at unit length, so that lengths carry nothing."""
        return self.similarity == "cosine"

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
            owner: `[pairs]`, int32: the query of each pair of a query and an item that it met.
            column: `[pairs]`, int32: the item's place among the candidates.
            weight: `[pairs]`, float32, >= 0, not all 0.
            stands_for: `[candidates]`, float32, >= 0: how many items of the catalog each stands for.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding.
        """
        scores = tf.matmul(queries / self.temperature, items, transpose_b=True)
        logits = catalog_logits(scores, owner, column, stands_for)
        own = tf.gather_nd(scores, own_places(owner, column))
        losses = tf.gather(tf.reduce_logsumexp(logits, axis=1), owner) - own
        return tf.reduce_sum(weight * losses) / tf.reduce_sum(weight)
