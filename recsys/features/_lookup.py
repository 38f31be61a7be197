"""Encoders over a vocabulary: one code a row, or a bag of codes a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from recsys.features._vocabulary import MISSING, PADDING, Vocabulary, as_string_lists, as_strings, pad
from recsys.types import Int32

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables


@dataclass(frozen=True)
class LookupEncoder:
    """Codes are int32 scalars: 0 missing, then the out-of-vocabulary buckets, then the known values.

    Attributes:
        settings: the feature, with `column` and `width`.
        vocabulary: from values to codes.
        unknown_rate: share (0..1) of training examples in which the value is hidden behind the first bucket.
    """

    settings: Any
    vocabulary: Vocabulary
    unknown_rate: float = 0.0
    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch]`, int32."""
        return self.vocabulary.codes(as_strings(values, self.settings.column))

    def code(self, value: Any) -> Int32 | None:
        """Return `[1]`, int32, of a string or nothing."""
        if value is not None and not isinstance(value, str):
            return None
        return np.array([self.vocabulary.code(value)], np.int32)

    def state(self) -> pa.Table:
        """Return the known values."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a table look-up, `[batch] -> [batch, width]`."""
        from recsys.layers import Lookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return Lookup(table, unknown_rate=self.unknown_rate, name=name)


@dataclass(frozen=True)
class BagEncoder:
    """Codes are `[places]`, int32, padded with -1; an empty bag is one 0 ('missing').

    Attributes:
        settings: the feature, with `column`, `width` and `pooling`.
        vocabulary: from values to codes.
        places: values of a row that count, the first ones.
    """

    settings: Any
    vocabulary: Vocabulary
    places: int
    dtype: ClassVar[np.dtype] = np.dtype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return (self.places,)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, places]`, int32."""
        lengths, strings = as_string_lists(values, self.settings.column)
        return pad(lengths, self.vocabulary.codes(strings), self.places)

    def code(self, value: Any) -> Int32 | None:
        """Return `[1, places]`, int32, of a list of strings or nothing."""
        if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            return None
        codes = np.full((1, self.places), PADDING, np.int32)
        found = [self.vocabulary.code(each) for each in (value or ())[: self.places]] or [MISSING]
        codes[0, : len(found)] = found
        return codes

    def state(self) -> pa.Table:
        """Return the known values."""
        return self.vocabulary.state()

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up, `[batch, places] -> [batch, width]`."""
        from recsys.layers import BagLookup

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        return BagLookup(table, self.settings.pooling, name=name)
