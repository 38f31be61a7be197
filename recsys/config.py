"""The run file: TOML in, frozen dataclasses out; unknown keys are refused, defaults are written back."""

from __future__ import annotations

import copy
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from recsys import registry
from recsys.registry import settings
from recsys.search_space import Between
from twintower.errors import SettingError, describe, unknown, verbatim

PLACES = {
    "source": "sources",
    "split": "splits",
    "tower": "towers",
    "objective": "objectives",
    "index": "indexes",
    "item.features.<name>": "features",
    "query.features.<name>": "features",
    "item.augmentations": "augmentations",
    "self_supervision.augmentations": "augmentations",
    "self_supervision.objective": "objectives",
    "reformulation.reformulator": "reformulators",
    "reformulation.objective": "objectives",
    "evaluation.baselines": "baselines",
}
"""The sections of a run file that hold a choice from a family, and the family."""
CHOICES = tuple(place for place in PLACES if "." not in place)
"""Those of them at the top of the run file."""
DEFAULT_KINDS = {
    "split": "by_time",
    "tower": "sum",
    "index": "scann",
    "self_supervision.objective": "contrastive",
    "reformulation.reformulator": "attention",
    "reformulation.objective": "comparative",
}
"""The kind of a choice that a run file may leave out, by section."""
DEFAULT_OBJECTIVES = ("dlae", "all_items", "sampled_softmax")
"""Kinds of the main objective of a run file that names none: the first one that the run and its data allow."""
ORDER_OBJECTIVE = {"kind": "softmax", "similarity": "dot", "temperature": 1.0}
"""The main objective of a run file that names none where the order of a history counts, if the run allows it."""
DEFAULT_DIM = 256
"""Length of the vectors that `tower.dim = "auto"` stands for where the objective is no closed form."""
DEFAULT_BASELINES = ("popularity", "repeat", "item_knn", "dlae", "ials")
"""The kinds of `evaluation.baselines` that a run file may leave out."""
READS = {
    "objective": ("pairs", "sets", "matrix"),
    "self_supervision.objective": ("views",),
    "reformulation.objective": ("revisions",),
}
"""What the objective of a section must compare."""

