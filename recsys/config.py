"""The run file: TOML in, frozen dataclasses out; unknown keys are refused, defaults are written back."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, field_validator

from recsys import registry
from recsys.errors import SettingError, describe, unknown
from recsys.registry import settings

CHOICES = {"source": "sources", "split": "splits", "tower": "towers", "objective": "objectives", "index": "indexes"}
"""The sections of a run file that are a choice from a family."""

FEATURE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

DEFAULT_KINDS = {
    "split": {"kind": "by_time"},
    "tower": {"kind": "mlp"},
    "objective": {"kind": "sampled_softmax"},
    "index": {"kind": "scann"},
}


@settings()
class Data:
    """How the rows of a source are accepted.

    Attributes:
        max_rejected_rate: the largest share of broken rows (0..1) that is counted and passed over; more is an error.
    """

    max_rejected_rate: float = Field(default=0.01, ge=0, le=1)


@settings()
class QuerySide:
    """The query side of the model.

    Attributes:
        entity: who asks: a `user`, an `item` (item-to-item), or free `features` of each interaction.
        features: the query tower's inputs by name; for entity `item` none means the item side's features.
    """

    entity: Literal["user", "item", "features"] = "user"
    features: dict[str, Any] = Field(default_factory=dict)


@settings()
class ItemSide:
    """The item side of the model.

    Attributes:
        features: the item tower's inputs by name.
        metadata: columns of the items that travel in the release for display; empty means all.
    """

    features: dict[str, Any]
    metadata: tuple[str, ...] = ()

    @field_validator("features")
    @classmethod
    def _some(cls, features: dict[str, Any]) -> dict[str, Any]:
        if not features:
            raise ValueError("at least one feature")
        return features


@settings()
class Schedule:
    """The learning rate over the steps of a run.

    Attributes:
        kind: `constant`, or `cosine` decay to `final_rate` times the learning rate at the last step.
        warmup_steps: steps of linear growth from 0 before that.
        final_rate: share (0..1) of the learning rate that a cosine ends with.
    """

    kind: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_rate: float = Field(default=0.0, ge=0, le=1)


@settings()
class Training:
    """The loop.

    Attributes:
        epochs: passes over the training interactions.
        batch_size: interactions in one step.
        optimizer: the Keras optimiser's name.
        learning_rate: step size of the optimiser, > 0.
        schedule: the learning rate over the run.
        clip_norm: upper bound of the gradients' global L2 norm, before rows of an embedding table that repeat in a
            batch are summed; 0 turns clipping off.
        deterministic: same losses from the same seed, at some cost in speed.
        mixed_precision: `bfloat16` computes the towers' hidden layers in bfloat16; weights stay float32.
        share_tables: the query tower reads the item tower's embedding tables where a feature stands on both sides.
        checkpoint_every_s: seconds between checkpoints; one is also written at each validation and on interruption.
        validate_every_epochs: epochs between validations.
        patience: validations without a better metric before the run stops early; 0 turns this off.
        validation_metric: what early stopping watches, in ir-measures spelling.
        validation_cases: cases drawn for it, at most.
    """

    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=1024, ge=2)
    optimizer: Literal["adagrad", "adam", "sgd"] = "adagrad"
    learning_rate: float = Field(default=0.1, gt=0)
    schedule: Schedule = Field(default_factory=Schedule)
    clip_norm: float = Field(default=0.0, ge=0)
    deterministic: bool = False
    mixed_precision: Literal["none", "bfloat16"] = "none"
    share_tables: bool = True
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    validate_every_epochs: int = Field(default=1, ge=1)
    patience: int = Field(default=3, ge=0)
    validation_metric: str = "nDCG@10"
    validation_cases: int = Field(default=2000, ge=1)


@settings()
class Evaluation:
    """What is measured on the test cases, over the full catalogue.

    Attributes:
        metrics: names in ir-measures spelling.
        exclude_seen: take items that the query entity met before the cut out of every ranking.
        max_cases: test cases, drawn with the run's seed when there are more; 0 means all.
        baselines: recommenders that are measured in the same table.
        confidence: level of the bootstrap intervals, 0..1.
        resamples: bootstrap resamples.
    """

    metrics: tuple[str, ...] = ("nDCG@10", "AP@10", "R@10", "R@50", "RR@10", "Success@10")
    exclude_seen: bool = False
    max_cases: int = Field(default=0, ge=0)
    baselines: tuple[Literal["popularity", "item_knn", "als"], ...] = ("popularity", "item_knn")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)


@settings()
class Run:
    """One run: what is read, what is trained, how it is judged and what it is served from.

    Attributes:
        name: the run's name; it begins the name of its release. Letters, digits, `-`, `_` and `.`.
        seed: every random draw of the run follows from it.
        source: a choice from `recsys.sources`.
        data: acceptance of its rows.
        query: the query side.
        item: the item side.
        split: a choice from `recsys.splits`.
        tower: a choice from `recsys.towers`, for both sides.
        objective: a choice from `recsys.objectives`, the main task.
        training: the loop.
        evaluation: the judgement.
        index: a choice from `recsys.indexes`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    source: Any
    item: ItemSide
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: Data = Field(default_factory=Data)
    query: QuerySide = Field(default_factory=QuerySide)
    split: Any
    tower: Any
    objective: Any
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    index: Any

    @property
    def query_features(self) -> dict[str, Any]:
        """The query tower's features; an item-to-item run that names none uses the item side's."""
        if self.query.entity == "item" and not self.query.features:
            return self.item.features
        return self.query.features


