"""A column of numbers, standardised or cut at quantiles, with missing values told apart from zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from recsys.errors import DataError
from recsys.registry import settings
from recsys.spelling import Spelling, ValueKind, plain_type, value_kind
from recsys.types import Int64
from twintower.errors import describe, verbatim

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables

MAX_SCORE = 1e6
"""Of a z-score, either sign; a number farther from the mean counts as this far, so that every vector is finite."""


@settings()
class Numeric:
    """One number a row; null, NaN and infinity are missing.

    Truth values count as 1 and 0, dates and timestamps as seconds since 1970 (UTC), times of day as seconds since
    midnight, durations as seconds, each with its fraction.

    Attributes:
        column: the raw column; empty means the feature's name.
        transform: `standard` gives (z-score, is present); `quantile` looks up a vector for the number's quantile.
        buckets: quantile buckets, for `quantile`.
        width: length of the vector, for `quantile`.
    """

    column: str = ""
    transform: Literal["standard", "quantile"] = "standard"
    buckets: int = Field(default=10, ge=2)
    width: int = Field(default=8, ge=1)

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> NumericEncoder:
        """Learn mean and deviation, or the quantiles, from the rows of the table, each counted once."""
        del frequency
        spelling = self._spelling(values.type)
        numbers = spelling.numbers(values)
        numbers = numbers[np.isfinite(numbers)]
        if self.transform == "quantile":
            inner = np.linspace(0, 1, self.buckets + 1)[1:-1]
            learned = np.unique(np.quantile(numbers, inner)) if len(numbers) else np.zeros(0)
        else:
            learned = np.array(_mean_and_deviation(numbers))
        return NumericEncoder(self, spelling, learned)

    def restore(self, state: pa.Table) -> NumericEncoder:
        """Return the encoder that `fit` made."""
        return NumericEncoder(self, Spelling.restore(self.column, state), state["value"].to_numpy())

    def _spelling(self, type_: pa.DataType) -> Spelling:
        """Return how a column's numbers are read; a column without any value may have the type that holds none.

        Raises:
            DataError: the column holds no numbers.
        """
        if pa.types.is_null(plain_type(type_)):
            return Spelling(self.column, ValueKind.NUMBER)
        kind = value_kind(type_)
        if kind is None or kind is ValueKind.TEXT:
            advice = "Use kind 'categorical', or store numbers (in CSV, see source.numeric_columns)."
            raise DataError(describe(self.column, verbatim(str(type_)), "numbers, truth values or times", advice))
        return Spelling(self.column, kind)


@dataclass(frozen=True)
class NumericEncoder:
    """Codes: for `standard` `[2]`, float32 (z-score within +-1e6, present); for `quantile` an int32 bucket, 0 missing.

    Attributes:
        spelling: of the column's values; text that a request gives is read as a number.
        learned: (mean, standard deviation), or the inner boundaries ascending; float64.
    """

    settings: Numeric
    spelling: Spelling
    learned: np.ndarray

    @property
    def _is_bucketed(self) -> bool:
        return self.settings.transform == "quantile"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row's code."""
        return () if self._is_bucketed else (2,)

    @property
    def dtype(self) -> np.dtype:
        """Type of the codes."""
        return np.dtype(np.int32 if self._is_bucketed else np.float32)

    def encode(self, values: pa.Array) -> np.ndarray:
        """Return `[batch]`, int32, or `[batch, 2]`, float32."""
        return self._codes(self.spelling.numbers(values))

    def encode_values(self, values: Sequence[Any]) -> np.ndarray:
        """Return `[len(values)]`, int32, or `[len(values), 2]`, float32."""
        return self._codes(np.array([self.spelling.number(value) for value in values], np.float64))

    def state(self) -> pa.Table:
        """Return what was learned, one float64 column `value`, and how the column's values are spelled."""
        learned = pa.table({"value": pa.array(self.learned, pa.float64())})
        return learned.replace_schema_metadata(self.spelling.metadata)

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a look-up `[batch] -> [batch, width]`, or the two numbers as they are, `[batch, 2]`."""
        from recsys.layers import Dense, Lookup

        if not self._is_bucketed:
            return Dense(2, name=name)
        return Lookup(tables.get(key, len(self.learned) + 2, self.settings.width, reserved=1), name=name)

    def _codes(self, numbers: NDArray[np.float64]) -> np.ndarray:
        present = np.isfinite(numbers)
        if self._is_bucketed:
            places = 1 + np.searchsorted(self.learned, np.where(present, numbers, 0.0), side="right")
            return np.where(present, places, 0).astype(np.int32)
        mean, deviation = self.learned
        with np.errstate(over="ignore"):
            score = np.where(present, (np.where(present, numbers, mean) - mean) / deviation, 0.0)
        score = np.clip(score, -MAX_SCORE, MAX_SCORE)
        return np.stack([score, present], axis=1).astype(np.float32)


def _mean_and_deviation(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation, 1 where no number differs; no sum overflows, however large the numbers."""
    largest = float(np.abs(numbers).max()) if len(numbers) else 0.0
    if largest == 0:
        return 0.0, 1.0
    scale = largest if largest > 1e150 else 1.0
    mean, deviation = scale * float((numbers / scale).mean()), scale * float((numbers / scale).std())
    return mean, deviation if deviation > 0 else 1.0
