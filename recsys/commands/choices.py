"""`recsys choices`: every family with its choices and their settings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.errors import SettingError, unknown

SECTIONS = {
    "sources": "[source]",
    "splits": "[split]",
    "features": "[item.features.<name>], [query.features.<name>]",
    "towers": "[tower]",
    "augmentations": "[[self_supervision.augmentations]], [[item.augmentations]]",
    "indexes": "[index]",
    "reformulators": "[reformulation.reformulator]",
}
OBJECTIVES = {
    "pairs": "[objective]",
    "views": "[self_supervision.objective]",
    "revisions": "[reformulation.objective]",
}
"""Where an objective stands, by what it compares."""
STAGES = {
    "run": "Run",
    "data": "Data",
    "query": "QuerySide",
    "item": "ItemSide",
    "self_supervision": "SelfSupervision",
    "self_supervision.schedule": "Schedule",
    "training": "Training",
    "training.schedule": "Schedule",
    "evaluation": "Evaluation",
    "ablation": "AblationPlan",
    "reformulation": "Reformulation",
}
"""Sections that are no family, by what `recsys.config` calls their settings."""


def command(
    family: Annotated[str, typer.Argument(help="Only this family or section, such as features or training.")] = "",
) -> None:
    """List what a run file may say: each family's kinds and sections, their settings, defaults and meaning."""
    from recsys import config, registry

    if family and family not in {*registry.FAMILIES, *STAGES}:
        raise SettingError(unknown("family or section", family, [*registry.FAMILIES, *STAGES]))
    console = Console()
    for name in registry.FAMILIES:
        if family in ("", name):
            for kind in registry.names(name):
                choice = registry.choice(name, kind)
                section = OBJECTIVES[choice.reads] if name == "objectives" else SECTIONS[name]
                _show(console, f'{section} kind = "{kind}"', choice, name)
    for name, settings in STAGES.items():
        if family in ("", name):
            title = "top of the run file" if name == "run" else f"[{name}]"
            _show(console, title, getattr(config, settings), name)


def _show(console: Console, title: str, cls: type, section: str) -> None:
    document = inspect.getdoc(cls) or ""
    caption = escape(document.split("\n\n")[0])
    console.print(escape(title), style="table.title", highlight=False, soft_wrap=True)
    table = Table(caption=caption, caption_justify="left")
    for column in ("setting", "default", "meaning"):
        table.add_column(column, overflow="fold")
    meanings = _meanings(document)
    for field in dataclasses.fields(cls):
        table.add_row(field.name, escape(_default(field, section)), escape(meanings.get(field.name, "")))
    console.print(table)


def _default(field: dataclasses.Field[Any], section: str) -> str:
    default = field.default
    if hasattr(default, "get_default"):
        default = default.get_default(call_default_factory=True)
    if default is dataclasses.MISSING or repr(default) == "PydanticUndefined":
        return "required"
    if dataclasses.is_dataclass(default):
        return f"see [{field.name}]" if section == "run" else f"see [{section}.{field.name}]"
    return repr(default).lower() if isinstance(default, bool) else repr(default)


def _meanings(document: str) -> dict[str, str]:
    """Return the text of each entry of the docstring's `Attributes:` section."""
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
