"""Whole items are held out: what the model says of items that it never met in training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, Shares
from recsys.types import Interactions


@settings()
class ColdItems(Shares):
    """All interactions of an item fall into one part.

    Attributes:
        test_rate: share (0..1) of the items with interactions that is for testing.
        validation_rate: share of them that is for validation.
    """

    cuts_in_time: ClassVar[bool] = False

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each item."""
        met, item_of = np.unique(interactions.item_row, return_inverse=True)
        drawn = np.random.default_rng([seed, 2]).permutation(len(met))
        of_item = np.full(len(met), TRAIN, np.int8)
        tests, validations = round(len(met) * self.test_rate), round(len(met) * self.validation_rate)
        of_item[drawn[:tests]] = TEST
        of_item[drawn[tests : tests + validations]] = VALIDATION
        return of_item[item_of]
