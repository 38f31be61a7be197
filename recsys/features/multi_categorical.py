"""A column with several values a row (genres, categories), pooled into one trained vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._vocabulary import Vocabulary, as_string_lists, pad
from recsys.registry import settings
from recsys.types import Int32, Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


@settings()
class MultiCategorical:
    """Any number of values a row; the vector is pooled over the first `max_values` of them.

    Attributes:
        column: the raw column of lists; empty means the feature's name. Single values count as lists of one.
        width: length of the vector.
        max_values: values of a row that count; the rest is cut.
        pooling: how the values' vectors become one.
        min_count: rows that a value needs in the table to get a vector of its own.
        oov_buckets: vectors that the other values share by hash (CRC-32).
        hashed: no vocabulary; every value falls into one of `oov_buckets`.
    """

    column: str = ""
    width: int = Field(default=16, ge=1)
    max_values: int = Field(default=16, ge=1)
    pooling: Literal["mean", "sum", "sqrt"] = "mean"
    min_count: int = Field(default=1, ge=1)
    oov_buckets: int = Field(default=1, ge=1)
    hashed: bool = False

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> MultiCategoricalEncoder:
        """Learn the vocabulary from the rows of the table, each counted once."""
        del frequency
        if self.hashed:
            return MultiCategoricalEncoder(self, Vocabulary((), self.oov_buckets))
        _, strings = as_string_lists(values, self.column)
        ones = np.ones(len(strings), np.int64)
        return MultiCategoricalEncoder(self, Vocabulary.fit(strings, ones, self.min_count, self.oov_buckets))

    def restore(self, state: pa.Table) -> MultiCategoricalEncoder:
        """Return the encoder that `fit` made."""
        return MultiCategoricalEncoder(self, Vocabulary.restore(state, self.oov_buckets))


@dataclass(frozen=True)
class MultiCategoricalEncoder:
    """Codes are `[max_values]`, int32, padded with -1; an empty bag is one 0 ('missing')."""

    settings: MultiCategorical
    vocabulary: Vocabulary
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return (self.settings.max_values,)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, max_values]`, int32."""
        lengths, strings = as_string_lists(values, self.settings.column)
        return pad(lengths, self.vocabulary.codes(strings), self.settings.max_values)

    def state(self) -> pa.Table:
        """Return the known values."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up, `[batch, max_values] -> [batch, width]`."""
        from recsys.layers import BagLookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return BagLookup(table, self.settings.pooling, name=name)
