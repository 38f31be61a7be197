"""The id of the item or query entity itself, into a trained vector of its own."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from recsys.features._lookup import LookupEncoder
from recsys.features._vocabulary import Vocabulary
from recsys.registry import settings
from recsys.spelling import Spelling
from recsys.types import Int64


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
    min_count: int = Field(default=1, ge=0)
    oov_buckets: int = Field(default=1, ge=1)
    unknown_rate: float = Field(default=0.05, ge=0, lt=1)

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> LookupEncoder:
        """Learn which ids occur in at least `min_count` training interactions."""
        spelling = Spelling.of(self.column, values.type)
        vocabulary = Vocabulary.fit(spelling.spell_column(values), frequency, self.min_count, self.oov_buckets)
        return LookupEncoder(self, spelling, vocabulary, self.unknown_rate)

    def restore(self, state: pa.Table) -> LookupEncoder:
        """Return the encoder that `fit` made."""
        spelling = Spelling.restore(self.column, state)
        return LookupEncoder(self, spelling, Vocabulary.restore(state, self.oov_buckets), self.unknown_rate)
