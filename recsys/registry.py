"""Find the choices of a family by file name: `recsys/<family>/<kind>.py` holds the class named after the file.

A *family* is a package whose modules are interchangeable; a *choice* is one of them: a frozen dataclass whose fields
are its settings. `splits/by_time.py` holds `class ByTime` and is `kind = "by_time"` in a run file. There is no list to
extend: a new file is a new choice.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import pkgutil
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic
from pydantic import ConfigDict

from twintower.errors import SettingError, describe, unknown, verbatim

T = TypeVar("T")

FAMILIES = (
    "sources",
    "splits",
    "features",
    "towers",
    "augmentations",
    "objectives",
    "indexes",
    "reformulators",
    "baselines",
)

TOML_WORDS = {
    "dataclass_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""What a run file calls the types of which pydantic speaks by their Python names."""

settings = functools.partial(
    pydantic.dataclasses.dataclass,
    frozen=True,
    kw_only=True,
    config=ConfigDict(
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    ),
)
"""Decorator: a frozen dataclass whose fields are typed, checked settings; unknown ones are refused."""


def names(family: str) -> list[str]:
    """Return the kinds of a family, sorted; nothing is imported but the family's package."""
    package = importlib.import_module(f"recsys.{family}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def choice(family: str, kind: str, offered: Sequence[str] = ()) -> type:
    """Return the class of one choice.

    Args:
        family: the plural folder, such as `splits`.
        kind: the name of its file.
        offered: kinds that the message names; default: all of the family.

    Raises:
        SettingError: the family has no such kind; the message names the nearest one.
    """
    if kind not in names(family):
        raise SettingError(unknown(f"choice in recsys.{family}", kind, offered or names(family)))
    module = importlib.import_module(f"recsys.{family}.{kind}")
    return getattr(module, "".join(part.capitalize() for part in kind.split("_")))


def kind_of(instance: object) -> str:
    """Return the kind of a choice: the name of the file that its class stands in."""
    return type(instance).__module__.rpartition(".")[2]


def build(family: str, table: Mapping[str, Any], where: str, offered: Sequence[str] = ()) -> Any:
    """Make a choice from a table of settings.

    Args:
        family: the plural folder, such as `splits`.
        table: the settings with their `kind`, as read from a run file.
        where: the path of the table in the run file, for messages.
        offered: kinds that messages name; default: all of the family.

    Raises:
        SettingError: no or unknown kind, unknown setting, or a value out of its range.
    """
    if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
        advice = f"Known kinds: {', '.join(offered or names(family))}."
        raise SettingError(describe(where, table, "a table with a 'kind'", advice))
    values = {key: value for key, value in table.items() if key != "kind"}
    try:
        cls = choice(family, table["kind"], offered)
    except SettingError as error:
        raise SettingError(f"{where}.kind: {error}") from None
    return parse(cls, values, where)


def parse(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Make a settings dataclass from plain values.

    Args:
        cls: a class decorated with `settings`.
        values: its fields by name.
        where: the path of the table in the run file, for messages; may be empty.

    Raises:
        SettingError: every broken rule, one a line, in the project's form.
    """
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        lines = [_line(cls, detail, where) for detail in error.errors()]
        raise SettingError("\n".join(lines)) from None


def table_of(instance: object) -> dict[str, Any]:
    """Return the settings of a choice as plain values with its kind, the inverse of `build`; unset ones left out."""
    return {"kind": kind_of(instance), **plain(instance)}


def plain(instance: Any) -> dict[str, Any]:
    """Return the fields of a settings dataclass as plain values for TOML; `None` is left out."""
    values = pydantic.TypeAdapter(type(instance)).dump_python(instance, mode="json", exclude_none=True)
    return {field.name: values[field.name] for field in dataclasses.fields(instance) if field.name in values}


def _line(cls: type, detail: Any, where: str) -> str:
    path = ".".join(str(part) for part in (where, *detail["loc"]) if part != "")
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *sections, name = detail["loc"]
        for section in sections:
            cls = _section(cls, section)
        owner = ".".join(str(part) for part in (where, *sections) if part != "") or "the run file"
        if name in (removed := getattr(cls, "removed", {})):
            return f"{owner}: the setting {name!r} was removed. {removed[name]}"
        known = [field.name for field in dataclasses.fields(cls)]
        return f"{owner}: {unknown('setting', str(name), known)}"
    rule = detail["msg"]
    for prefix in ("Input should be ", "Value error, "):
        rule = rule.removeprefix(prefix)
    rule = TOML_WORDS.get(detail["type"], rule)
    got = verbatim("nothing") if detail["type"] in ("missing", "missing_argument") else detail["input"]
    if detail["type"] in ("missing", "missing_argument"):
        rule = "a value"
    return describe(path, got, rule)


def _section(cls: type, name: object) -> type:
    """Return the settings that stand in a field: those of the section itself, of an optional one, or of a table's."""
    fields = getattr(cls, "__pydantic_fields__", {})
    kind = fields[name].annotation if name in fields else cls
    held = (kind, *typing.get_args(kind))
    return next((each for each in held if dataclasses.is_dataclass(each)), cls)


def combinations(given: T, *names: str, **values: Sequence[Any]) -> tuple[T, ...]:
    """Return a copy of some settings for each combination of the values to try, one value in each.

    Args:
        given: the settings.
        names: fields that hold a tuple of values to try; each copy has a tuple of one.
        values: values to try of fields that hold one value. The values of the last field change first.
    """
    tried = {name: [(value,) for value in getattr(given, name)] for name in names} | values
    return tuple(
        dataclasses.replace(given, **dict(zip(tried, chosen, strict=True)))
        for chosen in itertools.product(*tried.values())
    )
