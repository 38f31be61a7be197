"""The id of the item or query entity itself, into a trained vector of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._vocabulary import Vocabulary, as_strings
from recsys.registry import settings
from recsys.types import Int32, Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


@settings()
class Id:
    """The entity's own id: those met often enough in training get a vector, the others share one.

    Attributes:
        column: the raw column; empty means the side's id column.
        width: length of the vector.
        min_count: training interactions that an id needs to get a vector of its own.
        oov_buckets: vectors that the other ids share by hash (CRC-32).
        unknown_rate: share (0..1) of training examples in which the id is hidden behind the first shared vector, so
            that an id unknown at serving time meets a vector that was trained.
    """

    column: str = ""
    width: int = Field(default=32, ge=1)
    min_count: int = Field(default=1, ge=1)
    oov_buckets: int = Field(default=1, ge=1)
    unknown_rate: float = Field(default=0.05, ge=0, lt=1)

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> IdEncoder:
        """Learn which ids occur in at least `min_count` training interactions."""
        vocabulary = Vocabulary.fit(as_strings(values, self.column), frequency, self.min_count, self.oov_buckets)
        return IdEncoder(self, vocabulary)

    def restore(self, state: pa.Table) -> IdEncoder:
        """Return the encoder that `fit` made."""
        return IdEncoder(self, Vocabulary.restore(state, self.oov_buckets))


@dataclass(frozen=True)
class IdEncoder:
    """Codes are int32 scalars: 0 missing, then the out-of-vocabulary buckets, then the known ids."""

    settings: Id
    vocabulary: Vocabulary
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch]`, int32."""
        return self.vocabulary.codes(as_strings(values, self.settings.column))

    def state(self) -> pa.Table:
        """Return the known ids."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a table look-up that hides some ids in training, `[batch] -> [batch, width]`."""
        from recsys.layers import Lookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return Lookup(table, unknown_rate=self.settings.unknown_rate, name=name)
