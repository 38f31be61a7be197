"""Features turn one raw column into one vector `[batch, width]`; one file is one `kind` under `[item.features.<name>]`.

A choice has one verb, `fit`, which learns from the catalogue (a vocabulary, a mean) and returns an `Encoder`. What an
encoder learned is an Arrow table that travels in the release. Its two halves meet in the integer codes between them:
`encode` (NumPy and Arrow, the same code in training and serving, so that the two cannot skew) and `build` (a Keras
layer over the codes). All kinds read values through `recsys.spelling`. To add one, write `features/<kind>.py`; the
contract tests find it by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from recsys.types import Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


class Encoder(Protocol):
    """A fitted feature.

    Attributes:
        shape: shape of one row's code, without the batch axis.
        dtype: NumPy type of the codes, int32 or float32.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def encode(self, values: pa.Array) -> np.ndarray:
        """Return the codes of raw values, `[batch, *shape]`; null, unseen and empty values have codes of their own.

        Raises:
            DataError: the values have a type that this feature cannot read.
        """

    def encode_values(self, values: Sequence[Any]) -> np.ndarray:
        """Return the codes of raw Python values, `[len(values), *shape]`: of each one as `encode` gives it.

        Raises:
            DataError: a value has a type that this feature cannot read.
        """

    def state(self) -> pa.Table:
        """Return what `fit` learned, for the release."""

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return the Keras layer from codes to `[batch, width]`, float32.

        Args:
            name: the layer's name, unique in its tower.
            key: the name of its embedding table; features with one key share the table.
            tables: the embedding tables of the model.
        """


class Feature(Protocol):
    """The contract of the family.

    Attributes:
        column: the raw column; empty means the feature's own name.
    """

    column: str

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> Encoder:
        """Learn from the raw values of one side's table.

        Args:
            values: `[rows]`, the column as the source gave it.
            frequency: `[rows]`, int64, how many training interactions each row takes part in.

        Raises:
            DataError: the column has a type or values that this feature cannot read.
        """

    def restore(self, state: pa.Table) -> Encoder:
        """Return the encoder whose `state` was stored in a release."""
