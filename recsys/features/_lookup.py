"""Encoders over a vocabulary: one code a row, or a bag of codes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from recsys.features._vocabulary import MISSING, PADDING, Ragged, Vocabulary, pad
from recsys.spelling import Spelling
from recsys.types import Int32

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


@dataclass(frozen=True)
class LookupEncoder:
    """Codes are int32 scalars: 0 missing, then the out-of-vocabulary buckets, then the known values.

    Attributes:
        settings: the feature, with `width`.
        spelling: of the column's values.
        vocabulary: from spellings to codes.
        unknown_rate: share (0..1) of training examples in which the value is hidden behind the first bucket.
    """

    settings: Any
    spelling: Spelling
    vocabulary: Vocabulary
    unknown_rate: float = 0.0
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch]`, int32."""
        return self.vocabulary.codes(self.spelling.spell_column(values))

    def encode_values(self, values: Sequence[Any]) -> Int32:
        """Return `[len(values)]`, int32."""
        spell, code = self.spelling.spell, self.vocabulary.code
        return np.array([code(spell(value)) for value in values], np.int32)

    def state(self) -> pa.Table:
        """Return the known values and how the column's values are spelled."""
        return self.vocabulary.state().replace_schema_metadata(self.spelling.metadata)

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a table look-up, `[batch] -> [batch, width]`."""
        from recsys.layers import Lookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return Lookup(table, unknown_rate=self.unknown_rate, name=name)


@dataclass(frozen=True)
class BagEncoder:
    """Codes are `[values]`, int32, padded with -1; an empty bag is one 0 ('missing').

    Attributes:
        settings: the feature, with `width` and `pooling`.
        spelling: of the column's values.
        vocabulary: from spellings to codes.
        places: values of a row that count, the first ones; 0 means all, as many as the longest row of a batch has.
        dropout_rate: share (0..1) of the values that training hides.
    """

    settings: Any
    spelling: Spelling
    vocabulary: Vocabulary
    places: int
    dropout_rate: float = 0.0
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one row's code; None where it differs from batch to batch."""
        return (self.places or None,)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, values]`, int32."""
        lengths, spelled = self.spelling.spell_lists(values)
        return pad(lengths, self.vocabulary.codes(spelled), self.places or max(1, int(lengths.max(initial=0))))

    def encode_rows(self, values: pa.Array) -> Int32 | Ragged:
        """Return the codes of many rows, to be indexed by them; without padding where a row may have any number."""
        if self.places:
            return self.encode(values)
        lengths, spelled = self.spelling.spell_lists(values)
        return Ragged(lengths, self.vocabulary.codes(spelled))

    def encode_values(self, values: Sequence[Any]) -> Int32:
        """Return `[len(values), values]`, int32."""
        found = [self.spelling.spell_list(value)[: self.places or None] for value in values]
        codes = np.full((len(values), self.places or max([1, *map(len, found)])), PADDING, np.int32)
        for row, texts in enumerate(found):
            codes[row, : len(texts) or 1] = self.vocabulary.codes_of(texts) or MISSING
        return codes

    def state(self) -> pa.Table:
        """Return the known values and how the column's values are spelled."""
        return self.vocabulary.state().replace_schema_metadata(self.spelling.metadata)

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up, `[batch, places] -> [batch, width]`."""
        from recsys.layers import BagLookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return BagLookup(table, self.settings.pooling, name=name, dropout_rate=self.dropout_rate)
