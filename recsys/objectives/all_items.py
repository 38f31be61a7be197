"""A weighted quadratic loss over the whole catalog: each query must score its own items 1 and all others 0."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from recsys.objectives._sets import SetObjective, Sets
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf


@settings()
class AllItems(SetObjective):
    """The main task: each query scores every item of the catalog, its own ones 1 and the others 0.

    Up to `exact_items` items a step reads the whole catalog; above, running Gramians of a uniform sample stand for it.

    Attributes:
        unobserved_weight: weight of an item that the query entity has not met, alpha0, unitless; that of a met item is
            the interaction's, 1 by default.
        gramian_rate: share (0..1] of a step's own estimate in the running Gramians.
    """

    unit_length: ClassVar[bool] = False

    unobserved_weight: Annotated[float, Between(0.03, 1.0, log=True)] = Field(default=0.3, gt=0)
    gramian_rate: float = Field(default=0.05, gt=0, le=1)
    regularization_weight: Annotated[float, Between(1e-4, 1e-2, log=True)] = Field(default=1e-3, ge=0)
    feature_regularization_weight: Annotated[float, Between(3e-4, 3e-2, log=True)] = Field(default=3e-3, ge=0)

    def loss(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets) -> tf.Tensor:
        """Return how far the scores are from 1 for the queries' own items and from 0 for all others.

        `(1 / batch) sum_b( alpha0 sum_j s_bj^2 + sum_{j in b}( w_bj (s_bj - 1)^2 - alpha0 s_bj^2 ) )`, `s = <u, v>`

        The sum over all items is `u^T (V^T V) u`, so that no `[batch, items]` scores are made.

        Reference:
            Hu, Koren and Volinsky 2008, Eq. 3; Rendle et al. 2022, arXiv:2110.14037, Eq. 2, for alpha0; Krichene et
            al. 2019, arXiv:1807.07187, Eq. 4, for the Gramian.

        Args:
            queries: `[batch, dim]`, float32, any length.
            items: `[candidates, dim]`, float32, any length.
            sets: what the queries have met.

        Returns:
            Scalar, float32, >= 0 up to rounding where the candidates are the whole catalog.
        """
        everywhere = tf.reduce_sum(tf.matmul(queries, item_gramian(items, sets.stands_for)) * queries)
        everywhere /= tf.cast(tf.shape(queries)[0], tf.float32)
        return self.unobserved_weight * everywhere + self._own(queries, items, sets)

    def running_loss(
        self,
        queries: tf.Tensor,
        items: tf.Tensor,
        sets: Sets,
        of_queries: tf.Tensor,
        of_items: tf.Tensor,
    ) -> tf.Tensor:
        """Return the same with the Gramians of many steps, which vary less than those of one.

        Its gradient by a query is that of `alpha0 u^T G u`, G of the items, and by an item `alpha0 v^T H v`, H of the
        queries, each times what it stands for.

        Reference:
            Krichene et al. 2019, arXiv:1807.07187, Alg. 2 (SOGram).

        Args:
            queries: see `loss`.
            items: see `loss`.
            sets: see `loss`.
            of_queries: `mean_b u_b u_b^T` of the newest steps, `[dim, dim]`, float32.
            of_items: `sum_j v_j v_j^T` over the catalog, of the newest steps, `[dim, dim]`, float32.
        """
        of_queries, of_items = tf.stop_gradient(of_queries), tf.stop_gradient(of_items)
        by_query = tf.reduce_sum(query_gramian(queries) * of_items)
        by_item = tf.reduce_sum(item_gramian(items, sets.stands_for) * of_queries)
        everywhere = by_query + by_item - tf.stop_gradient(by_item)
        return self.unobserved_weight * everywhere + self._own(queries, items, sets)

    def _own(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets) -> tf.Tensor:
        """Return what own items add to the sum in which they are items like all others."""
        scores = tf.reduce_sum(tf.gather(queries, sets.owner) * tf.gather(items, sets.column), axis=1)
        own = sets.weight * tf.square(scores - 1.0) - self.unobserved_weight * tf.square(scores)
        return tf.reduce_sum(own) / tf.cast(tf.shape(queries)[0], tf.float32)


def item_gramian(items: tf.Tensor, stands_for: tf.Tensor) -> tf.Tensor:
    """Return `sum_j v_j v_j^T` over the catalog, as the candidates stand for it, `[dim, dim]`, float32."""
    return tf.matmul(items, stands_for[:, None] * items, transpose_a=True)


def query_gramian(queries: tf.Tensor) -> tf.Tensor:
    """Return `mean_b u_b u_b^T`, `[dim, dim]`, float32."""
    return tf.matmul(queries, queries, transpose_a=True) / tf.cast(tf.shape(queries)[0], tf.float32)
