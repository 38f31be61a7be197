"""The second task: a view of an item must pick the other view of the same item among those of the batch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recsys.errors import ShapeError
from recsys.objectives import MASKED
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf
from twintower.errors import describe


@settings()
class Contrastive:
    """InfoNCE between two views, its negatives the other items of the batch in the other view.

    Attributes:
        temperature: divides the cosines, > 0; on its own, not the main task's.
        weight: factor alpha of this task in the sum of objectives, unitless.
        symmetric: add the direction from the other view back, and halve the sum.
        false_negatives: what to do with an item that cannot be told from the example in a view, because all that the
            view shows of both is equal: `keep` it as a negative, as in the paper, or `remove` it.
    """

    reads: ClassVar[str] = "views"

    temperature: Annotated[float, Between(0.03, 0.5, log=True)] = Field(default=0.07, gt=0)
    weight: Annotated[float, Between(0.03, 3.0, log=True)] = Field(default=0.3, gt=0)
    symmetric: bool = False
    false_negatives: Literal["keep", "remove"] = "keep"

    def loss(self, view: tf.Tensor, other_view: tf.Tensor, not_negative: tf.Tensor) -> tf.Tensor:
        """Return how badly two views of the same item agree.

        `mean_i( -log( exp(s_ii / temperature) / sum_j exp(s_ij / temperature) ) )`, s = inner product

        Reference:
            Yao et al. 2021, arXiv:2007.12865v4, Eq. 3 (one direction, negatives from the other view only).
        Differs:
            an item that the batch holds twice is no negative of itself.

        Args:
            view: items in the first view, `[batch, dim]`, float32, unit length.
            other_view: the same items in the same order, `[batch, dim]`, float32, unit length.
            not_negative: `[batch, batch]`, bool, symmetric: pairs that are no negatives of each other; false on the
                diagonal.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding.

        Raises:
            ShapeError: the two views differ in shape.
        """
        if not view.shape.is_compatible_with(other_view.shape):
            shapes = (tuple(view.shape), tuple(other_view.shape))
            raise ShapeError(describe("contrastive", shapes, "two views of one shape, [batch, dim]"))
        taken_out = MASKED * tf.cast(not_negative, tf.float32)
        logits = tf.matmul(view / self.temperature, other_view, transpose_b=True) + taken_out
        positive = tf.linalg.diag_part(logits)
        loss = tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - positive)  # Eq. 3
        if not self.symmetric:
            return loss
        return (loss + tf.reduce_mean(tf.reduce_logsumexp(logits, axis=0) - positive)) / 2
