"""Spread-out regularisation (SO): items should lie apart from each other."""

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
class SpreadOut:
    """The contrastive task without augmentation, which only pushes apart; or its older, squared form.

    Attributes:
        form: `softmax`, what the contrastive task becomes when both views are equal, or `square`.
        temperature: divides the cosines of the softmax form, > 0.
        weight: factor of this task in the sum of objectives, unitless.
    """

    reads: ClassVar[str] = "views"

    form: Literal["softmax", "square"] = "softmax"
    temperature: Annotated[float, Between(0.03, 0.5, log=True)] = Field(default=0.07, gt=0)
    weight: Annotated[float, Between(0.03, 3.0, log=True)] = Field(default=0.3, gt=0)

    def loss(self, view: tf.Tensor, other_view: tf.Tensor, not_negative: tf.Tensor) -> tf.Tensor:
        """Return how close the items of a batch lie to each other.

        softmax: `mean_i( -log( exp(s_ii / temperature) / sum_j exp(s_ij / temperature) ) )`, s_ii = 1

        square: `mean_i( sum_{j != i} s_ij^2 )`, s = inner product

        Reference:
            Yao et al. 2021, arXiv:2007.12865v4, Section 3.1 (softmax); Zhang et al. 2017, Learning Spread-out Local
            Feature Descriptors, ICCV (square).

        Args:
            view: `[batch, dim]`, float32, unit length.
            other_view: the same vectors again, or those of another view.
            not_negative: `[batch, batch]`, bool, symmetric: pairs that need not lie apart; false on the diagonal.

        Returns:
            Scalar, float32, >= 0 up to rounding; in nats for softmax, unitless for square.

        Raises:
            ShapeError: the two differ in shape.
        """
        if not view.shape.is_compatible_with(other_view.shape):
            shapes = (tuple(view.shape), tuple(other_view.shape))
            raise ShapeError(describe("spread_out", shapes, "two views of one shape, [batch, dim]"))
        scores = tf.matmul(view, other_view, transpose_b=True)
        taken_out = tf.cast(not_negative, tf.float32)
        if self.form == "square":
            squares = tf.square(scores) * (1.0 - taken_out)
            return tf.reduce_mean(tf.reduce_sum(squares, axis=1) - tf.linalg.diag_part(squares))
        logits = scores / self.temperature + MASKED * taken_out
        return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - tf.linalg.diag_part(logits))
