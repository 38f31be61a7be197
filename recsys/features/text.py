"""A text column as a bag of hashed word n-grams, pooled into one trained vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys.features._vocabulary import bucket, pad
from recsys.registry import settings
from recsys.spelling import Spelling
from recsys.types import Int32, Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables

WORD = re.compile(r"\w+")


@settings()
class Text:
    """Words and word n-grams of a text, case folded, hashed (CRC-32) into a fixed number of vectors.

    Attributes:
        column: the raw column; empty means the feature's name.
        width: length of the vector.
        ngrams: the longest n-gram, in words.
        buckets: trained vectors that the n-grams share.
        max_terms: distinct n-grams of a text that count, in order of appearance, single words first.
        pooling: how their vectors become one.
    """

    column: str = ""
    width: int = Field(default=32, ge=1)
    ngrams: int = Field(default=1, ge=1, le=5)
    buckets: int = Field(default=20_000, ge=2)
    max_terms: int = Field(default=32, ge=1)
    pooling: Literal["mean", "sum", "sqrt"] = "sqrt"

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> TextEncoder:
        """Return the encoder; hashing has nothing to learn but how the column's values are spelled."""
        del frequency
        return TextEncoder(self, Spelling.of(self.column, values.type))

    def restore(self, state: pa.Table) -> TextEncoder:
        """Return the encoder that `fit` made."""
        return TextEncoder(self, Spelling.restore(self.column, state))


@dataclass(frozen=True)
class TextEncoder:
    """Codes are `[max_terms]`, int32, padded with -1; an empty text is one 0 ('missing')."""

    settings: Text
    spelling: Spelling
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return (self.settings.max_terms,)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, max_terms]`, int32."""
        spelled = self.spelling.spell_column(values)
        return self._codes((*spelled.texts, None))[spelled.rows]

    def encode_values(self, values: Sequence[Any]) -> Int32:
        """Return `[len(values), max_terms]`, int32."""
        return self._codes([self.spelling.spell(value) for value in values])

    def state(self) -> pa.Table:
        """Return an empty table whose metadata says how the column's values are spelled."""
        return pa.table({}).replace_schema_metadata(self.spelling.metadata)

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up, `[batch, max_terms] -> [batch, width]`."""
        from recsys.layers import BagLookup

        table = tables.get(key, 1 + self.settings.buckets, self.settings.width, reserved=1)
        return BagLookup(table, self.settings.pooling, name=name)

    def _codes(self, texts: Sequence[str | None]) -> Int32:
        rows = [self._terms(text) for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        codes = np.fromiter((code for row in rows for code in row), np.int32, int(lengths.sum()))
        return pad(lengths, codes, self.settings.max_terms)

    def _terms(self, text: str | None) -> list[int]:
        words = WORD.findall((text or "").casefold())
        grams = (
            " ".join(words[start : start + n])
            for n in range(1, self.settings.ngrams + 1)
            for start in range(len(words) - n + 1)
        )
        distinct = islice(dict.fromkeys(grams), self.settings.max_terms)
        return [1 + bucket(gram, self.settings.buckets) for gram in distinct]
