"""Display columns as a person reads them: in which order, and as which text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recsys.types import HISTORY, ITEM_ID, QUERY_ID, TRAINING_COUNT

TITLES = ("title", "name")


def ordered(columns: Iterable[str]) -> list[str]:
    """Return column names in reading order: titles, the rest by alphabet, the id and its count last.

    The wire does not keep the columns' own order.
    """
    return sorted(columns, key=lambda name: (name not in TITLES, name in (ITEM_ID, TRAINING_COUNT), name))


def text(value: Any) -> str:
    """Return one value as text; a missing one as a dash."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def title(item_id: str, columns: Mapping[str, Any]) -> str:
    """Return what a person calls an item: its title or name, or its id where it has neither."""
    return next((str(columns[name]) for name in TITLES if columns.get(name)), item_id)


def details(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what else there is to say: name and text of each column with a value that is not the project's own."""
    unsaid = (*TITLES, ITEM_ID, QUERY_ID, HISTORY, TRAINING_COUNT)
    return [
        (name.replace("_", " "), text(columns[name]))
        for name in ordered(columns)
        if name not in unsaid and columns[name] not in (None, [], "")
    ]
