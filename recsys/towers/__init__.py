"""Towers turn the features of one side into one unit-length vector `[batch, dim]`; one file is one `[tower] kind`.

A choice has one verb, `build`. To add one, write `towers/<kind>.py`; the contract tests find it by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from recsys.forward import Length

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer
    from recsys.stack import tf


class Tower(Protocol):
    """The contract of the family.

    Attributes:
        dim: length of the vectors before a coordinate for their length is added.
    """

    dim: int

    def build(
        self,
        features: Mapping[str, FeatureLayer],
        *,
        name: str,
        mixed_precision: str,
        augmented: bool = False,
        length: Length = "none",
    ) -> tf.keras.layers.Layer:
        """Return a `recsys.layers.TowerLayer`: `(codes, seed=None) -> [batch, dim]`, float32, unit length.

        Once trained, its `plain()` gives the same without TensorFlow (`recsys.forward.PlainTower`), or None where that
        is not possible. Where `augmented`, it also has `encode_views(views, seed) -> [views, batch, dim]` over the same
        weights.

        Args:
            features: one layer for each feature; the tower's input is a dictionary of codes by the same names.
            name: `query_tower` or `item_tower`.
            mixed_precision: `none`, or `bfloat16` for the hidden layers.
            augmented: whether training will ask for views; without, the tower has no variable for them.
            length: whether the lengths of raw vectors count, and of which side the tower is; the output then has one
                coordinate more.
        """
