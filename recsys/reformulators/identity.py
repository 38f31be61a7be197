"""No reformulation: what every other one is measured against."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.reformulators import NO_WEIGHTS, Weights
from recsys.registry import settings
from recsys.types import Feedback, Float32, Reformulated
from twintower.types import FeedbackKind


@settings()
class Identity:
    """The query as it came, whatever the feedback says."""

    learned: ClassVar[bool] = False
    reads_extended: ClassVar[bool] = False
    ignores: ClassVar[frozenset[FeedbackKind]] = frozenset(FeedbackKind)

    def candidates(self) -> tuple[Identity]:
        """Return the choice itself: it has no weights."""
        return (self,)

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the queries.

        Args:
            queries: `[batch, dim]`, float32; returned as they are, whatever their length.
            feedback: not looked at.
            weights: none.
        """
        return Reformulated(queries, np.zeros(feedback.present.shape, np.float32))
