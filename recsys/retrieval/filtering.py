"""Which items a filter lets pass, from the columns of a release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from reprlib import repr as shortened
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.cancellation import checked
from recsys.data.filterable import FilterColumn, filter_types
from recsys.spelling import read_time
from recsys.types import Bool, Int32, RowSets
from twintower.errors import RequestError, unknown
from twintower.spelling import MAX_COLUMN_DIGITS, exact, is_column_number
from twintower.types import Condition, Filter, FilterType

CACHED_BYTES = 2**26
CACHED_FILTERS = 1024
"""Memory and number of the filters that are kept, so that one that is asked again costs nothing."""
ITEM_BYTES = 5
BOUNDS = (("minimum", "exclusive_minimum"), ("maximum", "exclusive_maximum"))
VALUES = {
    FilterType.STRING: "a string",
    FilterType.STRINGS: "a string",
    FilterType.BOOL: "true or false",
    FilterType.NUMBER: f"a number of at most {MAX_COLUMN_DIGITS} digits on either side of the point",
    FilterType.TIME: "a time such as 2020-12-31 or 2020-12-31T23:59:59.999999999Z",
}


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
    """

    def __init__(self, items: pa.Table, names: Sequence[str]) -> None:
        self.types: Mapping[str, FilterType] = filter_types(items, names)
        self._items = items
        self._columns: dict[str, FilterColumn] = {}
        self._passing = _kept(self._compile, len(items))

    def __len__(self) -> int:
        return len(self._items)

    def check_column(self, name: str, where: str) -> None:
        """Refuse a column that cannot be filtered by.

        Args:
            name: the column's name.
            where: the field that names it, for messages.

        Raises:
            RequestError: there is no such column to filter by.
        """
        if name not in self.types:
            raise RequestError(where, unknown("column to filter by", name, self.types))

    def allowed(self, asked: Filter, where: str) -> Allowed:
        """Return the items that pass a filter.

        Args:
            asked: the filter; an empty one lets all pass.
            where: its path in the request, for messages.

        Raises:
            RequestError: an unknown column, not exactly one rule, a value of the wrong type, bounds of something else
                than numbers or times, or the wrong way round.
        """
        return self.passing(self.parsed(asked, where))

    def parsed(self, asked: Filter, where: str) -> Filter:
        """Return a filter with its values as the columns compare them: equal filters mean the same.

        Raises:
            RequestError: the columns do not allow it, as for `allowed`.
        """
        return Filter(tuple(self._parsed(each, f"{where}.all_of[{at}]") for at, each in enumerate(asked.all_of)))

    def passing(self, parsed: Filter) -> Allowed:
        """Return the items that pass a filter that was parsed."""
        return self._passing(parsed)

    def values(self, name: str, rows: Int32) -> RowSets:
        """Return the places of the values that some items hold in a column, `[rows]`."""
        return self.column(name).values.take(rows)

    def column(self, name: str) -> FilterColumn:
        """Return one of the columns as inverted lists, made when it is first asked for."""
        if name not in self._columns:
            self._columns[name] = FilterColumn.of(self._items[name], self.types[name])
        return self._columns[name]

    def _compile(self, parsed: Filter) -> Allowed:
        mask = np.ones(len(self._items), bool)
        for condition in checked(parsed.all_of):
            named = self.column(condition.field).passing(condition)
            if condition.none_of is not None:
                mask[named] = False
                continue
            passing = np.zeros(len(mask), bool)
            passing[named] = True
            mask &= passing
        return Allowed(mask)

    def _parsed(self, condition: Condition, where: str) -> Condition:
        self.check_column(condition.field, f"{where}.field")
        kind = self.types[condition.field]
        bounds = [name for pair in BOUNDS for name in pair if getattr(condition, name) is not None]
        rules = [name for name in ("any_of", "none_of") if getattr(condition, name) is not None]
        if len(rules) + bool(bounds) != 1:
            got = len(rules) + bool(bounds)
            raise RequestError(where, f"got {got} rules, expected one of: any_of, none_of, a range with a bound")
        if bounds:
            return _parsed_bounds(condition, bounds, kind, f"{where}.range")
        (rule,) = rules
        return Condition(condition.field, **{rule: _parsed_values(condition, rule, kind, f"{where}.{rule}")})


