"""Splits say which interactions train, which choose and which judge; one file is one `[split] kind`.

A choice has one verb, `assign`. To add one, write `splits/<kind>.py`; the contract tests find it by its name.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationInfo

from recsys.types import Interactions

TRAIN, VALIDATION, TEST = 0, 1, 2
Parts = NDArray[np.int8]


class Split(Protocol):
    """The contract of the family."""

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return the part of each interaction: `TRAIN`, `VALIDATION` or `TEST`; `[interactions]`, int8.

        Args:
            interactions: all of them, sorted by query row, then time.
            seed: decides every random draw.

        Raises:
            DataError: the interactions have no times and the split needs them.
        """


def leaves_training(validation_rate: float, info: ValidationInfo) -> float:
    """Return the rate when something is left for training: the check that splits by share have in common."""
    if validation_rate + info.data.get("test_rate", 0.0) >= 1:
        raise ValueError("less than 1 - test_rate, so that something is left for training")
    return validation_rate
