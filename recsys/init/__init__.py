"""`recsys init`: look at data and propose a run file, with the reason for each choice beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recsys import config
from recsys.data import encoders
from recsys.data.decisions import feature_width
from recsys.init.roles import Named, find_roles
from recsys.init.run_file import Facts, facts_of, render, sections_of
from recsys.linear_models import MAX_INVERTED

__all__ = ["Named", "run_file_for_files", "run_file_for_source"]


def run_file_for_files(named: Named, name: str) -> str:
    """Return a run file for the user's own files.

    Args:
        named: the files, and columns as far as the user names them.
        name: of the run; characters that a name cannot have are replaced.

    Raises:
        DataError: a file cannot be read.
        SettingError: which column is what is not clear.
    """
    found = find_roles(named)
    return _run_file({"kind": "parquet", **found.settings}, name, found.reasons)


def run_file_for_source(kind: str, settings: Mapping[str, Any], name: str) -> str:
    """Return a run file for a source of any kind.

    Args:
        kind: of the source.
        settings: of it.
        name: as in `run_file_for_files`.

    Raises:
        DataError: the source cannot be read.
        SettingError: there is no such kind, or a setting is wrong.
    """
    return _run_file({"kind": kind, **settings}, name, {})


def _run_file(source: Mapping[str, Any], name: str, reasons: Mapping[str, str]) -> str:
    facts = facts_of(config.chosen("source", source).read())
    run_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-") or "run"
    text = render(sections_of(facts, run_name, source, reasons))
    run = config.from_tables(tomllib.loads(text))
    if facts.has_closed_form and _has_wide_features(run, facts):
        text = render(sections_of(replace(facts, has_wide_features=True), run_name, source, reasons))
    return text


def _has_wide_features(run: config.Run, facts: Facts) -> bool:
    """Return whether a closed form would have to explain too many items by too many values of their features."""
    items = facts.raw.items
    if items.num_rows <= MAX_INVERTED:
        return False
    fitted = encoders.fit_items(run, items, facts.item_counts)
    return feature_width(fitted, encoders.encode(fitted, items, "item")) > MAX_INVERTED
