"""`recsys choices`: every family with its choices and their settings."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.search_space import search_space_of
from twintower.errors import SettingError, unknown

LISTS = ("metrics",)
"""What a run file names in lists rather than in sections of its own."""
TABLE_LISTS = ("augmentations", "baselines")
"""The last keys of sections that are lists of tables."""


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Only this family, section or list: features, split, metrics ….")
    ] = "",
) -> None:
    """List what a run file may contain: kinds and sections with their settings and defaults, and metrics."""
    from recsys import config, registry

    stages = stages_of(config.Run)
    places = {place.removesuffix(".<name>"): place for place in config.PLACES}
    known = [*registry.FAMILIES, *places, *stages, *LISTS]
    if name and name not in known:
        raise SettingError(unknown("family, section or list", name, known))
    console = Console()
    for family in registry.FAMILIES:
        wanted = {
            place for short, place in places.items() if config.PLACES[place] == family and name in ("", family, short)
        }
        for kind in registry.names(family):
            choice = registry.choice(family, kind)
            sections = [section for section in config.PLACES if section in wanted and kind in config.kinds_of(section)]
            if sections or name in ("", family):
                title = ", ".join(map(_header, sections)) or "in every release, without a section:"
                _show(console, f'{title} kind = "{kind}"', choice, "")
    for section, settings in stages.items():
        if name in ("", section):
            _show(console, f"[{section}]" if section != "run" else "top of the run file", settings, section)
    if name in ("", "metrics"):
        from recsys.metrics.ranking import FORMULAS

        meanings = {f"{measure}@k": formula.__doc__ for measure, formula in FORMULAS.items()}
        _list(console, "evaluation.metrics, training.validation_metric and others", "metric", meanings)


def stages_of(run: type) -> dict[str, type]:
    """Return the sections of a run file that are no choice, `run` for its top first, and the settings of each."""
    found = {"run": run}
    for name, hint in typing.get_type_hints(run).items():
        for cls in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(cls):
                nested = stages_of(cls)
                found |= {name if inner == "run" else f"{name}.{inner}": each for inner, each in nested.items()}
    return found


def _header(section: str) -> str:
    return f"[[{section}]]" if section.endswith(TABLE_LISTS) else f"[{section}]"


def _list(console: Console, title: str, column: str, meanings: dict[str, str | None]) -> None:
    console.print(title, style="table.title", highlight=False, soft_wrap=True)
    table = Table(column, "meaning")
    for name, meaning in meanings.items():
        table.add_row(name, escape((meaning or "").partition("\n\n")[0].removeprefix("Return ")))
    console.print(table)


def _show(console: Console, title: str, cls: type, section: str) -> None:
    document = inspect.getdoc(cls) or ""
    caption = escape(document.split("\n\n")[0])
    console.print(escape(title), style="table.title", highlight=False, soft_wrap=True)
    table = Table(caption=caption, caption_justify="left")
    tried = search_space_of(cls)
    for column in ("setting", "default", "meaning", *(("`recsys tune` tries",) if tried else ())):
        table.add_column(column, overflow="fold")
    meanings = meanings_of(cls)
    for field in dataclasses.fields(cls):
        values = (escape(str(tried[field.name])),) if field.name in tried else ()
        table.add_row(field.name, escape(default_of(field, section)), escape(meanings.get(field.name, "")), *values)
    console.print(table)


def default_of(field: dataclasses.Field[Any], section: str) -> str:
    """Return the default of a setting as a run file would spell it, or `required`; a section's own is where it stands.

    Args:
        field: of a class made with `registry.settings`.
        section: the section of a run file that the setting stands in; `run` for the top.
    """
    default = field.default
    if hasattr(default, "get_default"):
        default = default.get_default(call_default_factory=True)
    if default is dataclasses.MISSING or repr(default) == "PydanticUndefined":
        return "required"
    if dataclasses.is_dataclass(default):
        from recsys import config, registry

        place = field.name if section == "run" else f"{section}.{field.name}"
        return f'kind = "{registry.kind_of(default)}", see [{place}]' if place in config.PLACES else f"see [{place}]"
    if isinstance(default, tuple) and default and all(map(dataclasses.is_dataclass, default)):
        from recsys import registry

        return repr([registry.kind_of(each) for each in default])
    return repr(default).lower() if isinstance(default, bool) else repr(default)


def meanings_of(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each setting, under `Attributes:`."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= _attributes(inspect.cleandoc(vars(base).get("__doc__") or ""))
    return meanings


def _attributes(document: str) -> dict[str, str]:
    """Return the text of each entry of a docstring's `Attributes:` section."""
    _, _, section = document.partition("Attributes:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            meanings[name] = text
        else:
            meanings[name] += f" {line.strip()}"
    return meanings
