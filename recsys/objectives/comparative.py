"""LoL: revisions of one query with more feedback must not have a larger loss than those with less."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from recsys.errors import ShapeError
from recsys.objectives import MASKED
from recsys.registry import settings
from recsys.stack import tf
from twintower.errors import describe


@settings()
class Comparative:
    """The reformulation loss of each revision, and a hinge over pairs of revisions of one query.

    Attributes:
        temperature: divides the inner products, > 0.
        positives: what a revision must rank high: `all` relevant items, each against what is wrong only, averaged, or
            the `hardest` alone, as in the paper, where a query has about one.
        weight: factor of the comparison, unitless; 0 leaves parallel revisions without it.
        margin: by how much, in nats, more feedback must lower the loss, >= 0.
        stop_gradient: the revision with less feedback of a pair is a constant, so that a pair cannot be mended by
            making that one worse.
    """

    reads: ClassVar[str] = "revisions"

    temperature: float = Field(default=0.05, gt=0)
    positives: Literal["all", "hardest"] = "all"
    weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.0, ge=0)
    stop_gradient: bool = False

    def loss(
        self, scores: tf.Tensor, relevant: tf.Tensor, left_out: tf.Tensor, log_q: tf.Tensor, counts: tf.Tensor
    ) -> tf.Tensor:
        """Return how badly revisions rank what is relevant, and how much more feedback makes it worse.

        `mean_r L_rf(r) + weight * mean over pairs (i, j), counts_i > counts_j, of max(0, margin + L_rf(i) - L_rf(j))`

        Reference:
            Zhu et al. 2022, arXiv:2204.11545, the comparative regularisation over reformulation losses.
        Differs:
            a temperature, because vectors have unit length; the paper has the hardest positive only.

        Args:
            scores: `[batch, revisions, candidates]`, float32, inner products of revised queries and candidates.
            relevant: `[batch, candidates]`, bool.
            left_out: `[batch, candidates]`, bool, neither relevant nor wrong; false where relevant.
            log_q: `[candidates]`, float32, log of how often a candidate is expected among them; 0 where it always is.
            counts: `[batch, revisions]`, int32, feedback of each revision, distinct for one query.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding.

        Raises:
            ShapeError: the arguments do not fit each other.
        """
        batch, revisions, candidates = scores.shape
        fitting = ([batch, candidates], [batch, candidates], [candidates], [batch, revisions])
        shapes = [argument.shape for argument in (relevant, left_out, log_q, counts)]
        if not all(shape.is_compatible_with(fit) for shape, fit in zip(shapes, fitting, strict=True)):
            got = [tuple(shape) for shape in (scores.shape, *shapes)]
            rule = "[batch, revisions, candidates], twice [batch, candidates], [candidates] and [batch, revisions]"
            raise ShapeError(describe("comparative", got, rule))
        losses = self.revision_losses(scores, relevant, left_out, log_q)
        return tf.reduce_mean(losses) + self.weight * self.comparison(losses, counts)

    def revision_losses(
        self, scores: tf.Tensor, relevant: tf.Tensor, left_out: tf.Tensor, log_q: tf.Tensor
    ) -> tf.Tensor:
        """Return the reformulation loss of each revision, `[batch, revisions]`, in nats; 0 where nothing is relevant.

        `L_rf = mean over relevant p of -log( e_p / (e_p + sum over wrong d of e_d / q_d) )`, where
        `e = exp(s / temperature)` and `q = exp(log_q)`; for `hardest` the largest of them instead of the mean.

        Args:
            scores: as for `loss`.
            relevant: as for `loss`.
            left_out: as for `loss`.
            log_q: as for `loss`.
        """
        # A pass over [batch, revisions, candidates] is what costs here: positives are few, and are picked out.
        logits = scores / self.temperature
        taken_out = MASKED * tf.cast(relevant | left_out, tf.float32) - log_q
        others = tf.reduce_logsumexp(logits + taken_out[:, None, :], axis=2)
        query, candidate = tf.unstack(tf.where(relevant), axis=1)
        losses = []
        for revision in range(scores.shape[1]):
            own = tf.gather_nd(
                logits, tf.stack([query, tf.fill(tf.shape(query), tf.cast(revision, tf.int64)), candidate], 1)
            )
            of_each = tf.nn.softplus(tf.gather(others[:, revision], query) - own)
            pooled = tf.math.unsorted_segment_max if self.positives == "hardest" else tf.math.unsorted_segment_mean
            losses.append(tf.maximum(pooled(of_each, query, tf.shape(scores)[0]), 0.0))
        return tf.stack(losses, axis=1)

    def comparison(self, losses: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Return the mean of `max(0, margin + L_i - L_j)` over all pairs with more feedback in i; 0 without a pair.

        Args:
            losses: `[batch, revisions]`, float32.
            counts: `[batch, revisions]`, int32.
        """
        less = tf.stop_gradient(losses) if self.stop_gradient else losses
        more = tf.cast(counts[:, :, None] > counts[:, None, :], tf.float32)
        excess = tf.nn.relu(self.margin + losses[:, :, None] - less[:, None, :])
        return tf.math.divide_no_nan(tf.reduce_sum(more * excess), tf.reduce_sum(more))
