"""The last interactions of every query entity judge, those before them choose, the rest trains."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from recsys.errors import DataError
from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts
from recsys.types import Interactions
from twintower.errors import describe


@settings()
class LeaveLast:
    """Leave-last-n; an entity with too few interactions to leave one for training only trains.

    Attributes:
        test_count: latest interactions of each entity that are for testing.
        validation_count: those before them that are for validation.
    """

    test_count: int = Field(default=1, ge=1)
    validation_count: int = Field(default=1, ge=0)

    cuts_in_time: ClassVar[bool] = True

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts counted from each entity's latest interaction backwards."""
        del seed
        if interactions.timestamp is None:
            raise DataError(describe("split.kind", "leave_last", "a source with times", "Use 'random'."))
        rows = interactions.query_row
        starts = np.searchsorted(rows, rows, side="left")
        ends = np.searchsorted(rows, rows, side="right")
        from_end = ends - np.arange(len(rows))
        parts = np.full(len(rows), TRAIN, np.int8)
        parts[from_end <= self.test_count + self.validation_count] = VALIDATION
        parts[from_end <= self.test_count] = TEST
        parts[ends - starts <= self.test_count + self.validation_count] = TRAIN
        return parts
