"""Every interaction falls into a part by chance."""

from __future__ import annotations

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, leaves_training
from recsys.types import Interactions


@settings()
class Random:
    """Independent draws for each interaction; repeated pairs of one query and item go to one part together.

    Attributes:
        test_rate: share (0..1) for testing.
        validation_rate: share for validation.
    """

    test_rate: float = Field(default=0.1, gt=0, lt=1)
    validation_rate: float = Field(default=0.05, ge=0, lt=1)

    @field_validator("validation_rate")
    @classmethod
    def _leaves_training(cls, rate: float, info: ValidationInfo) -> float:
        return leaves_training(rate, info)

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each distinct pair of query and item."""
        items = int(interactions.item_row.max(initial=0)) + 1
        pairs = interactions.query_row.astype(np.int64) * items + interactions.item_row
        _, pair_of = np.unique(pairs, return_inverse=True)
        drawn = np.random.default_rng([seed, 1]).random(int(pair_of.max(initial=-1)) + 1)[pair_of]
        parts = np.full(len(interactions), TRAIN, np.int8)
        parts[drawn < self.test_rate + self.validation_rate] = VALIDATION
        parts[drawn < self.test_rate] = TEST
        return parts
