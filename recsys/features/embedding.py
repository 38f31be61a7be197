"""A ready-made vector column (a sentence or image encoder's output), used as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from recsys.errors import DataError
from recsys.registry import settings
from recsys.spelling import flat, is_list, is_missing, missing_rows, plain, plain_type
from recsys.types import Float32, Int64
from twintower.errors import describe, verbatim

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables

NUMBERS = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)

MAX_NUMBER = 1e15
"""Of a vector that is not normalised, either sign: squares of a tower's sums of such numbers are float32 numbers."""


@settings()
class Embedding:
    """One vector a row; a missing one (null, NaN, or without any number) is all zeros.

    Attributes:
        column: the raw column of number lists, all of one length; empty means the feature's name.
        normalised: scale every vector to unit length.
    """

    column: str = ""
    normalised: bool = Field(default=True)

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> EmbeddingEncoder:
        """Learn the length of the vectors.

        Raises:
            DataError: not a list column, no vector at all, or vectors of several lengths.
        """
        del frequency
        array = _lists(values, self.column)
        lengths = pc.unique(pc.list_value_length(array.filter(pa.array(~missing_rows(array))))).to_pylist()
        if len(lengths) != 1 or lengths[0] < 1:
            found = "no vector" if not lengths else f"lengths {sorted(lengths)[:5]}"
            raise DataError(describe(self.column, verbatim(found), "vectors of one length, >= 1"))
        return EmbeddingEncoder(self, int(lengths[0]))

    def restore(self, state: pa.Table) -> EmbeddingEncoder:
        """Return the encoder that `fit` made."""
        return EmbeddingEncoder(self, state["dim"][0].as_py())


@dataclass(frozen=True)
class EmbeddingEncoder:
    """Codes are `[dim]`, float32.

    Attributes:
        dim: length of the column's vectors.
    """

    settings: Embedding
    dim: int
    dtype: ClassVar[np.dtype] = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return (self.dim,)

    def encode(self, values: pa.Array) -> Float32:
        """Return `[batch, dim]`, float32; unit length where `normalised`, zeros where missing.

        Raises:
            DataError: a vector has another length, or holds NaN, infinity or, not normalised, numbers beyond 1e15.
        """
        array = _lists(values, self.settings.column)
        present = ~missing_rows(array)
        given = array.filter(pa.array(present))
        lengths = pc.unique(pc.list_value_length(given)).to_pylist()
        codes = np.zeros((len(array), self.dim), np.float32)
        if set(lengths) - {self.dim}:
            raise DataError(describe(self.settings.column, lengths, f"vectors of {self.dim}"))
        numbers = plain(pc.list_flatten(given)).cast(pa.float32(), safe=False).fill_null(np.nan)
        codes[present] = numbers.to_numpy(zero_copy_only=False).reshape(-1, self.dim)
        return self._finished(codes)

    def encode_values(self, values: Sequence[Any]) -> Float32:
        """Return `[len(values), dim]`, float32."""
        codes = np.zeros((len(values), self.dim), np.float32)
        for row, value in enumerate(values):
            if not is_missing(value):
                codes[row] = self._vector(value)
        return self._finished(codes)

    def state(self) -> pa.Table:
        """Return the vectors' length."""
        return pa.table({"dim": [self.dim]})

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return the vectors as they are, `[batch, dim]`."""
        del key, tables
        from recsys.layers import Dense

        return Dense(self.dim, name=name)

    def _vector(self, value: Any) -> Float32:
        try:
            vector = np.asarray(value)
        except ValueError:
            vector = np.zeros(0, object)
        if vector.ndim != 1 or vector.dtype.kind not in "iuf":
            raise DataError(describe(self.settings.column, value, "a list of numbers"))
        if len(vector) != self.dim:
            raise DataError(describe(self.settings.column, len(vector), f"vectors of {self.dim}"))
        with np.errstate(over="ignore"):
            return vector.astype(np.float32)

    def _finished(self, codes: Float32) -> Float32:
        """Return the codes, scaled where `normalised`.

        Raises:
            DataError: a number is not finite, or, not normalised, beyond 1e15.
        """
        if not np.isfinite(codes).all():
            row = int(np.flatnonzero(~np.isfinite(codes).all(axis=1))[0])
            raise DataError(describe(self.settings.column, verbatim(f"NaN or infinity in row {row}"), "finite numbers"))
        if not self.settings.normalised and np.abs(codes).max(initial=0) > MAX_NUMBER:
            rule = f"numbers between {-MAX_NUMBER:g} and {MAX_NUMBER:g}"
            advice = "Scale the vectors, or set normalised = true."
            raise DataError(describe(self.settings.column, float(np.abs(codes).max()), rule, advice))
        if self.settings.normalised:
            # In float64, in which the squares of float32 numbers do not overflow.
            lengths = np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
            codes = (codes / np.maximum(lengths, 1e-12)).astype(np.float32)
        return codes


def _lists(values: pa.Array | pa.ChunkedArray, column: str) -> pa.Array:
    """Return a column as one array of lists of numbers.

    Raises:
        DataError: it holds none.
    """
    array = plain(flat(values))
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.list_(pa.float32()))
    numbers = plain_type(array.type.value_type) if is_list(array.type) else None
    if numbers is None or not any(is_number(numbers) for is_number in NUMBERS):
        raise DataError(describe(column, verbatim(str(values.type)), "lists of numbers"))
    return array
