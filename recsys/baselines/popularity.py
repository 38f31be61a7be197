"""The most popular items."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.baselines import Histories, Scorer
from recsys.registry import settings
from recsys.types import Float32


@settings()
class Popularity:
    """The same list for everyone: items by training count, equal counts by row."""

    reads_history: ClassVar[bool] = False

    def candidates(self) -> tuple[Popularity, ...]:
        """Return itself: there is nothing to choose."""
        return (self,)

    def obstacle(self, queries: int, items: int) -> str:
        """Return nothing: counting is always possible."""
        return ""

    def fit(self, training: Histories) -> Scorer:
        """Count; see `Baseline.fit`."""
        counts = np.asarray(training.counts.sum(axis=0, dtype=np.float64)).ravel().astype(np.float32)

        def score(histories: Histories) -> Float32:
            return np.tile(counts, (histories.owners, 1))

        return score
