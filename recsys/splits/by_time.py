"""Train on the past, judge on the future: two cuts in time for all query entities."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.errors import DataError
from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, Shares
from recsys.types import Interactions
from twintower.errors import describe, verbatim


@settings()
class ByTime(Shares):
    """The last part of the time is for testing, the part before it for validation.

    Attributes:
        test_rate: share (0..1) of the interactions, the latest ones, that is for testing.
        validation_rate: share of the interactions just before those that is for validation.
    """

    cuts_in_time: ClassVar[bool] = True

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts cut at two instants; interactions of one instant stay together, in the later part.

        Raises:
            DataError: no times, or too few different ones to leave an interaction for training.
        """
        del seed
        if interactions.timestamp is None:
            raise DataError(describe("split.kind", "by_time", "a source with times", "Use 'random' or 'cold_items'."))
        count = len(interactions)
        parts = np.full(count, TRAIN, np.int8)
        if count == 0:
            return parts
        ordered = np.sort(interactions.timestamp)
        test_from = ordered[min(int(count * (1 - self.test_rate)), count - 1)]
        validation_from = ordered[min(int(count * (1 - self.test_rate - self.validation_rate)), count - 1)]
        if self.validation_rate > 0:
            parts[interactions.timestamp >= validation_from] = VALIDATION
        parts[interactions.timestamp >= test_from] = TEST
        if not (parts == TRAIN).any():
            share = f"{(ordered == ordered[0]).mean():.1%} of the interactions at the earliest time"
            advice = "Use split.kind = 'random', or a timestamp_column that tells more interactions apart."
            raise DataError(describe("split.kind", verbatim(f"by_time, {share}"), "earlier ones to train on", advice))
        return parts
