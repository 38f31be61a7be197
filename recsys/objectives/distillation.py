"""Distillation: each query ranks the items that it has not met as several solved models do together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.objectives import MASKED
from recsys.objectives._sets import SetObjective, Sets
from recsys.objectives._solved import solved_kind
from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf


@settings()
class Distillation(SetObjective):
    """The main task: the probabilities of items under an ensemble of teachers, from the query's whole history.

    Items that the query has met are left out: teachers score them so high that nothing of the rest would be learned.
    Teachers are objectives that are solved at once. Each is solved on the training interactions with every combination
    of the settings that validation would choose first, and each solution is one teacher.

    Attributes:
        teachers: kinds of objectives that read `matrix`.
        teacher_dim: rank of their solutions.
        sharpness: factor of the teachers' mean score, which lies in 0..1, in their softmax.
        similarity: score by the `cosine`, or by the `dot` product, whose lengths carry popularity.
        temperature: divides the scores, > 0; the inverse of `sharpness` suits the cosine, 1 the dot product.
    """

    teachers: tuple[str, ...] = Field(default=("dlae", "ease"), min_length=1)
    teacher_dim: int = Field(default=256, ge=2)
    sharpness: Annotated[float, Between(10.0, 100.0, log=True)] = Field(default=30.0, gt=0)
    similarity: Literal["dot", "cosine"] = "cosine"
    temperature: Annotated[float, Between(0.01, 0.2, log=True)] = Field(default=0.04, gt=0)

    @field_validator("teachers")
    @classmethod
    def _solved(cls, teachers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(solved_kind, teachers))

    @property
    def unit_length(self) -> bool:
        """Whether towers are trained at unit length, so that lengths carry nothing."""
        return self.similarity == "cosine"

    def loss(self, queries: tf.Tensor, items: tf.Tensor, sets: Sets, taught: tf.Tensor) -> tf.Tensor:
        """Return how far the queries' probabilities of the items that they have not met are from those of the teachers.

        `mean_b KL(softmax(sharpness mean_t minmax_j t_bj) || softmax(<u_b, v_j> / temperature))`

        Teachers differ in the scale of their scores; for each query and teacher these are moved to 0..1 over the
        candidates, own items aside, before they are averaged.

        Reference:
            Hinton, Vinyals and Dean 2015, arXiv:1503.02531, Section 2, for the loss; Geng et al. 2024,
            arXiv:2411.04403, for an ensemble of teachers of different scales.

        Args:
            queries: `[batch, dim]`, float32.
            items: `[candidates, dim]`, float32.
            sets: what the queries have met; weights are not read, as the teachers have read them.
            taught: `[teachers, batch, candidates]`, float32, the teachers' scores.

        Returns:
            Scalar, float32, in nats, >= 0 up to rounding.
        """
        counts = sets.others_count(queries)
        is_own = tf.cast(counts == 0, tf.float32)
        lowest = tf.reduce_min(taught, axis=2, keepdims=True)
        above = (taught - lowest) * (1.0 - is_own)
        together = tf.reduce_mean(tf.math.divide_no_nan(above, tf.reduce_max(above, axis=2, keepdims=True)), axis=0)
        scores = tf.matmul(queries / self.temperature, items, transpose_b=True)
        shift = tf.math.log(tf.maximum(counts, 1e-9)) + MASKED * is_own
        wanted = tf.nn.log_softmax(self.sharpness * together + shift, axis=1)
        found = tf.nn.log_softmax(scores + shift, axis=1)
        return tf.reduce_mean(tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=1))
