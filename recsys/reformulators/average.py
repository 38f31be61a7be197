"""The mean of the query and the items that speak for themselves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.reformulators import NO_WEIGHTS, Weights, moved
from recsys.registry import settings
from recsys.types import Feedback, Float32, Reformulated
from twintower.types import FeedbackKind


@settings()
class Average:
    """`unit((q + sum_i v_i) / (1 + n))`, over the n positive items.

    Reference:
        Li et al. 2023, Pseudo relevance feedback with deep language models and dense retrievers, TOIS,
        arXiv:2108.11044, Section 3.2.
    Differs:
        the query counts with unit length, and the result is brought to unit length; rankings stay as they are.
    """

    learned: ClassVar[bool] = False
    reads_extended: ClassVar[bool] = False
    ignores: ClassVar[frozenset[FeedbackKind]] = frozenset(kind for kind in FeedbackKind if not kind.positive)

    def candidates(self) -> tuple[Average]:
        """Return the choice itself: it has no weights."""
        return (self,)

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return the means, of unit length.

        Args:
            queries: `[batch, dim]`, float32.
            feedback: items that speak against themselves are passed over.
            weights: none.
        """
        return moved(queries, feedback, feedback.positive.astype(np.float32))
