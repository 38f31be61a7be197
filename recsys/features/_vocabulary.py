"""Map strings to small integers: code 0 is 'missing', then the out-of-vocabulary buckets, then the known values."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.spelling import Spelled
from recsys.types import Int32, Int64

MISSING = 0
PADDING = -1


def bucket(text: str, buckets: int) -> int:
    """Return a hash of the text in 0..buckets-1, the same on every machine and in every process (CRC-32)."""
    return zlib.crc32(text.encode()) % buckets


class Vocabulary:
    """Known values with a code each; the others share `oov_buckets` codes by hash.

    Args:
        known: distinct strings; their order decides their codes.
        oov_buckets: codes for values that are not known, >= 1.
    """

    def __init__(self, known: Sequence[str], oov_buckets: int) -> None:
        self.known = tuple(known)
        self.oov_buckets = oov_buckets
        self._first = 1 + oov_buckets
        self._codes = {value: self._first + place for place, value in enumerate(self.known)}

    @property
    def size(self) -> int:
        """The number of codes, 'missing' and the buckets included."""
        return self._first + len(self.known)

    @property
    def reserved(self) -> int:
        """How many codes stand for no particular value: 'missing' and the buckets."""
        return self._first

    def code(self, value: str | None) -> int:
        """Return the code of one value; None is 'missing'."""
        if value is None:
            return MISSING
        code = self._codes.get(value)
        return 1 + bucket(value, self.oov_buckets) if code is None else code

    def codes_of(self, values: Iterable[str]) -> list[int]:
        """Return the code of each value."""
        known = self._codes.get
        return [code if (code := known(value)) is not None else self.code(value) for value in values]

    def codes(self, values: Spelled) -> Int32:
        """Return the codes of a column, `[rows]`, int32."""
        of_distinct = np.array([*self.codes_of(values.texts), MISSING], np.int32)
        return of_distinct[values.rows]

    def state(self) -> pa.Table:
        """Return the known values as a table with one string column `value`."""
        return pa.table({"value": pa.array(self.known, pa.string())})

    @staticmethod
    def fit(values: Spelled, weight: Int64, min_count: int, oov_buckets: int) -> Vocabulary:
        """Return the vocabulary of the values that occur often enough, most frequent first, ties by value.

        Args:
            values: `[rows]`; missing ones count for nothing.
            weight: `[rows]`, int64, how often each row counts.
            min_count: the smallest total weight of a known value.
            oov_buckets: codes for the others, >= 1.
        """
        present = ~values.is_missing
        totals = np.bincount(values.rows[present], weights=weight[present], minlength=len(values.texts))
        counted = [(-total, text) for text, total in zip(values.texts, totals, strict=True) if total >= min_count]
        return Vocabulary([text for _, text in sorted(counted)], oov_buckets)

    @staticmethod
    def restore(state: pa.Table, oov_buckets: int) -> Vocabulary:
        """Return the vocabulary whose `state` was stored."""
        return Vocabulary(state["value"].to_pylist(), oov_buckets)


class Ragged:
    """Codes of rows with any number of values, one after another; indexed as an array that pads what it returns.

    Args:
        lengths: `[rows]`, int64, values of each row.
        codes: `[sum(lengths), *shape of one]`, int32.

    Attributes:
        lengths: as given.
    """

    def __init__(self, lengths: Int64, codes: Int32) -> None:
        self._ends, self._codes = np.cumsum(lengths), codes
        self.lengths = lengths

    def __getitem__(self, rows: NDArray[np.integer]) -> Int32:
        """Return `[batch, values, *shape of one]`, int32, as wide as the longest of these rows; see `pad`."""
        lengths = self.lengths[rows]
        return _padded(self._ends[rows] - lengths, lengths, self._codes, max(1, int(lengths.max(initial=0))))


def widened(codes: Int32, width: int) -> Int32:
    """Return codes `[batch, values, *shape of one]` with further padding, `[batch, width, *shape of one]`."""
    missing = width - codes.shape[1]
    axes = ((0, 0), (0, missing), *((0, 0) for _ in codes.shape[2:]))
    return codes if missing <= 0 else np.pad(codes, axes, constant_values=PADDING)


def pad(lengths: Int64, codes: Int32, width: int) -> Int32:
    """Return ragged codes as `[rows, width, *shape of one]`, int32: the first `width` of each row, then `PADDING`.

    A row without any code becomes one `MISSING`, so that an empty bag has a vector of its own.
    """
    return _padded(np.cumsum(lengths) - lengths, lengths, codes, width)


def _padded(starts: Int64, lengths: Int64, codes: Int32, width: int) -> Int32:
    """Return `pad` of rows that begin at `starts`, `[rows]`, int64, among the codes."""
    padded = np.full((len(lengths), width, *codes.shape[1:]), PADDING, np.int32)
    filled = np.arange(width) < lengths[:, None]
    row, place = filled.nonzero()
    padded[filled] = codes.take(starts[row] + place, axis=0)
    padded[lengths == 0, 0] = MISSING
    return padded
