"""The rows of an ablation: the paper's, and a run's own variants of them."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.config import AblationPlan, path_of, put
from twintower.errors import SettingError, describe, unknown

BASELINE = "baseline"
SHARED = ("seed", "source", "data", "query.entity", "split", "objective.logq", "evaluation", "ablation")
"""What no row may change: all answer the same questions after the same interactions, case by case."""


@dataclass(frozen=True)
class Subject:
    """One row of the table.

    Attributes:
        settings: tables of a run file, laid over the baseline's.
        search: the row's own settings, by path such as `self_supervision.objective.weight`, with the values to try.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _second_task(*augmentations: Mapping[str, Any], **objective: Any) -> dict[str, Any]:
    return {
        "self_supervision": {"objective": {"kind": "contrastive", **objective}, "augmentations": list(augmentations)}
    }


ALPHA = {"self_supervision.objective.weight": (0.1, 0.3, 1.0, 3.0)}
DROPOUT = {"kind": "value_dropout"}
DROPOUT_RATE = {"self_supervision.augmentations.1.rate": (0.2, 0.5)}
TEMPERATURE = {"self_supervision.objective.temperature": (0.07, 0.2, 0.5)}
VIEWS = {**ALPHA, **TEMPERATURE, **DROPOUT_RATE}

SUBJECTS: dict[str, Subject] = {
    BASELINE: Subject(),
    "fd": Subject(
        {"item": {"augmentations": [{"kind": "embedding_dropout"}]}},
        {"item.augmentations.0.rate": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)},
    ),
    "so": Subject(_second_task(kind="spread_out"), {**ALPHA, **TEMPERATURE}),
    "rfm": Subject(_second_task({"kind": "random_mask"}, DROPOUT), VIEWS),
    "rfm_no_compl": Subject(_second_task({"kind": "independent_random_mask"}, DROPOUT), VIEWS),
    "cfm": Subject(_second_task({"kind": "correlated_mask"}, DROPOUT), VIEWS),
    "cfm_no_dropout": Subject(_second_task({"kind": "correlated_mask"}), {**ALPHA, **TEMPERATURE}),
    "no_masking": Subject(
        _second_task(DROPOUT), {**ALPHA, **TEMPERATURE, "self_supervision.augmentations.0.rate": (0.2, 0.5)}
    ),
}
"""The rows of the paper's tables; every search has at least eight combinations, of which each row tries equally many.

Reference:
    Yao et al. 2021, arXiv:2007.12865v4, Tables 2 to 5, and Section 4.1 for the ranges.
    Differs: the second task has a temperature of its own, which is tuned, too; the paper names one for both tasks.
"""


VARIANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def subjects_of(plan: AblationPlan) -> dict[str, Subject]:
    """Return the rows that a plan compares, the baseline first.

    Raises:
        SettingError: a row or variant that does not exist, or a variant of another form.
    """
    known = dict(SUBJECTS)
    for name, table in plan.variants.items():
        known[name] = _variant(name, table, known)
    wanted = plan.subjects or tuple(known)
    for name in wanted:
        if name not in known:
            raise SettingError(f"ablation.subjects: {unknown('row', name, known)}")
    return {name: known[name] for name in dict.fromkeys((BASELINE, *wanted))}


def _variant(name: str, table: Mapping[str, Any], known: Mapping[str, Subject]) -> Subject:
    where = f"ablation.variants.{name}"
    if not VARIANT_NAME.fullmatch(name):
        raise SettingError(describe("ablation.variants", name, "letters, digits, '_', '-' and '.'"))
    if name in SUBJECTS:
        raise SettingError(describe(where, name, "a name that no row of the paper has"))
    if extra := table.keys() - {"like", "settings", "search"}:
        raise SettingError(f"{where}: {unknown('setting', sorted(extra)[0], ('like', 'settings', 'search'))}")
    for key in ("settings", "search"):
        if not isinstance(table.get(key, {}), Mapping):
            raise SettingError(describe(f"{where}.{key}", table[key], "a table of values by path"))
    like = str(table.get("like", BASELINE))
    if like not in known:
        raise SettingError(f"{where}.like: {unknown('row', like, known)}")
    settings = copy.deepcopy(dict(known[like].settings))
    for path, value in table.get("settings", {}).items():
        try:
            put(settings, path, value)
        except SettingError as error:
            raise SettingError(f"{where}.settings: {error}") from None
    return Subject(settings, table.get("search", known[like].search))


def row_tables(
    base: Mapping[str, Any], frozen: Mapping[str, Any], subject: Subject, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tables of a row: the baseline's settings, those that the row has of its own, those that it searches.

    Args:
        base: the run without a second task.
        frozen: values that tuning chose for the baseline, by path.
        subject: the row.
        chosen: values of its searched settings, by path.

    Raises:
        SettingError: the row would be asked other cases than the baseline, or a path does not fit.
    """
    tables = copy.deepcopy(dict(base))
    for path, value in frozen.items():
        put(tables, path, value)
    tables = laid_over(tables, subject.settings)
    for path, value in chosen.items():
        put(tables, path, value)
    for path in SHARED:
        if (got := _at(tables, path)) != _at(base, path):
            advice = "All rows share it; ablation.training_rates and ablation.logq compare cases."
            raise SettingError(describe(path, got, "what the run file says", advice))
    return tables


def _at(tables: Mapping[str, Any], path: str) -> Any:
    for part in path_of(path):
        tables = tables.get(part) if isinstance(tables, Mapping) else None
    return tables


def combinations(search: Mapping[str, Sequence[Any]], trials: int, seed: int) -> list[dict[str, Any]]:
    """Return all combinations of the values, or so many of them drawn at random; one empty one without a search.

    Raises:
        SettingError: there is nothing to try at a path.
    """
    for path, values in search.items():
        if not isinstance(values, (list, tuple)) or not values:
            advice = "Write the whole path in quotes."
            raise SettingError(describe(f"search for {path}", values, "a list of values, at least one", advice))
    everything = [dict(zip(search, values, strict=True)) for values in itertools.product(*search.values())]
    if len(everything) <= trials:
        return everything
    drawn = np.random.default_rng([seed, 9]).choice(len(everything), trials, replace=False)
    return [everything[place] for place in np.sort(drawn)]


def laid_over(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables with those of `changes` laid over them, level by level."""
    result = copy.deepcopy(dict(tables))
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = laid_over(result[name], value) if both else copy.deepcopy(value)
    return result
