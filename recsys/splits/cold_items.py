"""Whole items are held out: what the model says of items that it never met in training."""

from __future__ import annotations

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, leaves_training
from recsys.types import Interactions


@settings()
class ColdItems:
    """All interactions of an item fall into one part.

    Attributes:
        test_rate: share (0..1) of the items with interactions that is for testing.
        validation_rate: share of them that is for validation.
    """

    test_rate: float = Field(default=0.1, gt=0, lt=1)
    validation_rate: float = Field(default=0.05, ge=0, lt=1)

    @field_validator("validation_rate")
    @classmethod
    def _leaves_training(cls, rate: float, info: ValidationInfo) -> float:
        return leaves_training(rate, info)

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each item."""
        met, item_of = np.unique(interactions.item_row, return_inverse=True)
        drawn = np.random.default_rng([seed, 2]).permutation(len(met))
        of_item = np.full(len(met), TRAIN, np.int8)
        tests, validations = round(len(met) * self.test_rate), round(len(met) * self.validation_rate)
        of_item[drawn[:tests]] = TEST
        of_item[drawn[tests : tests + validations]] = VALIDATION
        return of_item[item_of]
