"""Ids: one spelling of an id, whatever the type of its column."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import DataError
from recsys.spelling import plain
from twintower.errors import describe, verbatim

EXACT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
"""A float type of n bits holds every whole number below 2**n in absolute value; from there on it merges neighbors."""
ID_TYPES = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
WAY_OUT = "Store the column as string or int64 where the file is written (in pandas: dtype 'string' or 'Int64')."


def id_texts(values: pa.Array, path: str) -> pa.Array:
    """Return ids as strings, null where there is none.

    The integer 7, the float 7.0 (pandas stores integers beside gaps as floats), the decimal 7.00 and the string "7" are
    the same id; -0.0 is "0". Null, NaN and the empty string are missing. Strings stay as they are.

    Args:
        values: integers, strings, UUIDs, or floats and decimals that are whole numbers; also dictionary-encoded.
        path: the file and column, for messages.

    Raises:
        DataError: another type, a fraction, infinity, or a float too large to be exact.
    """
    values = plain(values)
    kind = values.type
    if pa.types.is_floating(kind):
        values = _whole_floats(values, path)
    elif pa.types.is_decimal(kind):
        values = _whole_decimals(values, path)
    elif not any(is_kind(kind) for is_kind in ID_TYPES):
        raise DataError(describe(path, verbatim(str(kind)), "integer or string ids", WAY_OUT))
    texts = values.cast(pa.string())
    return pc.replace_with_mask(texts, pc.fill_null(pc.equal(texts, ""), False), pa.scalar(None, pa.string()))


def _whole_floats(values: pa.Array, path: str) -> pa.Array:
    bits = EXACT_BITS[values.type]
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers)
    exact = (np.abs(numbers) < 2.0**bits) & (numbers == np.trunc(numbers))
    if not (exact | missing).all():
        wrong = float(numbers[np.flatnonzero(~(exact | missing))[0]])
        found, rule = f"{wrong!r} ({values.type})", f"whole numbers below 2**{bits}, which this type holds exactly"
        raise DataError(describe(path, verbatim(found), rule, WAY_OUT))
    return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)


def _whole_decimals(values: pa.Array, path: str) -> pa.Array:
    try:
        return values.cast(pa.decimal256(76, 0))
    except pa.ArrowInvalid:
        wrong = next(each for each in values.to_pylist() if each is not None and not _is_whole(each))
        raise DataError(describe(path, verbatim(f"{wrong} ({values.type})"), "whole numbers", WAY_OUT)) from None


def _is_whole(value: decimal.Decimal) -> bool:
    return value == value.to_integral_value()
