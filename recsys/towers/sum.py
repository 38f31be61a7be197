"""The sum of the features' vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from recsys.registry import settings
from recsys.search_space import OneOf
from recsys.towers import Length

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer
    from recsys.stack import tf

AUTO = "auto"


@settings()
class Sum:
    """`sum_f x_f`: the vectors of all features added; ready-made numbers, which have no table, go through a matrix.

    All tables are as wide as the sum: a feature's own `width` is not read.

    Over a history alone it is the bag of what the entity has met: the form of a query in EASE, DLAE and SLIM.

    Reference:
        Shenbin et al. 2020, arXiv:1912.11160, Section 2, for autoencoders over bags of items; Rendle 2010,
        Factorization Machines, Eq. 1, for the sum of features.

    Attributes:
        dim: length of the sum; with `auto`, objectives in closed form take the one of 64, 128, 256, 512 and 1024 that
            is best on the validation cases, or a shorter one that is as good up to a tenth of a percent; all others
            take 256.
        dropout_rate: share (0..1) of the sum's numbers that is dropped in training.
    """

    dim: Annotated[Annotated[int, Field(ge=2)] | Literal["auto"], OneOf((64, 128, 256, 512), in_steps=True)] = AUTO
    dropout_rate: float = Field(default=0.0, ge=0, lt=1)

    def build(
        self,
        features: Mapping[str, FeatureLayer],
        *,
        name: str,
        mixed_precision: str,
        augmented: bool = False,
        length: Length = "none",
    ) -> tf.keras.layers.Layer:
        """Return the tower as one Keras layer."""
        from recsys.layers import FeatureSum

        del mixed_precision  # there is no hidden layer
        return FeatureSum(dict(features), self.dim, self.dropout_rate, augmented=augmented, length=length, name=name)
