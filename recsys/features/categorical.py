"""A column with one value a row, through a vocabulary or a hash, into a trained vector."""

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
class Categorical:
    """One value a row; numbers count as their spelling.

    Attributes:
        column: the raw column; empty means the feature's name.
        width: length of the vector.
        min_count: rows that a value needs in the table to get a vector of its own.
        oov_buckets: vectors that the other values share by hash (CRC-32). Without a vocabulary (`hashed`) all values
            share them.
        hashed: no vocabulary; every value falls into one of `oov_buckets`.
    """

    column: str = ""
    width: int = Field(default=16, ge=1)
    min_count: int = Field(default=1, ge=1)
    oov_buckets: int = Field(default=1, ge=1)
    hashed: bool = False

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> CategoricalEncoder:
        """Learn the vocabulary from the rows of the table, each counted once."""
        del frequency
        if self.hashed:
            return CategoricalEncoder(self, Vocabulary((), self.oov_buckets))
        strings = as_strings(values, self.column)
        ones = np.ones(len(strings), np.int64)
        return CategoricalEncoder(self, Vocabulary.fit(strings, ones, self.min_count, self.oov_buckets))

    def restore(self, state: pa.Table) -> CategoricalEncoder:
        """Return the encoder that `fit` made."""
        return CategoricalEncoder(self, Vocabulary.restore(state, self.oov_buckets))


@dataclass(frozen=True)
class CategoricalEncoder:
    """Codes are int32 scalars: 0 missing, then the out-of-vocabulary buckets, then the known values."""

    settings: Categorical
    vocabulary: Vocabulary
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch]`, int32."""
        return self.vocabulary.codes(as_strings(values, self.settings.column))

    def state(self) -> pa.Table:
        """Return the known values."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a table look-up, `[batch] -> [batch, width]`."""
        from recsys.layers import Lookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return Lookup(table, name=name)
