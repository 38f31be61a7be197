"""A weighted quadratic loss over the whole catalog: each query must score its own items 1 and all others 0."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from recsys.registry import settings
from recsys.stack import tf


@settings()
class AllItems:
    """The main task: each query scores every item of the catalog, its own ones 1 and the others 0.

    Attributes:
        unobserved_weight: weight of an item that the query entity has not met, alpha0, unitless; that of a met item is
            the interaction's, 1 by default.
        regularization_weight: weight of the squared length of the embedding tables.
        weight: factor of this objective in the sum of objectives, unitless.
    """

    reads: ClassVar[str] = "sets"

    unobserved_weight: float = Field(default=0.3, gt=0)
    regularization_weight: float = Field(default=1e-3, ge=0)
    weight: float = Field(default=1.0, gt=0)

    def paths(self) -> tuple[Path, ...]:
        """Return the files that training reads besides the source: none."""
        return ()

    def loss(
        self, queries: tf.Tensor, items: tf.Tensor, owner: tf.Tensor, item_row: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor:
        """Return how far the scores are from 1 for the queries' own items and from 0 for all others.

        `(1 / batch) sum_b( alpha0 sum_j s_bj^2 + sum_{j in b}( w_bj (s_bj - 1)^2 - alpha0 s_bj^2 ) )`, `s = <u, v>`

        The sum over all items is `u^T (V^T V) u`, so that no `[batch, items]` scores are made.

        Reference:
            Hu, Koren and Volinsky 2008, Eq. 3; Rendle et al. 2022, arXiv:2110.14037, Eq. 2, for alpha0; Krichene et
            al. 2019, arXiv:1807.07187, Eq. 4, for the Gramian.

        Args:
            queries: `[batch, dim]`, float32, any length.
            items: `[items, dim]`, float32, any length: the whole catalog.
            owner: `[pairs]`, int32, ascending: the query of each pair of a query and an item that it met.
            item_row: `[pairs]`, int32.
            weight: `[pairs]`, float32, >= 0.

        Returns:
            Scalar, float32, >= 0 up to rounding.
        """
        alpha0 = self.unobserved_weight
        gramian = tf.matmul(items, items, transpose_a=True)
        everywhere = alpha0 * tf.reduce_sum(tf.matmul(queries, gramian) * queries)
        scores = tf.reduce_sum(tf.gather(queries, owner) * tf.gather(items, item_row), axis=1)
        own = weight * tf.square(scores - 1.0) - alpha0 * tf.square(scores)
        return (everywhere + tf.reduce_sum(own)) / tf.cast(tf.shape(queries)[0], tf.float32)
