"""Which items a filter lets pass, from the columns of a release."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa

from recsys.data.filterable import FilterColumn, filter_types
from recsys.errors import RequestError, unknown
from recsys.types import Bool, Condition, Filter, FilterType, Int32

CACHED_BYTES = 2**26
"""Memory of the filters that are kept, so that one that is asked again costs nothing."""
ITEM_BYTES = 5
BOUNDS = (("minimum", "exclusive_minimum"), ("maximum", "exclusive_maximum"))
VALUES = {FilterType.STRING: "a string", FilterType.STRINGS: "a string", FilterType.BOOL: "true or false"}


class Allowed:
    """The items that may be shown.

    Attributes:
        mask: `[items]`, by item_row.
        count: how many they are.
    """

    def __init__(self, mask: Bool) -> None:
        self.mask, self.count = mask, int(np.count_nonzero(mask))

    @cached_property
    def rows(self) -> Int32:
        """Their rows, `[count]`, ascending."""
        return np.flatnonzero(self.mask).astype(np.int32)


class ItemFilters:
    """The columns that a release can filter by. Safe for calls from several threads.

    Args:
        items: the catalogue; row = item_row.
        names: of the columns; those that hold nothing to filter by are left out.
        hidden: `[items]`: rows that no filter lets pass; None for none.
    """

    def __init__(self, items: pa.Table, names: Sequence[str], hidden: Bool | None = None) -> None:
        self.types: Mapping[str, FilterType] = filter_types(items, names)
        self._items, self._hidden = items, hidden
        self._columns: dict[str, FilterColumn] = {}
        most = max(1, CACHED_BYTES // (ITEM_BYTES * max(1, items.num_rows)))
        self._compiled = lru_cache(most)(self._compile)

    def column(self, name: str, where: str) -> FilterColumn:
        """Return a column as inverted lists, made when it is first asked for.

        Args:
            name: the column's name.
            where: the field that names it, for messages.

        Raises:
            RequestError: there is no such column to filter by.
        """
        if name not in self.types:
            raise RequestError(where, unknown("column to filter by", name, self.types))
        if name not in self._columns:
            self._columns[name] = FilterColumn.of(self._items[name], self.types[name])
        return self._columns[name]

    def allowed(self, asked: Filter, where: str) -> Allowed:
        """Return the items that pass a filter.

        Args:
            asked: the filter; an empty one lets all pass.
            where: its path in the request, for messages.

        Raises:
            RequestError: an unknown column, not exactly one rule, a value of the wrong type, bounds of something else
                than numbers or the wrong way round.
        """
        for place, condition in enumerate(asked.all_of):
            self._check(condition, f"{where}.all_of[{place}]")
        return self._compiled(asked)

    def _compile(self, asked: Filter) -> Allowed:
        mask = np.ones(self._items.num_rows, bool) if self._hidden is None else ~self._hidden
        for condition in asked.all_of:
            named = self._columns[condition.field].passing(condition)
            if condition.none_of is not None:
                mask[named] = False
                continue
            passing = np.zeros(len(mask), bool)
            passing[named] = True
            mask &= passing
        return Allowed(mask)

    def _check(self, condition: Condition, where: str) -> None:
        kind = self.column(condition.field, f"{where}.field").kind
        bounds = [name for pair in BOUNDS for name in pair if getattr(condition, name) is not None]
        rules = [name for name in ("any_of", "none_of") if getattr(condition, name) is not None]
        if len(rules) + bool(bounds) != 1:
            got = len(rules) + bool(bounds)
            raise RequestError(where, f"got {got} rules, expected one of: any_of, none_of, a range with a bound")
        for rule in rules:
            _check_values(getattr(condition, rule), kind, f"{where}.{rule}", condition.field)
        if bounds:
            _check_bounds(condition, bounds, kind, f"{where}.range")


def _check_values(values: object, kind: FilterType, where: str, field: str) -> None:
    if not isinstance(values, tuple):
        raise RequestError(where, f"got {values!r}, expected a tuple of values")
    if not values:
        raise RequestError(where, "got none, expected at least 1")
    for place, value in enumerate(values):
        if kind is FilterType.NUMBER:
            fits, expected = _is_number(value), "a number; times count as seconds since 1970, UTC"
        else:
            fits, expected = isinstance(value, bool if kind is FilterType.BOOL else str), VALUES[kind]
        if not fits:
            raise RequestError(f"{where}[{place}]", f"got {value!r}, expected {expected}, as {field!r} holds")


def _check_bounds(condition: Condition, bounds: Sequence[str], kind: FilterType, where: str) -> None:
    if kind is not FilterType.NUMBER:
        raise RequestError(where, f"got bounds, expected any_of or none_of: {condition.field!r} holds no numbers")
    for name in bounds:
        if not _is_number(getattr(condition, name)):
            raise RequestError(f"{where}.{name}", f"got {getattr(condition, name)!r}, expected a number")
    for pair in BOUNDS:
        if set(pair) <= set(bounds):
            raise RequestError(where, f"got {' and '.join(pair)}, expected one of them")
    (low, least), (high, most) = (
        next(((name, getattr(condition, name)) for name in pair if name in bounds), (pair[0], None)) for pair in BOUNDS
    )
    if least is not None and most is not None and least > most:
        raise RequestError(where, f"got {low} {least} and {high} {most}, expected the lower bound first")


def _is_number(value: object) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False
