"""What an entity has met itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat
from scipy.sparse import csr_matrix

from recsys.baselines import Histories, Scorer, popularity_background
from recsys.registry import combinations, settings
from recsys.types import DAY_US, Float32


@settings()
class Repeat:
    """An entity's own items by how often it met them, older meetings for less; then the most popular items.

    `score(i) = sum_m( 2^( -age(m) / half_life_days ) )`, over the entity's meetings m with the item i, whose ages are
    counted to the last interaction of the training data

    Attributes:
        half_life_days: days after which a meeting counts half, to try; 0 means that its age does not matter.
    """

    reads_history: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True

    half_life_days: tuple[NonNegativeFloat, ...] = Field(default=(60.0, 120.0, 30.0, 0.0), min_length=1)

    def candidates(self) -> tuple[Repeat, ...]:
        """Return one baseline for each half-life to try."""
        return combinations(self, "half_life_days")

    def obstacle(self, queries: int, items: int) -> str:
        """Return nothing: counting is always possible."""
        return ""

    def fit(self, training: Histories) -> Scorer:
        """Count what is popular; see `Baseline.fit`."""
        background, half_life_days = popularity_background(training), self.half_life_days[0]
        times = training.interactions.timestamp
        now = 0 if times is None else int(np.max(times, initial=0))

        def score(histories: Histories) -> Float32:
            met = histories.interactions
            weights = np.ones(len(met), np.float32)
            if half_life_days and met.timestamp is not None:
                weights = np.exp2((np.asarray(met.timestamp) - now) / (half_life_days * DAY_US)).astype(np.float32)
            places = (np.asarray(met.query_row), np.asarray(met.item_row))
            own = csr_matrix((weights, places), (histories.owners, histories.items)).toarray()
            return np.where(own > 0, own, background)

        return score
