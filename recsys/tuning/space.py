"""What a study tries: models (objectives on sections that suit them) and the settings of each."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recsys import config, registry
from recsys.config import Run, put
from recsys.data import encoders
from recsys.search_space import Between, OneOf, search_space_of
from twintower.errors import SettingError, describe

Tables = Mapping[str, Any]

KIND, START = "objective.kind", "objective.start"
TUNED = ("objective", "tower", "training", "query.features", "item.features", "item.augmentations", "self_supervision")
"""The settings of a run file that a trial may change: all others decide what it is judged by."""
JUDGED_BY = ("training.validation_metric", "training.validation_cases", "training.refit")
"""The ones among them that it may not."""
UNITS = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "patience", "validate_every_epochs")
"""Settings of `[training]` that suit one kind of objective, and start from their defaults for another."""


@dataclass(frozen=True)
class Parameter:
    """A setting that is tried.

    Attributes:
        path: of the setting in the run file.
        values: what is tried.
        in_list: the setting is a list of values to try, and gets one of them.
        default: the value that the model's first trial has; None where the run file's own is not among the values, or
            is a list whose values one training tries.
    """

    path: str
    values: Between | OneOf
    in_list: bool = False
    default: Any = None

    def put(self, tables: dict[str, Any], value: Any) -> None:
        """Set a value in the tables of a run file."""
        put(tables, self.path, [value] if self.in_list else copy.deepcopy(value))


@dataclass(frozen=True)
class Model:
    """An objective on sections of a run file that suit it.

    Attributes:
        name: of the model, unique in a study.
        tables: the run file.
        parameters: the settings that are tried.
    """

    name: str
    tables: Tables
    parameters: tuple[Parameter, ...]

    @property
    def first_trials(self) -> Iterator[dict[str, Any]]:
        """Yield values by path: the model as it is, then from each solution that its training can start from."""
        defaults = {each.path: each.default for each in self.parameters if each.default is not None}
        yield defaults
        for parameter in self.parameters:
            if parameter.path == START:
                yield from (defaults | {START: kind} for kind in parameter.values.examples if kind != parameter.default)

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run file with values for some of the parameters, by path."""
        tables = copy.deepcopy(dict(self.tables))
        for parameter in self.parameters:
            if parameter.path in values:
                parameter.put(tables, values[parameter.path])
        return tables


def models_of(
    tables: Tables, run: Run, *, has_closed_form: bool, has_times: bool, tries: Sequence[str] = ()
) -> dict[str, Model]:
    """Return the models of a study by name, the run file's own first, as it is.

    Every kind of objective that fits is a model. Where the run file has no history or no tower of kind `sum`, or does
    not suit the objective, one that reads all that an entity has met is given the sections of a linear model: sums of
    features, among them a history.

    Args:
        tables: the run file, as it was written.
        run: the same with nothing left to the data.
        has_closed_form: whether the data are few enough for a closed form.
        has_times: whether interactions have times.
        tries: `path=values` strings from the command line: other values, or other settings.

    Raises:
        SettingError: one of `tries` has another form, may not be changed, or suits no model.
    """

    def problem(changed: Tables) -> str:
        try:
            objective = config.from_tables(changed).objective
        except SettingError as error:
            return str(error)
        is_solved = objective.reads == "matrix" or bool(getattr(objective, "start", ""))
        return "the data are too large for a closed form" if is_solved and not has_closed_form else ""

    wanted = _parsed(tries)
    kinds = wanted.pop(KIND, None)
    found = {}
    for name, model in _structures(tables, run):
        if (kinds is not None and model["objective"]["kind"] not in kinds.examples) or problem(model):
            continue
        # One training that tries every value of a list is worth its time for the run file itself alone.
        parameters = tuple(_parameters(model, problem, has_times, with_lists=not found))
        found[name] = Model(name, model, _with_tries(parameters, wanted, model, problem))
    if not found:
        got = None if kinds is None else list(kinds.examples)
        raise SettingError(describe(KIND, got, "a kind of objective that suits the run file and its data"))
    first, *_ = found.values()
    for path, values in wanted.items():
        if not any(path == parameter.path for model in found.values() for parameter in model.parameters):
            refusals = [_refusal(first.tables, Parameter(path, values), value, problem) for value in values.examples]
            advice = next(filter(None, refusals), "")
            raise SettingError(describe(f"--try {path}", list(values.examples), "values that a model can have", advice))
    return found


def description_of(models: Mapping[str, Model]) -> dict[str, Any]:
    """Return the models as plain values: equal ones describe the same search."""
    return {
        name: {parameter.path: repr(parameter.values) for parameter in model.parameters}
        for name, model in models.items()
    }


