"""Item columns that can be filtered by: for each value, the rows that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.ordered_values import OrderedValues
from recsys.errors import DataError
from recsys.types import Int32, RowSets
from twintower.errors import describe, unknown, verbatim
from twintower.types import Condition, FilterType

KINDS = "strings, lists of strings, numbers, truth values or times"


def filter_type(kind: pa.DataType) -> FilterType | None:
    """Return what a column of this Arrow type can be filtered as; None where it cannot."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind):
        return FilterType.STRING
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return FilterType.STRINGS if _is_text(kind.value_type) else None
    if pa.types.is_boolean(kind):
        return FilterType.BOOL
    for is_number in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal):
        if is_number(kind):
            return FilterType.NUMBER
    return FilterType.TIME if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None


def filter_types(items: pa.Table, names: Iterable[str]) -> dict[str, FilterType]:
    """Return what each of the named columns can be filtered as, those left out that cannot."""
    found = {name: filter_type(items.schema.field(name).type) for name in names}
    return {name: kind for name, kind in found.items() if kind is not None}


def check_filters(names: Sequence[str], items: pa.Table) -> None:
    """Refuse columns that the items lack or that cannot be filtered by.

    Raises:
        DataError: names `item.filters` and the column.
    """
    for name in names:
        if name not in items.column_names:
            raise DataError(f"item.filters: {unknown('column', name, items.column_names)}")
        if filter_type(kind := items.schema.field(name).type) is None:
            raise DataError(describe(f"item.filters: {name}", verbatim(str(kind)), KINDS))


@dataclass(frozen=True)
class FilterColumn:
    """One column as inverted lists.

    Attributes:
        kind: what it holds.
        items: rows of the catalogue.
        places: of each string or truth value in `rows`; empty where it holds something else.
        ordered: its numbers or times, in the order of `rows`; none where it holds something else.
        rows: the item rows of each value, `[values]`; an item with several values stands under each.
    """

    kind: FilterType
    items: int
    places: Mapping[str | bool, int]
    ordered: OrderedValues
    rows: RowSets

    @classmethod
    def of(cls, column: pa.ChunkedArray, kind: FilterType) -> FilterColumn:
        """Return a column of the items; values that are null or NaN are absent."""
        values = column.combine_chunks()
        owners = np.arange(len(column), dtype=np.int32)
        if kind is FilterType.STRINGS:
            owners = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
            values = pc.list_flatten(values)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if kind in (FilterType.NUMBER, FilterType.TIME):
            ordered, codes, present = OrderedValues.of(values)
            return cls(kind, len(column), {}, ordered, RowSets.from_pairs(codes, owners[present], len(ordered)))
        encoded = values.dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        places = {value: place for place, value in enumerate(encoded.dictionary.to_pylist())}
        rows = RowSets.from_pairs(codes[codes >= 0], owners[codes >= 0], len(places))
        return cls(kind, len(column), places, OrderedValues(np.zeros(0)), rows)

    @cached_property
    def values(self) -> RowSets:
        """The places of the values of each item, `[items]`; `rows` the other way round."""
        return RowSets.from_pairs(self.rows.rows, self.rows.owners, self.items)

    @cached_property
    def _texts(self) -> list[str | bool]:
        return list(self.places)

    def named(self, places: Iterable[int]) -> list[Any]:
        """Return the values at some places; equal ones are equal in every column of the same type."""
        values = self.ordered.stored if len(self.ordered) else self._texts
        return [values[place] for place in places]

    def passing(self, condition: Condition) -> Int32:
        """Return the rows that a condition names: those that pass it, or with `none_of` those that do not.

        Args:
            condition: with numbers as `spelling.exact` and times as `spelling.read_time` returns them. A row may stand
                more than once.
        """
        named = condition.any_of if condition.none_of is None else condition.none_of
        if named is None:
            return self._between(condition)
        if self.kind in (FilterType.NUMBER, FilterType.TIME):
            found = self.ordered.find(named)
        else:
            found = np.unique(np.array([self.places[value] for value in named if value in self.places], np.int64))
        return self.rows.take(found).rows

    def _between(self, condition: Condition) -> Int32:
        first, last = 0, len(self.ordered)
        if condition.minimum is not None:
            first = self.ordered.first_at_least(condition.minimum)
        if condition.exclusive_minimum is not None:
            first = self.ordered.first_above(condition.exclusive_minimum)
        if condition.maximum is not None:
            last = self.ordered.first_above(condition.maximum)
        if condition.exclusive_maximum is not None:
            last = self.ordered.first_at_least(condition.exclusive_maximum)
        return self.rows.rows[self.rows.offsets[first] : self.rows.offsets[max(first, last)]]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