MIN_EPOCHS, MIN_STEPS = 10, 1000
"""Lower bounds on the length of a training whose run file names no epochs."""
BATCH_SIZES = {"pairs": 1024, "sets": 256, "matrix": 256}
"""Size of a batch where none is named, by what the objective reads: interactions, or query entities."""
LOOKS = 20
"""Validations of a training that names no distance between them."""
MIN_FEEDBACK_STEPS, MAX_FEEDBACK_STEPS = 100, 600
"""Bounds on the steps of a reformulator's training whose run file names none."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]

KEY = re.compile(r""""[^"]*"|'[^']*'|[^\s."'=][^."'=]*""")
PATH = re.compile(rf"\s*(?:{KEY.pattern})\s*(?:\.\s*(?:{KEY.pattern})\s*)*")
OVERRIDE = re.compile(rf"({PATH.pattern})=(.*)", re.DOTALL)


def kinds_of(section: str) -> list[str]:
    """Return the kinds that a section of `PLACES` may hold, sorted."""
    family = PLACES[section]
    kinds = registry.names(family)
    if section in READS:
        return [kind for kind in kinds if registry.choice(family, kind).reads in READS[section]]
    if section == "reformulation.reformulator":
        return [kind for kind in kinds if registry.choice(family, kind).learned]
    if section == "item.features.<name>":
        return [kind for kind in kinds if kind != "history"]
    return kinds


def chosen(section: str, table: Any, where: str = "") -> Any:
    """Return the choice of a section of `PLACES`; a table without a kind is one of the section's default kind.

    Args:
        section: such as `split` or `item.features.<name>`.
        table: its settings with their `kind`.
        where: the section as the run file names it, for messages; default: `section`.

    Raises:
        SettingError: no kind, one that the section may not hold, or a setting that breaks a rule.
    """
    where = where or section
    if isinstance(table, Mapping) and section in DEFAULT_KINDS:
        table = {"kind": DEFAULT_KINDS[section], **table}
    offered = kinds_of(section)
    made = registry.build(PLACES[section], table, where, offered)
    if (kind := registry.kind_of(made)) not in offered:
        raise SettingError(describe(f"{where}.kind", kind, f"one of {', '.join(offered)}"))
    return made


def _default(section: str) -> Any:
    return Field(default_factory=lambda: chosen(section, {}))


@settings()
class Data:
    """How the rows of a source are accepted.

    Attributes:
        max_rejected_rate: the largest share of broken rows (0..1) that is counted and passed over; more is an error.
        training_rate: share (0..1) of the training interactions that is kept, drawn with the run's seed; what is held
            out stays as it is. For learning curves.
    """

    max_rejected_rate: float = Field(default=0.01, ge=0, le=1)
    training_rate: float = Field(default=1.0, gt=0, le=1)


@settings()
class QuerySide:
    """The query side of the model.

    Attributes:
        entity: who asks: a `user`, an `item` (item-to-item), or free `features` of each interaction.
        features: the query tower's inputs by name, at least one; for entity `item` none means the item side's.
    """

    entity: Literal["user", "item", "features"] = "user"
    features: dict[str, Any] = Field(default_factory=dict)


@settings()
class ItemSide:
    """The item side of the model.

    Attributes:
        features: the item tower's inputs by name.
        metadata: columns of the items that travel in the release for display; empty means all.
        filters: columns of strings, lists of strings, numbers, truth values or times that requests may filter by;
            empty means those of `metadata` that hold such values.
        augmentations: choices from `recsys.augmentations`, applied in training to the items of the main task.
    """

    features: dict[str, Any]
    metadata: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    augmentations: tuple[Any, ...] = ()

    @field_validator("features")
    @classmethod
    def _some(cls, features: dict[str, Any]) -> dict[str, Any]:
        if not features:
            raise ValueError("at least one feature")
        return features


@settings()
class Schedule:
    """A setting, such as the learning rate, over the steps of a run.

    Attributes:
        kind: `constant`, or `cosine` decay to `final_rate` times the setting at the last step.
        warmup_steps: steps of linear growth from 0 before that.
        final_rate: share (0..1) of the setting that a cosine ends with.
    """

    kind: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_rate: float = Field(default=0.0, ge=0, le=1)


@settings()
class SelfSupervision:
    """The second task, on the items themselves: two views of one item must lie close together.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 3.3.

    Attributes:
        objective: a choice from `recsys.objectives` that reads views; its `weight` is the paper's alpha.
        augmentations: choices from `recsys.augmentations`, applied in order; none makes both views the plain item.
        rows: where a batch's items come from: drawn uniformly from the `catalogue`, each once at most, or those of the
            `training_batch`, which are drawn by popularity.
        side: the towers that get the task; on the query side the rows are query entities.
        batch_size: items in one step, at least 2; 0 means `training.batch_size`. A smaller catalogue is taken whole.
        schedule: the weight over the run, as a share of `objective.weight`.
    """

    objective: Any = _default("self_supervision.objective")
    augmentations: tuple[Any, ...] = ()
    rows: Literal["catalogue", "training_batch"] = "catalogue"
    side: Literal["item", "query", "both"] = "item"
    batch_size: int = Field(default=0, ge=0)
    schedule: Schedule = Field(default_factory=Schedule)

    @field_validator("batch_size")
    @classmethod
    def _something_to_tell_apart(cls, batch_size: int) -> int:
        if batch_size == 1:
            raise ValueError("0, or at least 2: one item alone has nothing to be told from")
        return batch_size

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that get the task."""
        return ("item", "query") if self.side == "both" else (self.side,)


