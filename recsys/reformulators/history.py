"""Feedback as history: what somebody liked or chose counts as met, and the query is encoded again."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys.reformulators import NO_WEIGHTS, Weights, moved
from recsys.registry import combinations, settings
from recsys.types import Feedback, Float32, Reformulated
from twintower.types import FeedbackKind

AWAY_WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Weights of a disliked item that are tried."""


@settings()
class History:
    """`unit(q' - disliked_weight sum(disliked) - skipped_weight sum(skipped))`, q' = q with liked items in its history.

    Where the query tower reads a history, q' is what it makes of the longer one, which is exact for any such tower.
    Elsewhere, and for a query that came as a vector, what having met each item once means is added. Pseudo feedback
    moves nothing: nobody has met it.

    Attributes:
        disliked_weight: how far the query, of unit length, moves away from a disliked item, as `Feedback.away`.
        skipped_weight: how far it moves away from an item that was shown and passed over.
    """

    learned: ClassVar[bool] = False
    reads_extended: ClassVar[bool] = True

    disliked_weight: float = Field(default=0.02, ge=0)
    skipped_weight: float = Field(default=0.005, ge=0)

    def candidates(self) -> tuple[History, ...]:
        """Return one choice for each weight to try; a skipped item counts as a fourth of a disliked one."""
        tried = combinations(self, disliked_weight=AWAY_WEIGHTS)
        return tuple(replace(each, skipped_weight=each.disliked_weight / 4) for each in tried)

    @property
    def ignores(self) -> frozenset[FeedbackKind]:
        """Pseudo feedback, and what has no weight."""
        weights = {FeedbackKind.DISLIKED: self.disliked_weight, FeedbackKind.SKIPPED: self.skipped_weight}
        return frozenset({FeedbackKind.PSEUDO, *(kind for kind, weight in weights.items() if not weight)})

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the moved queries, of unit length.

        Args:
            queries: `[batch, dim]`, float32.
            feedback: all kinds but pseudo feedback count.
            weights: none.
        """
        liked = feedback.positive & (feedback.kinds != FeedbackKind.PSEUDO)
        disliked, skipped = feedback.kinds == FeedbackKind.DISLIKED, feedback.kinds == FeedbackKind.SKIPPED
        away = (disliked * self.disliked_weight + skipped * self.skipped_weight).astype(np.float32)
        if feedback.extended is None:
            return moved(queries, feedback, liked - away)
        result = moved(feedback.extended, feedback, -away)
        return Reformulated(result.vectors, result.item_weights + liked * feedback.lengths)
