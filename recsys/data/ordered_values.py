"""Numbers and times of a column in ascending order, compared exactly with numbers of any type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.types import Bool, Int64
from twintower.spelling import Number

STEPS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY_S = 86_400


@dataclass(frozen=True)
class OrderedValues:
    """The distinct numbers or times of a column.

    Numbers are compared by value, whatever type holds them: 2**53 + 1 is more than 2.0**53. A number that is the
    shortest spelling of a float of the column's type is that float: 0.1 finds the float32 next to it, as its own value,
    0.10000000149011612, does.

    Attributes:
        stored: `[values]`, ascending and distinct: integers, as objects where 64 bits do not hold them, or float64.
        step: what 1 of the stored integers counts; times count seconds since 1970, UTC.
        precision: the column's type where it holds floats, otherwise None.
    """

    stored: NDArray[Any]
    step: Fraction = Fraction(1)
    precision: type[np.floating] | None = None

    @classmethod
    def of(cls, values: pa.Array) -> tuple[OrderedValues, Int64, Bool]:
        """Return the distinct values of an array, the place of each present one, `[present]`, and which are, `[len]`.

        Args:
            values: integers, floats, decimals, dates or timestamps; null and NaN are absent.
        """
        present = values.is_valid().to_numpy(zero_copy_only=False)
        numbers, step = _stored(values.drop_null())
        precision = None
        if numbers.dtype.kind == "f":
            precision, numbers = numbers.dtype.type, numbers.astype(np.float64)
            sound = ~np.isnan(numbers)
            present[present], numbers = sound, numbers[sound]
        stored, places = np.unique(numbers, return_inverse=True)
        return cls(stored, step, precision), places, present

    def __len__(self) -> int:
        return len(self.stored)

    def find(self, numbers: Sequence[Number]) -> Int64:
        """Return the places of those of the numbers that are there, ascending.

        Args:
            numbers: as `spelling.exact` or `spelling.read_time` returns them.
        """
        least, above = self._places(numbers)
        return np.unique(least[least < above])

    def first_at_least(self, number: Number) -> int:
        """Return the place of the first value that is not smaller."""
        return int(self._places([number])[0][0])

    def first_above(self, number: Number) -> int:
        """Return the place of the first larger value."""
        return int(self._places([number])[1][0])

    def _places(self, numbers: Sequence[Number]) -> tuple[Int64, Int64]:
        """Return the place of the first value that is not smaller, and of the first larger one, of each number."""
        if not len(self.stored):
            return np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
        snap = self._snap_to_integer if self.precision is None else self._snap_to_float
        snapped = [snap(number) for number in numbers]
        values = np.array([value for value, _ in snapped], self.stored.dtype)
        side = np.array([side for _, side in snapped])
        left, right = self.stored.searchsorted(values, "left"), self.stored.searchsorted(values, "right")
        return np.where(side > 0, right, left), np.where(side < 0, left, right)

    def _snap_to_integer(self, number: Number) -> tuple[int, int]:
        """Return an integer with no stored one between it and the number, and the side on which the number lies."""
        lowest, highest = int(self.stored[0]), int(self.stored[-1])
        finite = not (isinstance(number, float) and math.isinf(number))
        key = Fraction(number) / self.step if finite and (self.step != 1 or isinstance(number, Decimal)) else number
        if key < lowest:
            return lowest, -1
        if key > highest:
            return highest, 1
        whole = math.floor(key)
        return whole, int(key > whole)

    def _snap_to_float(self, number: Number) -> tuple[float, int]:
        """Return a float with no stored one between it and the number, and the side on which the number lies."""
        nearest = float(number)
        if isinstance(number, Decimal):
            precisions = (np.float64,) if self.precision is np.float64 else (self.precision, np.float64)
            for precision in precisions:
                with np.errstate(over="ignore"):
                    held = precision(nearest)
                if Decimal(str(held)) == number:
                    return float(held), 0
        return nearest, (number > nearest) - (number < nearest)


def _stored(values: pa.Array) -> tuple[NDArray[Any], Fraction]:
    """Return numbers or times as NumPy holds them exactly, and what 1 of them counts."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        return values.cast(pa.int64()).to_numpy(), Fraction(1, STEPS_PER_S[kind.unit])
    if pa.types.is_date32(kind):
        return values.cast(pa.int32()).to_numpy(), Fraction(DAY_S)
    if pa.types.is_date64(kind):
        return values.cast(pa.int64()).to_numpy(), Fraction(1, STEPS_PER_S["ms"])
    if pa.types.is_decimal(kind):
        unscaled = pa.decimal256(76, 0) if kind.bit_width == 256 else pa.decimal128(38, 0)
        if kind.bit_width < unscaled.bit_width:
            values = values.cast(pa.decimal128(38, kind.scale))
        # The same bits without a point.
        whole = pa.Array.from_buffers(unscaled, len(values), values.buffers(), offset=values.offset)
        try:
            integers = whole.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            integers = np.array([int(each) for each in whole.to_pylist()], object)
        return integers, 1 / Fraction(10) ** kind.scale
    return values.to_numpy(zero_copy_only=False), Fraction(1)
