"""Which kind of feature suits a column, by its type and its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.prepare import LEAK_CORRELATION, count_correlation
from recsys.spelling import flat, is_list, missing_rows, plain, value_kind
from recsys.types import Int64

MAX_CATEGORIES = 100
EMBEDDING_LENGTH = 8
RARE_COUNT = 2
MANY_WORDS_RATE = 0.3
"""Share of the cells with more than one word from which on a column of mostly different texts is read by its words."""


@dataclass(frozen=True)
class Proposal:
    """What to make of a column.

    Attributes:
        settings: of the feature, `kind` first; None: leave the column out.
        reason: why, a phrase.
    """

    settings: Mapping[str, Any] | None
    reason: str


def propose_feature(name: str, values: pa.ChunkedArray, counts: Int64 | None = None) -> Proposal:
    """Return a kind of feature for a column.

    Args:
        name: of the column.
        values: `[rows]`, the column of items or query entities.
        counts: `[rows]`, how often interactions name each; None where that is not known. A number that ranks the rows
            as these counts do was made of them and would not be known of a new row.
    """
    missing = missing_rows(values)
    present = plain(flat(values)).filter(pa.array(~missing))
    rows = len(present)
    if rows == 0:
        return Proposal(None, "no row has a value")
    if is_list(present.type):
        return _of_lists(present)
    kind = value_kind(present.type)
    if kind is None:
        return Proposal(None, f"values of type {present.type} are not read")
    distinct = pc.count_distinct(present).as_py()
    if distinct == 1:
        return Proposal(None, "one value in all rows")
    if pa.types.is_string(present.type) or pa.types.is_large_string(present.type):
        return _of_text(pl.Series(present), distinct)
    correlation = 0.0 if counts is None else count_correlation(name, values, counts)
    if abs(correlation) > LEAK_CORRELATION:
        return Proposal(None, f"ranks the rows as their interactions do ({correlation:+.2f}): looks like a leak")
    if pa.types.is_boolean(present.type):
        return Proposal({"kind": "categorical"}, "true or false")
    if pa.types.is_integer(present.type) and distinct <= min(MAX_CATEGORIES, rows / 4):
        return Proposal({"kind": "categorical"}, f"{distinct:,} different whole numbers")
    return Proposal({"kind": "numeric", "transform": "quantile"}, f"numbers, {distinct:,} different ones")


def _of_lists(present: pa.Array) -> Proposal:
    numbers = pa.types.is_floating(present.type.value_type)
    lengths = pc.unique(pc.list_value_length(present)).to_pylist()
    if numbers and len(lengths) == 1 and lengths[0] >= EMBEDDING_LENGTH:
        return Proposal({"kind": "embedding"}, f"vectors of {lengths[0]} numbers")
    if numbers or value_kind(present.type.value_type) is None:
        return Proposal(None, f"lists of type {present.type} are not read")
    longest = int(np.quantile(pc.list_value_length(present).to_numpy(), 0.99))
    distinct = pc.count_distinct(pc.list_flatten(present)).as_py()
    settings = {"kind": "multi_categorical", "max_values": max(longest, 1), "min_count": RARE_COUNT}
    return Proposal(settings, f"lists, {distinct:,} different values")


def _of_text(present: pl.Series, distinct: int) -> Proposal:
    words_of = present.head(20_000).str.count_matches(r"\S+")
    words, several = float(words_of.mean() or 0.0), float((words_of > 1).mean() or 0.0)
    rows = len(present)
    if distinct > rows / 2 and several >= MANY_WORDS_RATE:
        terms = int(words_of.quantile(0.9) or 1)
        return Proposal({"kind": "text", "max_terms": min(max(terms, 8), 64)}, f"text, {words:.0f} words on average")
    if distinct > 0.9 * rows:
        return Proposal(None, "a value of its own in nearly every row tells nothing about other rows")
    return Proposal({"kind": "categorical", "min_count": RARE_COUNT}, f"{distinct:,} different values in {rows:,} rows")
