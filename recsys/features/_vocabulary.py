"""Map strings to small integers: code 0 is 'missing', then the out-of-vocabulary buckets, then the known values."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import DataError, describe, verbatim
from recsys.types import Int32, Int64

MISSING = 0
PADDING = -1
MOST_EXACT = 2.0**53


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

    def codes(self, values: pa.Array) -> Int32:
        """Return the codes of string values, `[rows]`, int32; null is 'missing'."""
        if len(values) < 64:
            return np.fromiter(map(self.code, values.to_pylist()), np.int32, len(values))
        encoded = values.dictionary_encode()
        of_distinct = np.fromiter(map(self.code, encoded.dictionary.to_pylist()), np.int32, len(encoded.dictionary))
        places = encoded.indices.fill_null(len(of_distinct)).to_numpy(zero_copy_only=False)
        return np.append(of_distinct, np.int32(MISSING))[places]

    def state(self) -> pa.Table:
        """Return the known values as a table with one string column `value`."""
        return pa.table({"value": pa.array(self.known, pa.string())})

    @staticmethod
    def fit(values: pa.Array, weight: Int64, min_count: int, oov_buckets: int) -> Vocabulary:
        """Return the vocabulary of the values that occur often enough, most frequent first, ties by value.

        Args:
            values: strings, `[rows]`; null counts for nothing.
            weight: `[rows]`, int64, how often each row counts.
            min_count: the smallest total weight of a known value.
            oov_buckets: codes for the others, >= 1.
        """
        encoded = values.dictionary_encode()
        present = encoded.is_valid().to_numpy(zero_copy_only=False)
        places = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)[present]
        totals = np.bincount(places, weights=weight[present], minlength=len(encoded.dictionary))
        counted = [
            (-total, value)
            for value, total in zip(encoded.dictionary.to_pylist(), totals, strict=True)
            if total >= min_count
        ]
        return Vocabulary([value for _, value in sorted(counted)], oov_buckets)

    @staticmethod
    def restore(state: pa.Table, oov_buckets: int) -> Vocabulary:
        """Return the vocabulary whose `state` was stored."""
        return Vocabulary(state["value"].to_pylist(), oov_buckets)


def as_strings(values: pa.Array | pa.ChunkedArray, where: str) -> pa.Array:
    """Return values as one string array; numbers and booleans are spelled out.

    Raises:
        DataError: the values are lists, structs or other nested types.
    """
    array = flat(values)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_string(array.type):
        return array
    if pa.types.is_dictionary(array.type):
        return as_strings(array.dictionary_decode(), where)
    if pa.types.is_nested(array.type):
        advice = "Use kind 'multi_categorical' for lists of values, 'embedding' for vectors."
        raise DataError(describe(where, verbatim(str(array.type)), "one value in each row", advice))
    if pa.types.is_floating(array.type):
        whole = pc.and_(pc.equal(pc.round(array), array), pc.less(pc.abs(array), MOST_EXACT))
        if pc.all(whole, min_count=0).as_py():
            array = array.cast(pa.int64(), safe=False)
    return array.cast(pa.string())


def as_string_lists(values: pa.Array | pa.ChunkedArray, where: str) -> tuple[Int64, pa.Array]:
    """Return list values as row lengths, `[rows]`, int64, and the flat strings; null rows and values are left out."""
    array = flat(values)
    if not (
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
    ):
        strings = as_strings(array, where)
        return strings.is_valid().to_numpy(zero_copy_only=False).astype(np.int64), strings.drop_null()
    parents = pc.list_parent_indices(array)
    strings = as_strings(pc.list_flatten(array), where)
    kept = strings.is_valid()
    lengths = np.bincount(parents.filter(kept).to_numpy(zero_copy_only=False), minlength=len(array))
    return lengths.astype(np.int64), strings.drop_null()


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one contiguous array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def pad(lengths: Int64, codes: Int32, width: int) -> Int32:
    """Return ragged codes as `[rows, width]`, int32: the first `width` of each row, then `PADDING`.

    A row without any code becomes one `MISSING`, so that an empty bag has a vector of its own.
    """
    padded = np.full((len(lengths), width), PADDING, np.int32)
    offsets = np.cumsum(lengths) - lengths
    place = np.arange(len(codes)) - np.repeat(offsets, lengths)
    kept = place < width
    padded[np.repeat(np.arange(len(lengths)), lengths)[kept], place[kept]] = codes[kept]
    padded[lengths == 0, 0] = MISSING
    return padded
