"""What the objectives share that read sets: scores of a query's own items beside those of all other candidates."""

from __future__ import annotations

from recsys.objectives import MASKED
from recsys.stack import tf


def own_places(owner: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """Return where the own items of each query stand among the scores `[queries, candidates]`, `[pairs, 2]`."""
    return tf.stack([owner, column], axis=1)


def others_count(owner: tf.Tensor, column: tf.Tensor, queries: tf.Tensor, stands_for: tf.Tensor) -> tf.Tensor:
    """Return how many items of the catalog each candidate stands for among those that a query has not met.

    Returns:
        `[queries, candidates]`, float32; 0 for a query's own items.
    """
    everywhere = tf.tile(stands_for[None, :], [tf.shape(queries)[0], 1])
    return tf.tensor_scatter_nd_update(everywhere, own_places(owner, column), tf.zeros(tf.shape(owner)[0]))


def catalog_logits(logits: tf.Tensor, owner: tf.Tensor, column: tf.Tensor, stands_for: tf.Tensor) -> tf.Tensor:
    """Return logits whose softmax is that over the whole catalog, estimated from the candidates.

    A query's own items count once each; any other candidate counts as often as the catalog has items for it.

    Args:
        logits: `[queries, candidates]`, float32.
        owner: `[pairs]`, int32: the query of each pair of a query and an item that it met.
        column: `[pairs]`, int32: the item's place among the candidates.
        stands_for: `[candidates]`, float32, >= 0: how many items of the catalog a candidate stands for.
    """
    places = own_places(owner, column)
    weighted = logits + tf.where(stands_for > 0, tf.math.log(tf.maximum(stands_for, 1e-9)), MASKED)
    return tf.tensor_scatter_nd_update(weighted, places, tf.gather_nd(logits, places))
