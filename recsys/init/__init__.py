"""`recsys init`: look at data and propose a run file, with the reason for each choice beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys import config
from recsys.data import encoders
from recsys.data.decisions import feature_width
from recsys.init.roles import Named, find_roles
from recsys.init.run_file import Facts, facts_of, render, sections_of
from recsys.linear_models import MAX_INVERTED
from twintower.errors import SettingError, describe, verbatim

__all__ = ["Named", "run_file_for_files", "run_file_for_source"]


def run_file_for_files(named: Named, name: str, compare_in: Path | None = None) -> str:
    """Return a run file for the user's own files.

    Args:
        named: the files, and columns as far as the user names them.
        name: of the run; characters that a name cannot have are replaced.
        compare_in: a folder for trial trainings: a model that reads the order of the history is trained beside the one
            that does not, and the run file of the better one on validation cases is returned. None: do not train.

    Raises:
        DataError: a file cannot be read.
        SettingError: which column is what is not clear, or models are to be compared and there are no times.
    """
    found = find_roles(named)
    return _run_file({"kind": "parquet", **found.settings}, name, found.reasons, compare_in)


def run_file_for_source(kind: str, settings: Mapping[str, Any], name: str, compare_in: Path | None = None) -> str:
    """Return a run file for a source of any kind.

    Args:
        kind: of the source.
        settings: of it.
        name: as in `run_file_for_files`.
        compare_in: as in `run_file_for_files`.

    Raises:
        DataError: the source cannot be read.
        SettingError: there is no such kind, a setting is wrong, or models are to be compared and there are no times.
    """
    return _run_file({"kind": kind, **settings}, name, {}, compare_in)


def _run_file(source: Mapping[str, Any], name: str, reasons: Mapping[str, str], compare_in: Path | None) -> str:
    facts = facts_of(config.chosen("source", source).read())
    if not facts.has_times and (column := source.get("timestamp_column")):
        source = {setting: value for setting, value in source.items() if setting != "timestamp_column"}
        reasons = {**reasons, "timestamp_column": f"left out, because all times in {column} are equal or missing"}
    run_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-") or "run"

    def text(reads_order: bool = False, found: str = "") -> str:
        return render(sections_of(facts, run_name, source, reasons, reads_order=reads_order, found=found))

    run = config.from_tables(tomllib.loads(text()))
    if facts.has_closed_form and _has_wide_features(run, facts):
        facts = replace(facts, has_wide_features=True)
    return text() if compare_in is None else text(*_better(facts, text, compare_in))


def _better(facts: Facts, text: Callable[[bool], str], folder: Path) -> tuple[bool, str]:
    """Return whether the model that reads order is better on validation cases, and a sentence that says so."""
    from recsys.pipeline import best_on_validation  # brings TensorFlow, which a proposal does not need

    if not facts.has_times:
        got = verbatim("interactions without times")
        raise SettingError(describe("--compare", got, "times", "Without times, there is no order to read."))
    metrics = {}
    for reads_order in (False, True):
        run = config.from_tables(tomllib.loads(text(reads_order)))
        metrics[reads_order] = best_on_validation(run, folder / ("order" if reads_order else "set"))
    sentence = (
        f"Validation chose between two models: {run.training.validation_metric} is {metrics[True]:.4f} for a "
        f"transformer that reads the order of the history, {metrics[False]:.4f} for a sum that does not."
    )
    return metrics[True] > metrics[False], sentence


def _has_wide_features(run: config.Run, facts: Facts) -> bool:
    """Return whether a closed form would have to explain too many items by too many values of their features."""
    items = facts.raw.items
    if items.num_rows <= MAX_INVERTED:
        return False
    fitted = encoders.fit_items(run, items, facts.item_counts)
    return feature_width(fitted, encoders.encode(fitted, items, "item")) > MAX_INVERTED
