"""Whole items are held out: how a model ranks items that it never met in training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, Shares, distinct_pairs
from recsys.types import Interactions


@settings()
class ColdItems(Shares):
    """All interactions of a held-out item fall into one part; of the other items, some pairs may be held out, too.

    Attributes:
        test_rate: share (0..1) of the items with interactions that is for testing.
        validation_rate: share of them that is for validation.
        warm_rate: share (0..1) of the distinct pairs of a query and one of the other items that is for testing, and as
            much again for validation. New items are then judged in one ranking with items that were trained on, and
            validation sees what the former cost the latter; 0 judges new items alone.
    """

    cuts_in_time: ClassVar[bool] = False

    warm_rate: float = Field(default=0.0, ge=0, lt=0.5)

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each item, and for pairs with items that are not held out."""
        met, item_of = np.unique(interactions.item_row, return_inverse=True)
        drawn = np.random.default_rng([seed, 2]).permutation(len(met))
        of_item = np.full(len(met), TRAIN, np.int8)
        tests, validations = round(len(met) * self.test_rate), round(len(met) * self.validation_rate)
        of_item[drawn[:tests]] = TEST
        of_item[drawn[tests : tests + validations]] = VALIDATION
        parts = of_item[item_of]
        pair_of = distinct_pairs(interactions)
        drawn = np.random.default_rng([seed, 4]).random(int(pair_of.max(initial=-1)) + 1)[pair_of]
        is_warm = parts == TRAIN
        parts[is_warm & (drawn < 2 * self.warm_rate)] = VALIDATION
        parts[is_warm & (drawn < self.warm_rate)] = TEST
        return parts