def load(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read a run file.

    Args:
        path: a TOML file, or the name of one that comes with the package, such as `complete_journey`.
        overrides: `section.key=value` strings, later ones win; the value is TOML, a bare word counts as a string.

    Raises:
        SettingError: the file is missing, not TOML, or breaks a rule; the message names key, value and rule.
    """
    return from_tables(overridden(tables_of(path), overrides))


def tables_of(path: str | Path) -> dict[str, Any]:
    """Return the tables of a run file, nothing checked but that it is TOML.

    Raises:
        SettingError: the file is missing or not TOML.
    """
    file = _find(Path(path))
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: not TOML: {error}.") from None


def overridden(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return tables with `section.key=value` strings applied, later ones winning.

    Raises:
        SettingError: a string of another form.
    """
    changed = copy.deepcopy(dict(tables))
    for override in overrides:
        _override(changed, override)
    return changed


def from_tables(tables: Mapping[str, Any]) -> Run:
    """Make a run from the tables of a run file.

    Raises:
        SettingError: an unknown key or a value that breaks a rule.
    """
    values: dict[str, Any] = {**DEFAULT_KINDS, **tables}
    for section, family in CHOICES.items():
        if isinstance(values.get(section), Mapping):
            values[section] = {**DEFAULT_KINDS.get(section, {}), **values[section]}
        if section in values:
            values[section] = registry.build(family, values[section], section)
    for side, cls in (("query", QuerySide), ("item", ItemSide)):
        if isinstance(values.get(side), Mapping):
            section = dict(values[side])
            features = section.get("features", {})
            if not isinstance(features, Mapping):
                raise SettingError(describe(f"{side}.features", features, "one table for each feature"))
            for name in features:
                if not FEATURE_NAME.fullmatch(name):
                    advice = "Choose a plain name and set column = the real one."
                    raise SettingError(describe(f"{side}.features", name, "letters, digits, '_', '-' and '.'", advice))
            section["features"] = {
                name: registry.build("features", table, f"{side}.features.{name}") for name, table in features.items()
            }
            values[side] = registry.parse(cls, section, side)
    for section, cls in (("data", Data), ("training", Training), ("evaluation", Evaluation)):
        if isinstance(values.get(section), Mapping):
            values[section] = registry.parse(cls, values[section], section)
    run = registry.parse(Run, values, "")
    _check_sides(run)
    return run


def dumps(run: Run) -> str:
    """Return the resolved run as TOML: every default written out; `load` of it gives an equal run."""
    return tomli_w.dumps(plain_tables(run))


def plain_tables(run: Run) -> dict[str, Any]:
    """Return the resolved run as plain tables, the inverse of `from_tables`."""
    tables = registry.plain(run)
    for section in CHOICES:
        tables[section] = registry.table_of(getattr(run, section))
    for side in ("query", "item"):
        features = getattr(run, side).features
        tables[side]["features"] = {name: registry.table_of(feature) for name, feature in features.items()}
    return tables


def shipped() -> list[str]:
    """Return the names of the run files that come with the package."""
    return sorted(file.stem for file in _runs_folder().glob("*.toml"))


def _runs_folder() -> Path:
    return Path(__file__).parent / "runs"


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    named = _runs_folder() / f"{path}.toml"
    if path.suffix == "" and named.is_file():
        return named
    raise SettingError(f"{path}: no such run file. {unknown('shipped run file', str(path), shipped())}")


def _override(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise SettingError(describe("--set", override, "section.key=value"))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = tables
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingError(describe("--set", override, f"a table at {part!r}"))
    table[path[-1]] = value


def _check_sides(run: Run) -> None:
    if not run.query_features:
        raise SettingError(describe("query.features", {}, "at least one feature"))
    for name, feature in run.item.features.items():
        if registry.kind_of(feature) == "history":
            raise SettingError(describe(f"item.features.{name}.kind", "history", "a feature of the item itself"))
    if run.query.entity == "features":
        for name, feature in run.query.features.items():
            if registry.kind_of(feature) in ("history", "id"):
                where = f"query.features.{name}.kind"
                raise SettingError(
                    describe(
                        where,
                        registry.kind_of(feature),
                        "a feature that needs no query entity",
                        "Set query.entity to 'user' or 'item'.",
                    )
                )
