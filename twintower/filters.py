"""A filter from plain Python values."""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np

from twintower.errors import RequestError
from twintower.spelling import shortest
from twintower.types import Condition, Filter, FilterValue

NAME = r'"(?:[^"\\]|\\.)*"'
"""A column's name as a JSON string, for names that begin or end with a sign or a space."""
KEY = re.compile(rf"\s*({NAME}|.*?)\s*(!=|>=|<=|=|>|<)?\s*", re.DOTALL)
BOUNDS = {">=": "minimum", ">": "exclusive_minimum", "<=": "maximum", "<": "exclusive_maximum"}


def parse_filter(conditions: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Filter:
    """Return a filter of conditions that must all hold.

    ```python
    parse_filter({"genre": ["Comedy", "Drama"], "genre !=": "Horror", "year >=": 1990, "new": True})
    ```

    Args:
        conditions: by column, with `!=` (none of), `>=`, `>`, `<=` or `<` after its name, otherwise one of; the name
            may be a JSON string (`'"price >" >='`). Values are texts, UUIDs, numbers (`int`, `float`, `Decimal`, of
            NumPy), truth values, dates or times (of `datetime`, pandas or NumPy, or ISO 8601 text; without a zone:
            UTC); one of and none of also take several, as a list, tuple, set or array.

    Raises:
        RequestError: no column, or a value of another type.
    """
    pairs = conditions.items() if isinstance(conditions, Mapping) else conditions
    return Filter(tuple(_condition(key, value) for key, value in pairs))


def _condition(key: str, value: Any) -> Condition:
    matched = KEY.fullmatch(key) if isinstance(key, str) else None
    if matched is None or not matched[1]:
        raise RequestError("filter", f"got {key!r}, expected the name of a column, and after it one of != >= > <= <")
    field, sign = plain_name(matched[1]), matched[2] or "="
    if sign in BOUNDS:
        return Condition(field, **{BOUNDS[sign]: _plain(value, key)})
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    several = list(value) if isinstance(value, (list, tuple, set, frozenset, np.ndarray)) else [value]
    values = tuple(_plain(each, key) for each in several)
    return Condition(field, none_of=values) if sign == "!=" else Condition(field, any_of=values)


def plain_name(text: str) -> str:
    """Return the name of a column that may be given as a JSON string."""
    if text.startswith('"'):
        with suppress(ValueError):
            return str(json.loads(text))
    return text


def _plain(value: Any, key: str) -> FilterValue:
    """Return a value as filters hold it."""
    if isinstance(value, np.datetime64):
        unit = np.datetime_data(value.dtype)[0]
        return str(np.datetime_as_string(value, "D" if unit in ("Y", "M") else unit))
    if isinstance(value, (np.float16, np.float32)):
        return shortest(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, (str, bool, int, float, Decimal)):
        raise RequestError(f"filter[{key!r}]", f"got {value!r}, expected text, a number, a truth value, or a time")
    return value
