"""What augmentations and towers pass to each other: the views of a batch, and what is known of its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.stack import tf


@dataclass(frozen=True, eq=False)
class Fields:
    """What an augmentation knows of a side's features before any batch.

    Attributes:
        names: the features, in the order of the tower's inputs.
        ids: those of kind `id`, which determine all others.
        bags: those with several values a row: int32 codes `[batch, values]`, padded with -1.
        dependence: measures when called how much the features tell of each other, `[features, features]`, float64; by
            `mutual_information` or `normalised`, over `items` or `interactions`.
    """

    names: tuple[str, ...]
    ids: frozenset[str]
    bags: frozenset[str]
    dependence: Callable[[str, str], NDArray[np.float64]]

    @property
    def content(self) -> tuple[str, ...]:
        """The features that are no ids."""
        return tuple(name for name in self.names if name not in self.ids)


@dataclass(frozen=True, eq=False)
class Views:
    """The views of one batch, as far as they have been augmented.

    Attributes:
        codes: by feature, `[batch, *shape]` each: one tensor that all views share, or one for each view.
        masked: `[views, batch or 1, features]`, bool: the tower reads the field's default embedding instead.
        disjoint: no feature can be seen in two views.
        dropout_rate: share (0..1) of the numbers in each feature's vector that the tower drops, anew in each view.
    """

    codes: Mapping[str, tuple[tf.Tensor, ...]]
    masked: tf.Tensor
    disjoint: bool = False
    dropout_rate: float = 0.0

    @property
    def count(self) -> int:
        """How many views."""
        return self.masked.shape[0]

    @staticmethod
    def of(codes: Mapping[str, tf.Tensor], count: int) -> Views:
        """Return `count` views that show everything."""
        return Views({name: (tensor,) for name, tensor in codes.items()}, tf.zeros((count, 1, len(codes)), tf.bool))
