"""Splits say which interactions train, which choose and which judge; one file is one `[split] kind`.

A choice has one verb, `assign`. To add one, write `splits/<kind>.py`; the contract tests find it by its name.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from recsys.registry import settings
from recsys.types import Interactions

TRAIN, VALIDATION, TEST = 0, 1, 2
Parts = NDArray[np.int8]


class Split(Protocol):
    """The contract of the family.

    Attributes:
        cuts_in_time: whether each query entity's held-out interactions come after those of the earlier parts. A query's
            history at evaluation then ends before the first held-out interaction; otherwise it holds all interactions
            of the earlier parts.
    """

    cuts_in_time: ClassVar[bool]

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return the part of each interaction: `TRAIN`, `VALIDATION` or `TEST`; `[interactions]`, int8.

        Args:
            interactions: all of them, sorted by query row, then time.
            seed: decides every random draw.

        Raises:
            DataError: the interactions have no times and the split needs them.
        """


def distinct_pairs(interactions: Interactions) -> NDArray[np.int64]:
    """Return a number for each interaction, from 0 without gaps, that repeats of one query and item share."""
    items = int(interactions.item_row.max(initial=0)) + 1
    pairs = interactions.query_row.astype(np.int64) * items + interactions.item_row
    return np.unique(pairs, return_inverse=True)[1]


def history_at_evaluation(split: Split) -> str:
    """Return in words what the history of a query holds when a model is judged."""
    if split.cuts_in_time:
        return "the entity's earlier interactions, up to its first held-out one"
    return "all of the entity's interactions that are not held out, also those after a held-out one"


@settings()
class Shares:
    """Settings of the splits that cut by shares; something must be left for training.

    Attributes:
        test_rate: share (0..1) for testing.
        validation_rate: share for validation.
    """

    test_rate: float = Field(default=0.1, gt=0, lt=1)
    validation_rate: float = Field(default=0.05, ge=0, lt=1)

    @field_validator("validation_rate")
    @classmethod
    def _leaves_training(cls, validation_rate: float, info: ValidationInfo) -> float:
        if validation_rate + info.data.get("test_rate", 0.0) >= 1:
            raise ValueError("less than 1 - test_rate, so that something is left for training")
        return validation_rate
