"""The last items that the query entity met, pooled; the items' vectors are those of the item side's `id` feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._vocabulary import Vocabulary, as_string_lists, as_strings, pad
from recsys.registry import settings
from recsys.types import Int32, Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


@settings()
class History:
    """The items met before, newest first, at most `length`.

    In training only interactions strictly earlier than the example's own count, so a basket never sees itself. Where
    the source has no times, history is a random draw of the entity's other training items.

    Attributes:
        length: items that count.
        pooling: how their vectors become one.
        width: length of the vector; the item side's `id` feature overrides it, because they share one table.
        min_count: training interactions that an item needs to get a vector of its own; overridden likewise.
        oov_buckets: vectors that the other items share by hash; overridden likewise.
    """

    length: int = Field(default=20, ge=1)
    pooling: Literal["mean", "sum", "sqrt"] = "mean"
    width: int = Field(default=32, ge=1)
    min_count: int = Field(default=1, ge=1)
    oov_buckets: int = Field(default=1, ge=1)

    @property
    def column(self) -> str:
        """The name under which requests and releases carry it."""
        return "history"

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> HistoryEncoder:
        """Learn which items occur in at least `min_count` training interactions.

        Args:
            values: the item ids of the catalogue, `[items]`.
            frequency: `[items]`, int64, training interactions of each item.
        """
        vocabulary = Vocabulary.fit(as_strings(values, self.column), frequency, self.min_count, self.oov_buckets)
        return HistoryEncoder(self, vocabulary)

    def restore(self, state: pa.Table) -> HistoryEncoder:
        """Return the encoder that `fit` made."""
        return HistoryEncoder(self, Vocabulary.restore(state, self.oov_buckets))


@dataclass(frozen=True)
class HistoryEncoder:
    """Codes are `[length]`, int32, padded with -1; an empty history is one 0 ('missing')."""

    settings: History
    vocabulary: Vocabulary
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return (self.settings.length,)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, length]`, int32, from lists of item ids, newest first."""
        lengths, strings = as_string_lists(values, self.settings.column)
        return pad(lengths, self.vocabulary.codes(strings), self.settings.length)

    def state(self) -> pa.Table:
        """Return the known item ids."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up, `[batch, length] -> [batch, width]`."""
        from recsys.layers import BagLookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return BagLookup(table, self.settings.pooling, name=name)
