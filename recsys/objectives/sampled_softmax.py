"""Softmax over the batch's own items (and further negatives), corrected for how often each item is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recsys.errors import ShapeError
from recsys.objectives import MASKED
from recsys.registry import settings
from recsys.search_space import Between, OneOf
from recsys.stack import tf
from twintower.errors import describe


@settings()
class HardNegatives:
    """Further candidates that an earlier model took for right: items among its first results of training queries.

    Attributes:
        file: what `recsys mine --part train` wrote, from a release of the same data and split; a relative path starts
            at the current directory.
        per_query: items drawn from the first results of each query of a batch, for every query of the batch.
    """

    file: str = Field(min_length=1)
    per_query: int = Field(default=1, ge=1)


@settings()
class SampledSoftmax:
    """The main task: each query must pick its own item among all candidates of the batch.

    Attributes:
        temperature: divides the inner products, > 0.
        learned_temperature: train the temperature, starting from `temperature`.
        logq: source of the sampling probabilities p for the correction: the training `counts`, the `streaming`
            estimator, or `none` for plain softmax.
        uniform_negatives: items drawn uniformly from the catalogue as further candidates of every query (mixed
            negative sampling).
        hard_negatives: first results of an earlier model as further candidates of every query; without the table there
            are none.
        mask_positives: take the query's other known positives out of the candidates; repeats of its own item never
            count as negatives.
        streaming_rate: weight (0..1) of the newest gap in the streaming estimator.
        streaming_hashes: hash functions of the streaming estimator.
        streaming_slots: slots of each hash; 0 means one for each item, without collisions.
        weight: factor of this objective in the sum of objectives, unitless.
    """

    reads: ClassVar[str] = "pairs"
    unit_length: ClassVar[bool] = True

    temperature: Annotated[float, Between(0.02, 0.3, log=True)] = Field(default=0.07, gt=0)
    learned_temperature: bool = False
    logq: Literal["counts", "streaming", "none"] = "counts"
    uniform_negatives: Annotated[int, OneOf((0, 256, 1024))] = Field(default=0, ge=0)
    hard_negatives: HardNegatives | None = None
    mask_positives: bool = True
    streaming_rate: float = Field(default=0.05, gt=0, lt=1)
    streaming_hashes: int = Field(default=1, ge=1)
    streaming_slots: int = Field(default=0, ge=0)
    weight: float = Field(default=1.0, gt=0)

    def paths(self) -> tuple[Path, ...]:
        """Return the files, other than the source, that training reads."""
        return () if self.hard_negatives is None else (Path(self.hard_negatives.file),)

    def loss(
        self,
        queries: tf.Tensor,
        candidates: tf.Tensor,
        log_q: tf.Tensor,
        known_positive: tf.Tensor,
        weight: tf.Tensor,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Return how badly the queries pick their own items.

        `sum_i w_i (-log softmax_j(<u_i, v_j> / temperature - log q_j))_i / sum_i w_i`

        Reference:
            Yi et al. 2019, Sampling-bias-corrected neural modeling, RecSys'19, Eq. 3 to 6: the correction follows the
            division by the temperature and applies to every column, the positive's too. For the mixture with uniform
            negatives: Yang et al. 2020, Mixed negative sampling, WWW'20 companion, Section 3.
        Differs:
            known positives of a query leave its candidates; the papers keep them as negatives.

        Args:
            queries: `[batch, dim]`, float32, unit length.
            candidates: `[candidates, dim]`, float32, unit length; row i < batch is the positive of query i.
            log_q: `[candidates]`, float32, log of the probability that a drawn candidate is this item; a constant
                shift changes nothing. Zeros turn the correction off.
            known_positive: `[batch, candidates]`, bool, candidates that are no negatives of the query; false on the
                diagonal.
            weight: `[batch]`, float32, >= 0, not all 0.
            temperature: scalar, float32, > 0.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding (about 1e-6).

        Raises:
            ShapeError: queries and candidates differ in dim, or there are fewer candidates than queries.
        """
        batch, dim = queries.shape
        if candidates.shape[1] != dim or (candidates.shape[0] or batch or 0) < (batch or 0):
            shapes = (tuple(queries.shape), tuple(candidates.shape))
            raise ShapeError(describe("sampled_softmax", shapes, "[batch, dim] and [candidates >= batch, dim]"))
        # Eq. 4, 5. A pass over [batch, candidates] costs as much as a small layer: what can be done on vectors is done
        # there, and the mask is added, so that it needs no pass of its own in the gradient.
        scaled, own = queries / temperature, tf.shape(queries)[0]
        taken_out = MASKED * tf.cast(known_positive, tf.float32)
        logits = tf.matmul(scaled, candidates, transpose_b=True) + (taken_out - log_q)
        positive = tf.reduce_sum(scaled * candidates[:own], axis=1) - log_q[:own]
        losses = tf.reduce_logsumexp(logits, axis=1) - positive  # Eq. 6
        return tf.reduce_sum(weight * losses) / tf.reduce_sum(weight)
