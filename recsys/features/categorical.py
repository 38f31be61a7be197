"""A column with one value a row, through a vocabulary or a hash, into a trained vector."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._lookup import LookupEncoder
from recsys.features._vocabulary import Vocabulary, as_strings
from recsys.registry import settings
from recsys.types import Int64


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

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> LookupEncoder:
        """Learn the vocabulary from the rows of the table, each counted once."""
        del frequency
        if self.hashed:
            return LookupEncoder(self, Vocabulary((), self.oov_buckets))
        strings = as_strings(values, self.column)
        ones = np.ones(len(strings), np.int64)
        return LookupEncoder(self, Vocabulary.fit(strings, ones, self.min_count, self.oov_buckets))

    def restore(self, state: pa.Table) -> LookupEncoder:
        """Return the encoder that `fit` made."""
        return LookupEncoder(self, Vocabulary.restore(state, self.oov_buckets))
