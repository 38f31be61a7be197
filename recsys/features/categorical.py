"""A column with one value a row, through a vocabulary or a hash, into a trained vector."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._lookup import LookupEncoder
from recsys.features._vocabulary import Vocabulary
from recsys.registry import settings
from recsys.spelling import Spelling
from recsys.types import Int64


@settings()
class Categorical:
    """One value a row: text, a number, a truth value or a time, compared by its spelling (`recsys.spelling`).

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
        spelling = Spelling.of(self.column, values.type)
        if self.hashed:
            return LookupEncoder(self, spelling, Vocabulary((), self.oov_buckets))
        ones = np.ones(len(values), np.int64)
        vocabulary = Vocabulary.fit(spelling.spell_column(values), ones, self.min_count, self.oov_buckets)
        return LookupEncoder(self, spelling, vocabulary)

    def restore(self, state: pa.Table) -> LookupEncoder:
        """Return the encoder that `fit` made."""
        spelling = Spelling.restore(self.column, state)
        return LookupEncoder(self, spelling, Vocabulary.restore(state, self.oov_buckets))
