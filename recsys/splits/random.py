"""Every interaction falls into a part by chance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, Shares, distinct_pairs
from recsys.types import Interactions


@settings()
class Random(Shares):
    """Independent draws for each interaction; repeated pairs of one query and item go to one part together.

    Attributes:
        test_rate: share (0..1) for testing.
        validation_rate: share for validation.
    """

    cuts_in_time: ClassVar[bool] = False

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each distinct pair of query and item."""
        pair_of = distinct_pairs(interactions)
        drawn = np.random.default_rng([seed, 1]).random(int(pair_of.max(initial=-1)) + 1)[pair_of]
        parts = np.full(len(interactions), TRAIN, np.int8)
        parts[drawn < self.test_rate + self.validation_rate] = VALIDATION
        parts[drawn < self.test_rate] = TEST
        return parts