@settings()
class Reformulation:
    """How a reformulator learns from the first results of many queries; `recsys reformulate train` reads it.

    In a step each query is revised several times, each time with another number of items of feedback.

    Attributes:
        reformulator: a choice from `recsys.reformulators` that is learned.
        objective: a choice from `recsys.objectives` that reads revisions.
        feedback_k: the largest number of items, K; the pool of numbers is 0..K.
        revisions: distinct numbers of items that a query is revised with in one step; 1 leaves nothing to compare.
        nested: fewer items are the first of the more; otherwise each revision draws its own.
        order: `shuffled` draws a random part of the first K results in random order, as in the paper; `ranked` takes
            the first ones, as at serving time.
        answers: what becomes of relevant items among the feedback: `keep` them, `drop` them, or `mask` them, which
            keeps them as feedback but no longer asks for them.
        explicit_rate: share (0..1) of a step's queries with two relevant items or more whose feedback is some of these,
            as liked, and some wrong first results, as disliked, instead of pseudo feedback. What is liked is no longer
            asked for.
        noise_rate: share (0..1) of the pseudo feedback that random items take the place of.
        steps: of the training. Left out: one for every two queries, at least 100 and at most 600.
        batch_size: queries in one step; fewer where there are fewer.
        learning_rate: of Adam, with cosine decay to 0.
        exact_items: the largest catalogue that every revision is compared with; above, with all relevant items and
            first results of the batch and a uniform sample.
        sampled_items: size of that sample.
        folds: parts of the queries. Each is judged by a training on the others; together they choose the number of
            steps and how far queries move, and decide whether the gain is significant. What is released is trained on
            all queries.
        validation_metric: what is chosen by, in ir-measures spelling: its mean over depths 1, 3, 5, 10 and K, as far
            as they are not above K.
    """

    removed: ClassVar[Mapping[str, str]] = {
        "epochs": "Set reformulation.steps, or leave it out: the number of queries decides.",
        "patience": "Leave it out: reformulation.folds choose the number of steps.",
        "validation_rate": "Set reformulation.folds: every query judges, in one of them.",
        "only_sure": "Leave it out: significance decides the release's default reformulator.",
    }
    """What stands in for settings of earlier versions, by name."""

    reformulator: Any = _default("reformulation.reformulator")
    objective: Any = _default("reformulation.objective")
    feedback_k: int = Field(default=10, ge=1)
    revisions: int = Field(default=1, ge=1)
    nested: bool = True
    order: Literal["shuffled", "ranked"] = "shuffled"
    answers: Literal["keep", "drop", "mask"] = "keep"
    explicit_rate: float = Field(default=0.25, ge=0, le=1)
    noise_rate: float = Field(default=0.0, ge=0, le=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=0.0007, gt=0)
    exact_items: int = Field(default=20_000, ge=1)
    sampled_items: int = Field(default=4_096, ge=1)
    folds: int = Field(default=5, ge=2)
    validation_metric: str = "nDCG@10"

    def steps_of(self, queries: int) -> int:
        """Return the number of steps of a training on so many queries."""
        return min(max(queries // 2, MIN_FEEDBACK_STEPS), MAX_FEEDBACK_STEPS) if self.steps is None else self.steps

    @model_validator(mode="after")
    def _enough_counts(self) -> Reformulation:
        if self.revisions > self.feedback_k + 1:
            raise ValueError(f"at most feedback_k + 1 = {self.feedback_k + 1} revisions, one for each number of items")
        return self


@settings()
class Training:
    """The loop.

    Attributes:
        epochs: passes over the training interactions, or over the query entities where the objective reads sets. Left
            out: 10, and more where these are fewer than 1,000 steps.
        batch_size: interactions in one step, or query entities where the objective reads sets. Left out: 1,024
            interactions or 256 query entities.
        optimizer: the Keras optimizer's name.
        learning_rate: step size of the optimizer, > 0; `adagrad` wants some .1.
        schedule: the learning rate over the run.
        clip_norm: upper bound of the gradients' global L2 norm, before rows of an embedding table that repeat in a
            batch are summed; 0 turns clipping off.
        deterministic: same losses from the same seed, at some cost in speed.
        mixed_precision: `bfloat16` computes the towers' hidden layers in bfloat16; weights stay float32.
        share_tables: the query tower reads the item tower's embedding tables where a feature stands on both sides.
        checkpoint_every_s: seconds between checkpoints; one is also written at each validation and on interruption.
        validate_every_epochs: epochs between validations. Left out: as many as make 20 validations at most.
        patience: validations without a better metric before the run stops early; 0 turns this off.
        validation_metric: what early stopping and the choice of settings watch, in ir-measures spelling. For a closed
            form, of new items where rankings hold what an entity has met: its own items are a list of their own.
        validation_cases: cases drawn for it, at most.
        refit: `validation` fits the model anew on training and validation rows once validation has chosen, as
            baselines are fitted, for the same share of the steps; this doubles the time of training. `none` keeps
            the model that was fitted on training rows.
    """

    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=2)
    optimizer: Literal["adagrad", "adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Between(0.0003, 0.03, log=True, in_steps=True)] = Field(default=0.001, gt=0)
    schedule: Schedule = Field(default_factory=lambda: Schedule(kind="cosine"))
    clip_norm: float = Field(default=0.0, ge=0)
    deterministic: bool = False
    mixed_precision: Literal["none", "bfloat16"] = "none"
    share_tables: bool = True
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    validate_every_epochs: int | None = Field(default=None, ge=1)
    patience: int = Field(default=5, ge=0)
    validation_metric: str = "nDCG@10"
    validation_cases: int = Field(default=2000, ge=1)
    refit: Literal["validation", "none"] = "validation"

    def epochs_of(self, steps_per_epoch: int) -> int:
        """Return the number of epochs, given the steps of one epoch."""
        return max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch)) if self.epochs is None else self.epochs

    def epochs_between_looks(self, steps_per_epoch: int) -> int:
        """Return the number of epochs between two validations, given the steps of one epoch."""
        if self.validate_every_epochs is not None:
            return self.validate_every_epochs
        return math.ceil(self.epochs_of(steps_per_epoch) / LOOKS)


