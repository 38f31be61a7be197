"""Qdrant's relevance feedback: three trained numbers over all pairs of better and worse feedback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from recsys.reformulators import NO_WEIGHTS, Weights, moved
from recsys.registry import settings
from recsys.types import Feedback, Float32, Reformulated
from twintower.types import FeedbackKind

OPINION = {FeedbackKind.LIKED: 1.0, FeedbackKind.CLICKED: 1.0, FeedbackKind.SKIPPED: 0.0, FeedbackKind.DISLIKED: -1.0}
"""The relevance of feedback that somebody gave; pseudo feedback has the score of the first search."""


@settings()
class LinearFeedback:
    """`unit(a q + sum over pairs (p better than n) conf^b c (v_p - v_n))`, `conf = relevance_p - relevance_n > 0`.

    For inner products this ranks as the formula of the reference does, which gives each candidate d the score
    `a <q, d> + sum conf^b c (<p, d> - <n, d>)`: it is linear in d. Training decides a, b and c; the signs of `a` and
    `b` are fixed to be positive, and a query with a single item of feedback stays where it is.

    Reference:
        Qdrant 1.17, relevance feedback query ("naive" strategy) and its trainer `qdrant-relevance-feedback`.
    Differs:
        the relevance of an item comes from its kind, or for pseudo feedback from its own score, not from a judge.

    Attributes:
        a: weight of the query before training, > 0.
        b: exponent of the confidence before training, > 0.
        c: weight of a pair before training; 0 starts from the query as it is.
    """

    learned: ClassVar[bool] = True
    reads_extended: ClassVar[bool] = False
    ignores: ClassVar[frozenset[FeedbackKind]] = frozenset()

    a: float = Field(default=1.0, gt=0)
    b: float = Field(default=1.0, gt=0)
    c: float = 0.0

    def initial(self, dim: int, seed: int) -> dict[str, Float32]:
        """Return the weights before training: the logarithms of a and b, and c; each a scalar."""
        del dim, seed
        values = {"log_a": np.log(self.a), "log_b": np.log(self.b), "c": self.c}
        return {name: np.float32(value) for name, value in values.items()}

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the moved queries, of unit length.

        Args:
            queries: `[batch, dim]`, float32.
            feedback: both kinds count.
            weights: as `ready`; none means those before training.
        """
        item_weights, _ = self.direction(np, queries, feedback, weights or self.ready(np, self.initial(0, 0)))
        return moved(queries, feedback, item_weights)

    def ready(self, xp: Any, weights: Weights) -> Weights:
        """Return a, b and c."""
        return {"a": xp.exp(weights["log_a"]), "b": xp.exp(weights["log_b"]), "c": weights["c"]}

    def shortened(self, weights: Weights, share: float) -> Weights:
        """Return weights that add a share of what these add to a query.

        Args:
            weights: as `initial`.
            share: 0..1.
        """
        return {**weights, "c": weights["c"] * np.float32(share)}

    def direction(
        self, xp: Any, queries: Any, feedback: Feedback, weights: Weights, drop: Callable[[Any], Any] = lambda x: x
    ) -> tuple[Any, None]:
        """Return each item's sum over the pairs that it is in, `[batch, k]`, divided by a.

        Args:
            xp: the array library.
            queries: not looked at.
            feedback: both kinds count.
            weights: as `ready`.
            drop: not used: there is nothing to drop.
        """
        del queries, drop
        relevance = feedback.scores
        for kind, value in OPINION.items():
            relevance = xp.where(feedback.kinds == int(kind), np.float32(value), relevance)
        both = feedback.present[:, :, None] & feedback.present[:, None, :]
        difference = xp.where(both, relevance[:, :, None] - relevance[:, None, :], np.float32(0))
        better = difference > 0
        safe = xp.where(better, difference, np.float32(1))  # whose logarithm has a gradient everywhere
        power = xp.where(better, xp.exp(xp.log(safe) * weights["b"]), np.float32(0)) * weights["c"]
        return (xp.sum(power, axis=2) - xp.sum(power, axis=1)) / weights["a"], None