class FiltersOfParts:
    """The filters of a catalogue that grows by parts, as those of `ItemFilters`: what was made of a part stays.

    Args:
        parts: of some items each, all with the same columns, in the order of their rows.
        hidden: `[items]`: rows that no filter lets pass.
    """

    def __init__(self, parts: Sequence[ItemFilters], hidden: Bool) -> None:
        self.types, self.check_column = parts[0].types, parts[0].check_column
        self._parts, self._hidden = parts, hidden
        self._passing = _kept(self._compile, len(hidden))

    def allowed(self, asked: Filter, where: str) -> Allowed:
        """Return the items that pass a filter, as `ItemFilters.allowed` does."""
        return self._passing(self._parts[0].parsed(asked, where))

    def values(self, name: str, rows: Int32) -> RowSets:
        """Return numbers of the values that some items hold in a column, `[rows]`: equal ones for equal values."""
        number_of: dict[object, int] = {}
        owners, numbers, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for part in self._parts:
            here = np.flatnonzero((rows >= first) & (rows < first + len(part)))
            if len(here):
                held = part.values(name, rows[here] - first)
                places, entries = np.unique(held.rows, return_inverse=True)
                values = part.column(name).named(places)
                own = np.array([number_of.setdefault(value, len(number_of)) for value in values], np.int64)
                owners.append(here[held.owners])
                numbers.append(own[entries])
            first += len(part)
        return RowSets.from_pairs(np.concatenate(owners), np.concatenate(numbers), len(rows))

    def _compile(self, parsed: Filter) -> Allowed:
        return Allowed(np.concatenate([part.passing(parsed).mask for part in self._parts]) & ~self._hidden)


def _kept(compiled: Callable[[Filter], Allowed], items: int) -> Callable[[Filter], Allowed]:
    """Return a function that keeps its last answers, as many as `CACHED_FILTERS` and `CACHED_BYTES` allow."""
    return lru_cache(max(1, min(CACHED_FILTERS, CACHED_BYTES // (ITEM_BYTES * max(1, items)))))(compiled)


def _parsed_values(condition: Condition, rule: str, kind: FilterType, where: str) -> tuple[object, ...]:
    values = getattr(condition, rule)
    if not isinstance(values, tuple):
        raise RequestError(where, f"got {values!r}, expected a tuple of values")
    if not values:
        raise RequestError(where, "got none, expected at least 1")
    return tuple(_parsed_value(value, kind, f"{where}[{at}]", condition.field) for at, value in enumerate(values))


def _parsed_bounds(condition: Condition, bounds: Sequence[str], kind: FilterType, where: str) -> Condition:
    if kind not in (FilterType.NUMBER, FilterType.TIME):
        reason = f"got bounds, expected any_of or none_of: {condition.field!r} holds no numbers or times"
        raise RequestError(where, reason)
    parsed = {
        name: _parsed_value(getattr(condition, name), kind, f"{where}.{name}", condition.field) for name in bounds
    }
    for pair in BOUNDS:
        if set(pair) <= set(bounds):
            raise RequestError(where, f"got {' and '.join(pair)}, expected one of them")
    if len(bounds) == 2 and parsed[bounds[0]] > parsed[bounds[1]]:
        got = " and ".join(f"{name} {getattr(condition, name)}" for name in bounds)
        raise RequestError(where, f"got {got}, expected the lower bound first")
    return Condition(condition.field, **parsed)


def _parsed_value(value: Any, kind: FilterType, where: str, field: str) -> Any:
    if kind is FilterType.NUMBER:
        if is_column_number(value):
            return exact(value)
    elif kind is FilterType.TIME:
        if isinstance(value, str):
            with suppress(ValueError):
                return read_time(value)
    elif isinstance(value, bool if kind is FilterType.BOOL else str):
        return value
    raise RequestError(where, f"got {shortened(value)}, expected {VALUES[kind]}, as {field!r} holds")
