"""Features side by side through a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from recsys.registry import settings
from recsys.search_space import Between, OneOf
from recsys.towers import Length

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer
    from recsys.stack import tf


@settings()
class Mlp:
    """`normalise(W_n h_{n-1} + b_n)`, `h_i = dropout(activation(W_i h_{i-1} + b_i))`, `h_0` = features side by side.

    Reference:
        Yi et al. 2019, Sampling-bias-corrected neural modeling, RecSys'19, Section 3; Yao et al. 2021,
        arXiv:2007.12865v4, Figure 3.

    Attributes:
        hidden: widths of the hidden layers; none makes the tower linear.
        dim: length of the output vector.
        activation: of the hidden layers.
        dropout_rate: share (0..1) of each hidden layer's values that is dropped in training.
    """

    hidden: Annotated[tuple[int, ...], OneOf(((128,), (256,), (512,), (256, 128)))] = (256,)
    dim: Annotated[int, OneOf((32, 64, 128, 256))] = Field(default=64, ge=2)
    activation: Literal["relu", "gelu", "selu", "tanh"] = "relu"
    dropout_rate: Annotated[float, Between(0.0, 0.5)] = Field(default=0.0, ge=0, lt=1)

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
        from recsys.layers import Perceptron

        policy = "mixed_bfloat16" if mixed_precision == "bfloat16" else "float32"
        return Perceptron(
            dict(features),
            self.hidden,
            self.dim,
            self.activation,
            self.dropout_rate,
            policy=policy,
            augmented=augmented,
            length=length,
            name=name,
        )