@settings()
class Publication:
    """What is published.

    Attributes:
        refit: `all` publishes a model fitted anew on all rows, those of validation and test too; the report stays
            that of the model before. `none` publishes the model that the report judges.
    """

    refit: Literal["none", "all"] = "none"


@settings()
class Evaluation:
    """What is measured on the test cases, over the full catalogue.

    Attributes:
        metrics: names in ir-measures spelling.
        exclude_seen: take items that the query entity met before the cut out of every ranking. Left out: the data
            decide, `false` where entities come back to what they have met, as in groceries, and `true` where not.
        max_cases: test cases, drawn with the run's seed when there are more; 0 means all.
        baselines: choices from `recsys.baselines` that are measured in the same table, each kind once; the kind alone
            stands for its default settings. Those that the data are too large for are left out, and the report says so.
        baseline_search_s: seconds that the choice of one baseline's settings on validation cases may take; what is
            left of the settings to try then is left out, and the run reports it. A guard for large data: on small ones
            all settings are tried.
        confidence: level of the bootstrap intervals, 0..1.
        resamples: bootstrap resamples.
    """

    metrics: tuple[str, ...] = ("nDCG@10", "AP@10", "R@10", "R@50", "RR@10", "Success@10")
    exclude_seen: bool | None = None
    max_cases: int = Field(default=0, ge=0)
    baselines: tuple[Any, ...] = Field(default_factory=lambda: _baselines(DEFAULT_BASELINES))
    baseline_search_s: float = Field(default=120.0, ge=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)


