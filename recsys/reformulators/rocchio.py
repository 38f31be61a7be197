"""Rocchio's formula: towards the mean of what is wanted, away from the mean of what is not."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys.reformulators import NO_WEIGHTS, Weights, moved
from recsys.registry import combinations, settings
from recsys.types import Bool, Feedback, Float32, Reformulated
from twintower.types import FeedbackKind

BETAS = (0.1, 0.25, 0.6, 1.5)
GAMMAS = (0.008, 0.04)
"""Weights that are tried."""


@settings()
class Rocchio:
    """`unit(alpha q + beta mean(positive) - gamma mean(negative))`; a mean over nothing is zero.

    Reference:
        Rocchio 1971, Relevance feedback in information retrieval; for dense vectors Li et al. 2023, TOIS,
        arXiv:2108.11044, Section 3.2 (whose alpha and beta these are; it has no negatives).
    Differs:
        positive items count by what having met them means for a query, negative ones by what they are found by; the
        query counts with unit length, and the result is brought to unit length; rankings stay as they are.

    Attributes:
        alpha: weight of the query, > 0.
        beta: weight of the positive items' mean.
        gamma: weight of the negative items' mean.
        top_k: pseudo feedback that counts as positive: so many of its first items; 0 means all.
        bottom_k: pseudo feedback that counts as negative: so many of its last items, as far as they are not positive.
    """

    learned: ClassVar[bool] = False
    reads_extended: ClassVar[bool] = False

    alpha: float = Field(default=0.4, gt=0)
    beta: float = Field(default=0.6, ge=0)
    gamma: float = Field(default=0.008, ge=0)
    top_k: int = Field(default=0, ge=0)
    bottom_k: int = Field(default=0, ge=0)

    def candidates(self) -> tuple[Rocchio, ...]:
        """Return one choice for each combination of weights to try."""
        return combinations(self, beta=BETAS, gamma=GAMMAS)

    @property
    def ignores(self) -> frozenset[FeedbackKind]:
        """What has no weight."""
        sides = {True: self.beta, False: self.gamma}
        uses_last = self.gamma > 0 and self.top_k > 0 and self.bottom_k > 0
        return frozenset(
            kind
            for kind in FeedbackKind
            if not sides[kind.positive] and not (kind is FeedbackKind.PSEUDO and uses_last)
        )

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the moved queries, of unit length.

        Args:
            queries: `[batch, dim]`, float32.
            feedback: both kinds count.
            weights: none.
        """
        positive, negative = self._sides(feedback)
        towards = self.beta / np.maximum(positive.sum(axis=1, keepdims=True), 1)
        away = self.gamma / np.maximum(negative.sum(axis=1, keepdims=True), 1)
        return moved(queries, feedback, (positive * towards - negative * away).astype(np.float32) / self.alpha)

    def _sides(self, feedback: Feedback) -> tuple[Bool, Bool]:
        pseudo = feedback.present & (feedback.kinds == FeedbackKind.PSEUDO)
        place = np.cumsum(pseudo, axis=1) - 1
        count = pseudo.sum(axis=1, keepdims=True)
        top = pseudo & (place < (self.top_k or count))
        bottom = pseudo & ~top & (place >= count - self.bottom_k)
        positive = (feedback.positive & ~pseudo) | top
        return positive, (feedback.present & ~feedback.positive) | bottom