def _structures(tables: Tables, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and run files: the run file itself, then each kind of objective on sections that suit it."""
    own = registry.kind_of(run.objective)
    as_is = {**copy.deepcopy(dict(tables)), "objective": {**tables.get("objective", {}), "kind": own}}
    yield own, as_is
    has_history = any(map(encoders.is_history_feature, run.query_features.values()))
    is_linear = has_history and registry.kind_of(run.tower) == "sum"
    kinds = dict.fromkeys((*config.DEFAULT_OBJECTIVES, *config.kinds_of("objective")))
    for kind in kinds:
        reads = registry.choice("objectives", kind).reads
        if kind != own:
            changed = as_is | {"objective": {"kind": kind}}
            if reads != run.objective.reads:
                changed["training"] = _without_units(tables)
            if (is_linear or reads == "pairs") and _is_valid(changed):
                yield kind, changed
                continue
        if reads == "pairs" or run.query.entity == "features" or (kind == own and is_linear):
            continue
        yield f"{kind} of histories", _linear(as_is, run, kind)


def _linear(tables: Tables, run: Run, kind: str) -> dict[str, Any]:
    """Return the run file with the sections of a linear model: sums of features, among them all that was met."""
    features = {name: registry.table_of(each) for name, each in run.query_features.items()}
    kept = {name: table for name, table in features.items() if table["kind"] not in ("id", "history")}
    name = next(name for name in ("met", *(f"met_{number}" for number in range(2, len(kept) + 3))) if name not in kept)
    changed = copy.deepcopy(dict(tables))
    changed["query"] = {**changed.get("query", {}), "features": {name: {"kind": "history"}, **kept}}
    changed["tower"] = {"kind": "sum"}
    changed["objective"] = {"kind": kind}
    changed["training"] = _without_units(tables)
    changed.pop("self_supervision", None)
    changed["item"].pop("augmentations", None)
    return changed


def _without_units(tables: Tables) -> dict[str, Any]:
    return {name: value for name, value in tables.get("training", {}).items() if name not in UNITS}


def _is_valid(tables: Tables) -> bool:
    try:
        config.from_tables(tables)
    except SettingError:
        return False
    return True


def _parameters(
    tables: Tables, problem: Callable[[Tables], str], has_times: bool, *, with_lists: bool
) -> Iterator[Parameter]:
    """Yield the settings whose values all suit the run file; with lists, its first trial keeps those whole."""
    run = config.from_tables(tables)
    for path, choice in _choices(run):
        for name, values in search_space_of(type(choice)).items():
            if (values.in_steps and run.objective.reads == "matrix") or (values.needs_times and not has_times):
                continue
            parameter = _parameter(f"{path}.{name}", values, getattr(choice, name), with_lists)
            if not any(_refusal(tables, parameter, value, problem) for value in parameter.values.examples):
                yield parameter


def _choices(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield path and settings of each section that a trial may change."""
    yield "objective", run.objective
    yield "tower", run.tower
    yield "training", run.training
    for side in ("query", "item"):
        for name, feature in getattr(run, side).features.items():
            yield config.path_to(side, "features", name), feature
    for index, stage in enumerate(run.item.augmentations):
        yield f"item.augmentations.{index}", stage
    if run.self_supervision is not None:
        yield "self_supervision.objective", run.self_supervision.objective
        for index, stage in enumerate(run.self_supervision.augmentations):
            yield f"self_supervision.augmentations.{index}", stage


def _parameter(path: str, values: Between | OneOf, current: Any, with_lists: bool) -> Parameter:
    """Return a parameter whose values include the current one, if that is of their kind."""
    if isinstance(current, tuple) and not isinstance(values.examples[0], tuple):
        if with_lists:
            return Parameter(path, values, in_list=True)
        return replace(_parameter(path, values, current[0], with_lists), in_list=True)
    is_number = isinstance(current, (int, float)) and not isinstance(current, bool)
    if isinstance(values, Between):
        if is_number and (current > 0 or not values.log):
            values = replace(values, low=min(values.low, current), high=max(values.high, current))
    elif type(current) is type(values.values[0]) and current not in values:
        values = replace(values, values=(*values.values, current))
    return Parameter(path, values, default=current if current in values else None)


def _changed(tables: Tables, parameter: Parameter, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(tables))
    parameter.put(changed, value)
    return changed


def _parsed(tries: Sequence[str]) -> dict[str, Between | OneOf]:
    """Return the values of each path of `--try path=values`.

    Raises:
        SettingError: a string of another form, or a setting that decides what a trial is judged by.
    """
    found: dict[str, Between | OneOf] = {}
    for text in tries:
        matched = config.OVERRIDE.fullmatch(text)
        rule = "path=[value, value] or path={low = number, high = number}"
        if matched is None:
            raise SettingError(describe("--try", text, rule))
        path = config.path_to(*config.path_of(matched[1]))
        if not path.startswith(tuple(f"{section}." for section in TUNED)) or path in JUDGED_BY:
            rule = f"a setting of {', '.join(TUNED)} other than {', '.join(JUDGED_BY)}"
            raise SettingError(describe("--try", path, rule, "All trials share it: change it with --set."))
        try:
            found[path] = _values(tomllib.loads(f"value = {matched[2]}")["value"])
        except (tomllib.TOMLDecodeError, TypeError, ValueError, ArithmeticError):
            raise SettingError(describe(f"--try {path}", matched[2], rule)) from None
    return found


def _values(given: Any) -> Between | OneOf:
    if isinstance(given, list) and given:
        return OneOf(tuple(given))
    values = Between(**given)
    if not values.low <= values.high or (values.log and values.low <= 0):
        raise ValueError
    return values


def _with_tries(
    parameters: tuple[Parameter, ...],
    wanted: Mapping[str, Between | OneOf],
    tables: Tables,
    problem: Callable[[Tables], str],
) -> tuple[Parameter, ...]:
    """Return parameters with other values, or further ones, where these suit the run file."""
    kept = {parameter.path: parameter for parameter in parameters}
    for path, values in wanted.items():
        old = kept.pop(path, Parameter(path, values))
        in_list = old.in_list and not isinstance(values.examples[0], list)
        new = Parameter(path, values, in_list, old.default if old.default in values else None)
        if not any(_refusal(tables, new, value, problem) for value in values.examples):
            kept[path] = new
    return tuple(kept.values())


def _refusal(tables: Tables, parameter: Parameter, value: Any, problem: Callable[[Tables], str]) -> str:
    """Return why a value does not suit the run file, or its path leads nowhere; empty where it does."""
    try:
        return problem(_changed(tables, parameter, value))
    except SettingError as error:
        return str(error)
