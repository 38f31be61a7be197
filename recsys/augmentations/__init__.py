"""Augmentations make views of a batch: the same rows with some of their content hidden; one file is one `kind`.

They stand in lists under `[self_supervision]` (two views for the second task) and `[item]` (one view for the main task)
and are applied in order, each to what the one before it left. A choice has one verb, `augment`. To add one, write
`augmentations/<kind>.py`; the contract tests find it by its name.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from recsys.stack import tf
from recsys.views import Fields, Views


class Augmentation(Protocol):
    """The contract of the family.

    Attributes:
        masks: whether it hides whole features; a list holds one such augmentation at most.
    """

    masks: ClassVar[bool]

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Return the views with more of their content hidden.

        Args:
            views: as the augmentations before it left them.
            fields: the features; `names` is the order of the last axis of `views.masked`.
            seed: `[2]`, int32; every random draw is a function of it.
        """