@settings()
class AblationPlan:
    """What `recsys ablate` compares: rows (the paper's and your own), cases and effort.

    Attributes:
        subjects: rows to compare, by name; none means the paper's and all variants. The baseline is always among them.
        variants: rows of your own, by name: tables with `like`, the row that they start from, `settings`, values by
            path, and `search`, the values to try by path; without it they search what that row searches.
        training_rates: shares (0..1) of the training interactions that are kept, one comparison each.
        logq: corrections of the main task, as in `objective.logq`, one comparison each; not read where the objective
            has no such setting.
        seeds: of the trainings of each row; split and test cases have the run's own seed.
        metrics: columns, in ir-measures spelling.
        tuning_metric: what settings are chosen by, on validation cases.
        tuning_seed: of the trainings while tuning, and of the draw of combinations.
        baseline_search: values to try for the baseline, by path such as `training.learning_rate`.
        baseline_trials: combinations of them that are tried, at most.
        trials: combinations of a row's own settings that are tried, at most; the same for every row.
        resamples: bootstrap resamples of the intervals.
    """

    subjects: tuple[str, ...] = ()
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)
    logq: tuple[Literal["counts", "streaming", "none"], ...] = ("counts",)
    seeds: tuple[Seed, ...] = (1, 2, 3, 4, 5)
    metrics: tuple[str, ...] = ("AP@10", "AP@50", "R@10", "R@50")
    tuning_metric: str = "R@50"
    tuning_seed: Seed = 0
    baseline_search: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    baseline_trials: int = Field(default=12, ge=1)
    trials: int = Field(default=8, ge=1)
    resamples: int = Field(default=1000, ge=100)

    @field_validator("training_rates", "logq", "seeds", "metrics")
    @classmethod
    def _some_and_distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError("at least one value, and none twice")
        return values


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
        objective: a choice from `recsys.objectives`, the main task. Left out: the closed form `dlae` where the features
            and the size of the data allow it, else `all_items`, or `softmax` where the order of a history counts; for
            free features `sampled_softmax`. `recsys data describe` says which.
        self_supervision: the second task; without the section there is none.
        training: the loop.
        evaluation: the judgement.
        release: what is published.
        index: a choice from `recsys.indexes`.
        ablation: what `recsys ablate` compares; nothing else reads it.
        reformulation: how `recsys reformulate train` trains; nothing else reads it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    source: Any
    item: ItemSide
    seed: Seed = 0
    data: Data = Field(default_factory=Data)
    query: QuerySide
    split: Any = _default("split")
    tower: Any = _default("tower")
    objective: Any = None
    self_supervision: SelfSupervision | None = None
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    release: Publication = Field(default_factory=Publication)
    index: Any = _default("index")
    ablation: AblationPlan = Field(default_factory=AblationPlan)
    reformulation: Reformulation = Field(default_factory=Reformulation)

    @property
    def batch_size(self) -> int:
        """Interactions in one step, or query entities where the objective reads sets."""
        return self.training.batch_size or BATCH_SIZES[self.objective.reads]

    @property
    def query_features(self) -> dict[str, Any]:
        """The query tower's features; an item-to-item run that names none uses the item side's."""
        if self.query.entity == "item" and not self.query.features:
            return self.item.features
        return self.query.features


STAGES = {
    "data": Data,
    "training": Training,
    "evaluation": Evaluation,
    "release": Publication,
    "ablation": AblationPlan,
}
"""The sections of a run file that are no choice, and the class of each."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read a run file.

    Args:
        path: a TOML file, or the name of one that comes with the package, such as `complete_journey`.
        overrides: `section.key=value` strings, later ones win; the value is TOML, a bare word counts as a string.

    Raises:
        SettingError: the file is missing, not TOML, or breaks a rule; the message names key, value and rule.
    """
    return from_tables(overridden(tables_of(path), overrides))


