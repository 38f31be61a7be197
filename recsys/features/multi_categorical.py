"""A column with several values a row (genres, categories), pooled into one trained vector."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._lookup import BagEncoder
from recsys.features._vocabulary import Vocabulary
from recsys.registry import settings
from recsys.spelling import Spelling
from recsys.types import Int64


@settings()
class MultiCategorical:
    """Any number of values a row; the vector is pooled over the first `max_values` of them.

    Values are text, numbers, truth values or times, compared by their spelling (`recsys.spelling`).

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

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> BagEncoder:
        """Learn the vocabulary from the rows of the table, each counted once."""
        del frequency
        spelling = Spelling.of(self.column, values.type, in_lists=True)
        if self.hashed:
            return BagEncoder(self, spelling, Vocabulary((), self.oov_buckets), self.max_values)
        _, spelled = spelling.spell_lists(values)
        ones = np.ones(len(spelled.rows), np.int64)
        vocabulary = Vocabulary.fit(spelled, ones, self.min_count, self.oov_buckets)
        return BagEncoder(self, spelling, vocabulary, self.max_values)

    def restore(self, state: pa.Table) -> BagEncoder:
        """Return the encoder that `fit` made."""
        spelling = Spelling.restore(self.column, state)
        return BagEncoder(self, spelling, Vocabulary.restore(state, self.oov_buckets), self.max_values)
