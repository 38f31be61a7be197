"""A filter from plain Python values."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from recsys.errors import RequestError
from recsys.types import Condition, Filter

KEY = re.compile(r"\s*(.*?)\s*(!=|>=|<=|=|>|<)?\s*", re.DOTALL)
BOUNDS = {">=": "minimum", ">": "exclusive_minimum", "<=": "maximum", "<": "exclusive_maximum"}


def where(conditions: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Filter:
    """Return a filter of conditions that must all hold.

    ```python
    where({"genre": ["Comedy", "Drama"], "genre !=": "Horror", "year >=": 1990, "new": True})
    ```

    Args:
        conditions: by column, with `!=` (none of), `>=`, `>`, `<=` or `<` after its name, otherwise one of. Values are
            texts, numbers, truth values, dates or times (without a zone: UTC); one of and none of also take several,
            as a list, tuple, set or array.

    Raises:
        RequestError: no column, or a value of another type.
    """
    pairs = conditions.items() if isinstance(conditions, Mapping) else conditions
    return Filter(tuple(_condition(key, value) for key, value in pairs))


def _condition(key: str, value: Any) -> Condition:
    matched = KEY.fullmatch(key) if isinstance(key, str) else None
    if matched is None or not matched[1]:
        raise RequestError("where", f"got {key!r}, expected the name of a column, and after it one of != >= > <= <")
    field, sign = matched[1], matched[2] or "="
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if sign in BOUNDS:
        return Condition(field, **{BOUNDS[sign]: _plain(value, key)})
    several = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
    values = tuple(_plain(each, key) for each in several)
    return Condition(field, none_of=values) if sign == "!=" else Condition(field, any_of=values)


def _plain(value: Any, key: str) -> Any:
    """Return a value as filters hold it: times in seconds since 1970."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if not isinstance(value, (str, bool, int, float)):
        raise RequestError(f"where[{key!r}]", f"got {value!r}, expected text, a number, a truth value, or a time")
    return value