def load_spelt_out(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Read the run file of a release, and apply overrides as `overridden_spelt_out` does.

    Args:
        path: a file that `dumps` wrote.
        overrides: as in `load`.

    Raises:
        SettingError: as `load`.
    """
    return from_tables(overridden_spelt_out(tables_of(path), overrides))


def tables_of(path: str | Path) -> dict[str, Any]:
    """Return the tables of a run file, nothing checked but that it is TOML.

    Raises:
        SettingError: the file is missing or not TOML.
    """
    file = _find(Path(path))
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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


def overridden_spelt_out(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what `overridden` does of tables in which also what nobody chose is written, as `dumps` writes them.

    A table that becomes one of another kind starts from that kind's defaults: what is written are those of the old one.

    Raises:
        SettingError: a string of another form.
    """
    return overridden(_of_same_kinds(tables, overridden({}, overrides)), overrides)


def from_tables(tables: Mapping[str, Any]) -> Run:
    """Make a run from the tables of a run file.

    Raises:
        SettingError: an unknown key or a value that breaks a rule.
    """
    values = dict(tables)
    for section in CHOICES:
        if section in values:
            values[section] = chosen(section, values[section])
    for side, cls in (("query", QuerySide), ("item", ItemSide)):
        if isinstance(values.get(side), Mapping):
            section = dict(values[side])
            if "features" in section:
                section["features"] = _features(section["features"], side)
            if "augmentations" in section:
                section["augmentations"] = _augmentations(section["augmentations"], side)
            values[side] = registry.parse(cls, section, side)
    if isinstance(values.get("self_supervision"), Mapping):
        values["self_supervision"] = _self_supervision(values["self_supervision"])
    if "reformulation" in values:
        values["reformulation"] = _reformulation(values["reformulation"])
    if isinstance(values.get("evaluation"), Mapping) and "baselines" in values["evaluation"]:
        values["evaluation"] = {**values["evaluation"], "baselines": _baselines(values["evaluation"]["baselines"])}
    for section, cls in STAGES.items():
        if isinstance(values.get(section), Mapping):
            values[section] = registry.parse(cls, values[section], section)
    run = registry.parse(Run, values, "")
    _check_sides(run)
    run = _with_main_objective(run)
    _check_masks("item.augmentations", run.item.augmentations, run.item.features)
    if (second := run.self_supervision) is not None:
        for side in second.sides:
            features = run.item.features if side == "item" else run.query_features
            _check_masks(f"self_supervision.augmentations on the {side} side", second.augmentations, features)
    return run


def _features(tables: Any, side: str) -> dict[str, Any]:
    if not isinstance(tables, Mapping):
        raise SettingError(describe(f"{side}.features", tables, "one table for each feature"))
    section = f"{side}.features"
    return {name: chosen(f"{section}.<name>", table, f"{section}.{name}") for name, table in tables.items()}


def path_of(text: str) -> list[str]:
    """Return the keys of a path such as `item.features."x.y".width`; a key with a dot stands in quotes.

    Raises:
        SettingError: an empty key, or a quote that does not end.
    """
    if not PATH.fullmatch(text):
        raise SettingError(describe("path", text, "keys with dots between them, in quotes where they contain dots"))
    keys = [key.strip() for key in KEY.findall(text)]
    return [key[1:-1] if key[0] in "\"'" else key for key in keys]


def path_to(*keys: str) -> str:
    """Return the path through some keys, the inverse of `path_of`; a key that TOML needs in quotes stands in them."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in keys)


def put(tables: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path such as `item.augmentations.0.rate`; missing tables are made, entries of lists are not.

    Raises:
        SettingError: the path names no entry of a list, or goes on below a plain value.
    """
    *parents, last = path_of(path)
    place: Any = tables
    for part in parents:
        key = _key(place, part, path)
        place = place[key] if isinstance(place, list) else place.setdefault(key, {})
    place[_key(place, last, path)] = value


def dumps(run: Run) -> str:
    """Return the resolved run as TOML: every default written out; `load` of it gives an equal run."""
    return tomli_w.dumps(plain_tables(run))


def plain_tables(run: Run) -> dict[str, Any]:
    """Return the resolved run as plain tables, the inverse of `from_tables`."""
    tables = registry.plain(run)
    for section in CHOICES:
        if (made := getattr(run, section)) is not None:
            tables[section] = registry.table_of(made)
    for side in ("query", "item"):
        features = getattr(run, side).features
        tables[side]["features"] = {name: registry.table_of(feature) for name, feature in features.items()}
    tables["item"]["augmentations"] = [registry.table_of(stage) for stage in run.item.augmentations]
    if (second := run.self_supervision) is not None:
        tables["self_supervision"]["objective"] = registry.table_of(second.objective)
        tables["self_supervision"]["augmentations"] = [registry.table_of(stage) for stage in second.augmentations]
    tables["evaluation"]["baselines"] = [registry.table_of(each) for each in run.evaluation.baselines]
    for name in ("reformulator", "objective"):
        tables["reformulation"][name] = registry.table_of(getattr(run.reformulation, name))
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
    matched = OVERRIDE.fullmatch(override)
    if matched is None:
        raise SettingError(describe("--set", override, "section.key=value"))
    path, text = path_of(matched[1]), matched[2]
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


def _of_same_kinds(written: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables without those for which another kind is chosen."""
    kept = {}
    for name, value in written.items():
        choice = chosen.get(name)
        if isinstance(value, Mapping) and isinstance(choice, Mapping):
            if choice.get("kind", value.get("kind")) != value.get("kind"):
                continue
            value = _of_same_kinds(value, choice)
        kept[name] = value
    return kept


def _self_supervision(table: Mapping[str, Any]) -> SelfSupervision:
    where, section = "self_supervision", dict(table)
    if "objective" in section:
        section["objective"] = chosen(f"{where}.objective", section["objective"])
    section["augmentations"] = _augmentations(section.get("augmentations", ()), where)
    second = registry.parse(SelfSupervision, section, where)
    if second.rows == "training_batch" and second.side != "item":
        rule = f"'catalogue' where side is {second.side!r}"
        advice = "A training batch may hold a query entity more than once, each time with another history."
        raise SettingError(describe(f"{where}.rows", second.rows, rule, advice))
    return second


def _reformulation(table: Any) -> Reformulation:
    where = "reformulation"
    if not isinstance(table, Mapping):
        raise SettingError(describe(where, table, "a table"))
    section = dict(table)
    for name in ("reformulator", "objective"):
        if name in section:
            section[name] = chosen(f"{where}.{name}", section[name])
    return registry.parse(Reformulation, section, where)


def _augmentations(tables: Any, where: str) -> tuple[Any, ...]:
    where = f"{where}.augmentations"
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        raise SettingError(describe(where, tables, "a list of tables, each with a 'kind'"))
    stages = tuple(chosen(where, table, f"{where}.{place}") for place, table in enumerate(tables))
    masking = [registry.kind_of(stage) for stage in stages if stage.masks]
    if len(masking) > 1:
        raise SettingError(describe(where, masking, "at most one that masks features", "Two could hide everything."))
    return stages


def _baselines(tables: Any) -> tuple[Any, ...]:
    where = "evaluation.baselines"
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        raise SettingError(describe(where, tables, "a list of kinds, or of tables with a 'kind'"))
    spelled = [{"kind": table} if isinstance(table, str) else table for table in tables]
    baselines = tuple(chosen(where, table, f"{where}.{place}") for place, table in enumerate(spelled))
    kinds = [registry.kind_of(baseline) for baseline in baselines]
    if len(set(kinds)) < len(kinds):
        raise SettingError(describe(where, kinds, "each kind once", "A setting takes a list of values to try."))
    return baselines


def with_default_objective(run: Run, *, in_steps: bool = False) -> Run:
    """Return the run, with the first default objective that its sections allow where it names none.

    Args:
        run: the run.
        in_steps: pass over closed forms.

    Raises:
        SettingError: the run allows none of them; the message says why not the last one.
    """
    if run.objective is not None:
        return run
    orders = any(getattr(each, "reads_order", False) for each in run.query_features.values())
    defaults = [{"kind": kind} for kind in DEFAULT_OBJECTIVES]
    *others, last = [ORDER_OBJECTIVE, defaults[-1]] if orders else defaults
    for table in others:
        objective = chosen("objective", table)
        if in_steps and objective.reads == "matrix":
            continue
        try:
            return _with_main_objective(replace(run, objective=objective))
        except SettingError:
            continue
    return _with_main_objective(replace(run, objective=chosen("objective", last)))


def _with_main_objective(run: Run) -> Run:
    """Return the run with an objective, unless the data must choose between a closed form and training in steps.

    Raises:
        SettingError: features, tower or query side do not fit the objective.
    """
    if run.objective is None:
        by_default = with_default_objective(run)
        return run if by_default.objective.reads == "matrix" else by_default
    _check_main_objective(run)
    if run.objective.reads != "matrix" and run.tower.dim == "auto":
        return replace(run, tower=replace(run.tower, dim=DEFAULT_DIM))
    return run


def _check_main_objective(run: Run) -> None:
    """Refuse a main objective that the features, the tower or the query side do not fit."""
    reads, kind = run.objective.reads, registry.kind_of(run.objective)
    if reads == "pairs":
        return
    if run.query.entity == "features":
        rule = f"'user' or 'item' where the objective is {kind!r}"
        raise SettingError(describe("query.entity", run.query.entity, rule, "It reads all that an entity has met."))
    if run.self_supervision is not None and run.self_supervision.rows == "training_batch":
        advice = f"The objective {kind!r} reads the whole catalog in each step."
        raise SettingError(describe("self_supervision.rows", "training_batch", "'catalogue'", advice))
    if reads == "matrix":
        if run.item.augmentations:
            advice = f"The objective {kind!r} is solved, without training steps that could augment items."
            raise SettingError(describe("item.augmentations", verbatim("augmentations"), "none", advice))
        _check_solvable(run, kind)
    else:
        _check_histories(run, kind)
        if run.objective.start:
            _check_start(run, kind)


def _check_start(run: Run, kind: str) -> None:
    """Refuse a start from a solution that the towers cannot hold, or whose lengths the objective does not read."""
    if run.objective.unit_length:
        advice = f"The objective {kind!r} compares unit-length vectors, and those of a closed form have lengths."
        raise SettingError(describe("objective.start", run.objective.start, "''", advice))
    _check_solvable(run, run.objective.start)


def _check_histories(run: Run, kind: str) -> None:
    """Refuse beside a transformer, which is trained at all positions, whatever knows the whole of a history."""
    histories = {name: each for name, each in run.query_features.items() if registry.kind_of(each) == "history"}
    bags = [name for name, each in histories.items() if not each.reads_order]
    if len(bags) == len(histories):
        return
    if hasattr(run.objective, "teachers"):
        advice = "Its teachers know bags, and no order. Use 'softmax'."
        rule = "another objective where a history pools by 'transformer'"
        raise SettingError(describe("objective.kind", kind, rule, advice))
    if bags:
        where = f"query.features.{bags[0]}.pooling"
        advice = f"The objective {kind!r} trains a transformer at each position, where a bag would hold later items."
        raise SettingError(describe(where, histories[bags[0]].pooling, "'transformer', as the other history", advice))


def _check_solvable(run: Run, kind: str) -> None:
    """Refuse whatever an objective without training steps cannot give a value."""
    advice = f"The objective {kind!r} is solved for sums of features; 'all_items' trains any towers."
    queries = {name: registry.kind_of(each) for name, each in run.query_features.items()}
    histories = [name for name, feature in queries.items() if feature == "history"]
    if len(histories) != 1:
        rule = "one history, and any features but ids beside it"
        raise SettingError(describe("query.features", sorted(queries), rule, advice))
    for name in (name for name, feature in queries.items() if feature == "id"):
        rule = "another kind: a query entity is what it has met"
        raise SettingError(describe(f"query.features.{name}.kind", "id", rule, advice))
    history = run.query_features[histories[0]]
    for setting, value, rule in (
        ("shared", history.shares_table, False),
        ("pooling", history.pooling, "sum"),
        ("length", history.length, 0),
    ):
        if value != rule:
            raise SettingError(describe(f"query.features.{histories[0]}.{setting}", value, repr(rule), advice))
    items = [registry.kind_of(each) for each in run.item.features.values()]
    if items.count("id") != 1:
        rule = "one id, and any features beside it"
        raise SettingError(describe("item.features", sorted(run.item.features), rule, advice))
    if registry.kind_of(run.tower) != "sum":
        raise SettingError(describe("tower.kind", registry.kind_of(run.tower), "'sum'", advice))
    if run.self_supervision is not None:
        raise SettingError(describe("self_supervision", verbatim("a second task"), "none", advice))


def _check_masks(where: str, stages: Sequence[Any], features: Mapping[str, Any]) -> None:
    """Refuse to mask where one of two complementary views would show nothing of the content."""
    content = [name for name, feature in features.items() if registry.kind_of(feature) != "id"]
    for stage in stages:
        if stage.masks and len(content) < 2:
            found = verbatim(f"{registry.kind_of(stage)} over {len(content)} features besides the id")
            advice = "Add features, or use 'value_dropout' or 'embedding_dropout'."
            raise SettingError(describe(where, found, "at least 2 to split between the views", advice))


def _check_sides(run: Run) -> None:
    if not run.query_features:
        advice = "Add a feature of kind 'history' (what the entity has met), or columns that describe the query entity."
        raise SettingError(describe("query.features", verbatim("none"), "at least one feature", advice))
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


def _key(place: Any, part: str, path: str) -> str | int:
    """Return what one part of a path is called in the table or list that it leads into."""
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        got = verbatim(f"{part!r} below the value {place!r}")
        raise SettingError(describe(path, got, "a setting's path", "Take away what stands behind the setting."))
    if not part.isdecimal() or int(part) >= len(place):
        entries = "the list is empty" if not place else f"a number from 0 to {len(place) - 1}"
        raise SettingError(describe(path, part, f"the place of an entry of the list: {entries}"))
    return int(part)
