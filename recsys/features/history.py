"""The last items that the query entity met, pooled; the items' vectors are those of the item side's `id` feature."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import Field

from recsys.features._lookup import BagEncoder
from recsys.features._vocabulary import Vocabulary
from recsys.registry import settings
from recsys.spelling import Spelling
from recsys.types import HISTORY, Int64


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
        return HISTORY

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> BagEncoder:
        """Learn which items occur in at least `min_count` training interactions.

        Args:
            values: the item ids of the catalogue, `[items]`.
            frequency: `[items]`, int64, training interactions of each item.
        """
        spelling = Spelling(self.column)
        vocabulary = Vocabulary.fit(spelling.spell_column(values), frequency, self.min_count, self.oov_buckets)
        return BagEncoder(self, spelling, vocabulary, self.length)

    def restore(self, state: pa.Table) -> BagEncoder:
        """Return the encoder that `fit` made."""
        spelling = Spelling.restore(self.column, state)
        return BagEncoder(self, spelling, Vocabulary.restore(state, self.oov_buckets), self.length)
