"""Dropout on the features' vectors, whatever they mean: the feature-dropout baseline (FD)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from recsys.registry import settings
from recsys.search_space import Between
from recsys.stack import tf
from recsys.views import Fields, Views


@settings()
class EmbeddingDropout:
    """Each number of each feature's vector is set to 0 on its own; the others grow by `1 / (1 - rate)`.

    Under `[item]` it is the baseline FD: dropout on the item tower's inputs in the main task, without a second task.
    Under `[self_supervision]` it makes the two views of SimCSE and of the public SELFRec code.

    Reference:
        Volkovs, Yu and Poutanen 2017, DropoutNet, NIPS; Yao et al. 2021, arXiv:2007.12865v4, Section 4.1, FD.

    Attributes:
        rate: probability (0..1) that a number is dropped.
    """

    masks: ClassVar[bool] = False

    rate: Annotated[float, Between(0.05, 0.7)] = Field(default=0.3, gt=0, lt=1)

    def augment(self, views: Views, fields: Fields, seed: tf.Tensor) -> Views:
        """Tell the tower to drop; on top of an earlier rate the shares that are kept multiply."""
        del fields, seed
        return replace(views, dropout_rate=1 - (1 - views.dropout_rate) * (1 - self.rate))
