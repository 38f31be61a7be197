"""The experiment file: TOML in, frozen dataclasses out; whatever could give one unit two answers is refused."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from recsys.registry import parse, settings
from twintower.errors import SettingError, describe, unknown, verbatim

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""What experiments, arms, layers, namespaces, salts and metrics may be called; it fits a BLAKE2b key."""
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
SETTING_PATH = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
TAKEN = frozenset({"unit", "arm", "group", "exposures", "shown"})
"""Columns of a table of units that no metric may be called."""
INTERLEAVED = "interleaved"
"""Stands for the arm of a unit that gets lists made of both arms; no arm is called so."""
SKEW_TOLERANCE_S = 300.0
"""Seconds that an event may precede its list: clients have clocks of their own, and a token is not known beforehand. As
much as servers record by default (`log.max_clock_skew_s`)."""
MIN_UNITS = 100
"""Units that each arm needs before a verdict where the experiment names no number: intervals are those of a normal
approximation, which a handful of units does not justify."""
SHARE_TOLERANCE = 1e-9
"""How far shares such as 0.1 + 0.2 + 0.7 may miss 1 in floating point."""


@settings()
class Slate:
    """How the lists of an arm are drawn instead of being shown best first, see `recsys.experiment.slates`.

    Only lists in the order of their inner products are drawn: not those of the most popular items, not those that MMR
    has ordered, none of more places than `candidates`, and none of more than 100, whose probability may fit no number.

    Attributes:
        policy: `plackett_luce` or `epsilon_swap`.
        parameter: its temperature, > 0, in units of scores, or its epsilon, 0..1.
        candidates: best items that a list is drawn from.
    """

    policy: Literal["plackett_luce", "epsilon_swap"]
    parameter: float
    candidates: int = Field(default=50, ge=2, le=200)

    @model_validator(mode="after")
    def _parameter_fits(self) -> Slate:
        if self.policy == "plackett_luce" and self.parameter <= 0:
            raise ValueError("parameter > 0 (the temperature)")
        if self.policy == "epsilon_swap" and not 0 <= self.parameter <= 1:
            raise ValueError("parameter of 0 to 1 (the epsilon)")
        return self


@settings()
class Arm:
    """What units of one arm are served with; what it does not name stays as it is outside of experiments.

    Attributes:
        share: of the experiment's units, 0..1.
        release: a release or a label; empty leaves the server's.
        reformulator: a reformulator of that release by name; empty leaves the request's or the release's.
        settings: index and planner settings by path, such as `"index.leaves_to_search" = 40`: numbers, words, booleans.
        slate: how its lists are drawn; none shows them best first.
    """

    share: float = Field(gt=0, le=1)
    release: str = ""
    reformulator: str = ""
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    slate: Slate | None = None

    @field_validator("settings")
    @classmethod
    def _plain_paths(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for path, value in settings.items():
            if not SETTING_PATH.fullmatch(path):
                raise ValueError(f"paths of lower-case words joined by dots, not {path!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"finite numbers, not {path} = {value}")
        return settings

    @property
    def decides(self) -> frozenset[str]:
        """What the arm sets: `release`, `reformulator`, `slate` and paths of settings."""
        named = {name for name in ("release", "reformulator", "slate") if getattr(self, name)}
        return frozenset(named | set(self.settings))


@settings()
class Experiment:
    """One experiment: whom it may take, how many it takes now, and what its arms are.

    A unit is in where its place on the namespace's line lies in `segment`, its traffic draw is below `traffic_rate`
    and its arm draw falls to an arm: three independent draws. Raising `traffic_rate` lets units in and moves none, so
    ramp with it and leave the shares alone.

    Attributes:
        layer: what kind of question it is: one unit is in at most one experiment of a layer at a time.
        namespace: whose line it takes units from; experiments of one namespace never share a unit, those of different
            namespaces overlap at random. Default: the layer's name.
        unit: who is assigned: `user` or `session`.
        segment: part `[from, to)` of the namespace's line that it may ever take, 0..1.
        traffic_rate: share (0..1) of the segment's units that are in now: the ramp.
        salt: of the traffic and arm draws; default: the experiment's name. Another salt reshuffles.
        start: first moment, with time zone; none means always.
        end: first moment after, with time zone; none means never.
        arms: by name. Draws are cut in the order of the names, so that moving a table moves no unit.
        control: the arm that the others are compared with.
        planned_units: units at which it is to be decided, settled before the first look: always-valid intervals are
            tightest there. Without it they follow each day's number, which is looking first, and by the hundredth look
            they cover less than they say.
        min_units: units that the control and an arm each need before a verdict on the arm, >= 2; of an interleaved
            experiment, units that saw its lists. Below it the decision is `undecided`, whatever the metrics say.
        interleave: nobody gets an arm; all whom the shares take together get lists that two arms draft in turns.
        overrides: arm by unit, for testing: wins over the hold-out, segment, ramp and times, is logged as such and left
            out of every analysis.
    """

    layer: Name = "default"
    namespace: Name
    unit: Literal["user", "session"] = "user"
    segment: tuple[float, float] = (0.0, 1.0)
    traffic_rate: float = Field(default=1.0, ge=0, le=1)
    salt: Name
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    arms: dict[str, Arm]
    control: str = "control"
    planned_units: int | None = Field(default=None, ge=1)
    min_units: int = Field(default=MIN_UNITS, ge=2)
    interleave: bool = False
    overrides: dict[str, str] = Field(default_factory=dict)

    @field_validator("segment")
    @classmethod
    def _a_part_of_the_line(cls, segment: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= segment[0] < segment[1] <= 1:
            raise ValueError("[from, to] with 0 <= from < to <= 1")
        return segment

    @field_validator("arms")
    @classmethod
    def _enough_and_not_too_much(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if len(arms) < 2:
            raise ValueError("at least two arms")
        if INTERLEAVED in arms:
            raise ValueError(f"arms of any other name than {INTERLEAVED}")
        total = sum(arm.share for arm in arms.values())
        if total > 1 + SHARE_TOLERANCE:
            told = ", ".join(f"{name} {arm.share:.4g}" for name, arm in arms.items())
            raise ValueError(f"shares of at most 100 % together, not {100 * total:.4g} % ({told})")
        return arms

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"an end after the start {self.start.isoformat()}")
        if self.interleave and (len(self.arms) != 2 or any(arm.slate for arm in self.arms.values())):
            raise ValueError("two arms without a slate where interleave = true")
        return self

    @property
    def decides(self) -> frozenset[str]:
        """What any of its arms sets; interleaving makes the slate."""
        return frozenset({"slate"} if self.interleave else ()).union(*(arm.decides for arm in self.arms.values()))

    @property
    def assigned(self) -> tuple[str, ...]:
        """The names that a unit's arm may have."""
        return (INTERLEAVED, *self.arms) if self.interleave else tuple(self.arms)

    def runs_at(self, now: datetime) -> bool:
        """Return whether the moment, with time zone, lies between start and end."""
        return (self.start is None or self.start <= now) and (self.end is None or now < self.end)

    def meets(self, other: Experiment) -> bool:
        """Return whether there is a moment at which both run."""
        starts = [moment for moment in (self.start, other.start) if moment is not None]
        ends = [moment for moment in (self.end, other.end) if moment is not None]
        return not starts or not ends or max(starts) < min(ends)


@settings()
class Holdout:
    """Units that no experiment takes, to see what all of them together did.

    Attributes:
        rate: share (0..1) of the users, and of the sessions whose user is unknown.
        salt: of the draw; another one holds out other units.
    """

    rate: float = Field(default=0.0, ge=0, lt=1)
    salt: Name = "holdout"


@settings()
class Metric:
    """A number of each unit that arms are compared by.

    Attributes:
        event: the kind of event that it reads, such as `click`.
        count: what is added up: `events`, their `value`s, `exposures` with at least one such event, or `any`: 1 where
            the unit has one, else 0.
        per: one `unit`, or one `exposure`: then the ratio of both sums, clustered by unit.
        role: a `primary` metric decides, a `guardrail` may stop, a `secondary` one explains.
        better: which way is good.
        margin_rate: how much worse a guardrail may get, as a share (0..1) of the control's value.
    """

    event: str = Field(min_length=1)
    count: Literal["events", "value", "exposures", "any"] = "events"
    per: Literal["unit", "exposure"] = "unit"
    role: Literal["primary", "secondary", "guardrail"] = "secondary"
    better: Literal["higher", "lower"] = "higher"
    margin_rate: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Metric:
        if self.count == "any" and self.per == "exposure":
            raise ValueError("count = 'exposures' where per = 'exposure'")
        return self


@settings()
class Plan:
    """All experiments of a service.

    Attributes:
        experiments: by name.
        holdout: who is kept out of all of them.
        metrics: what they are judged by, by name.
    """

    experiments: dict[str, Experiment] = Field(default_factory=dict)
    holdout: Holdout = Field(default_factory=Holdout)
    metrics: dict[str, Metric] = Field(default_factory=dict)

    def experiment(self, name: str) -> Experiment:
        """Return an experiment by name.

        Raises:
            SettingError: there is none of that name.
        """
        if name not in self.experiments:
            raise SettingError(unknown("experiment", name, self.experiments))
        return self.experiments[name]


def load(path: str | Path) -> Plan:
    """Read an experiment file.

    Raises:
        SettingError: the file is missing, empty, not TOML, or breaks a rule; the message names key, value and rule.
    """
    return from_content(content_of(path), path)


def content_of(path: str | Path) -> bytes:
    """Return what an experiment file holds, not looked at yet.

    Raises:
        SettingError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot read the experiment file ({error.strerror}).") from None


def from_content(content: bytes, path: str | Path) -> Plan:
    """Make a plan from what an experiment file holds.

    Args:
        content: from `content_of`.
        path: of the file, for the messages.

    Raises:
        SettingError: it is empty, not TOML, or breaks a rule.
    """
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"{path}: not TOML: {error}.") from None
    if not tables:
        # Not the end of all experiments: a file is empty, too, while it is being written, and where the disk is full.
        advice = "Write `experiments = {}` to run none."
        raise SettingError(describe(str(path), verbatim("nothing"), "tables of experiments and metrics", advice))
    return from_tables(tables)


def from_tables(tables: Mapping[str, Any]) -> Plan:
    """Make a plan from the tables of an experiment file.

    Raises:
        SettingError: an unknown key, a value that breaks a rule, or experiments that could give one unit two answers.
    """
    values = dict(tables)
    experiments = _named_tables(tables, "experiments")
    metrics = _named_tables(tables, "metrics")
    for name in metrics:
        if name in TAKEN or name.endswith("_before"):
            raise SettingError(describe("metrics", name, f"a name other than {', '.join(sorted(TAKEN))} and *_before"))
    values["experiments"] = {name: _experiment(name, table) for name, table in experiments.items()}
    values["metrics"] = {name: parse(Metric, table, f"metrics.{name}") for name, table in metrics.items()}
    if isinstance(values.get("holdout"), Mapping):
        values["holdout"] = parse(Holdout, values["holdout"], "holdout")
    plan = parse(Plan, values, "")
    for (name, one), (other_name, other) in itertools.combinations(plan.experiments.items(), 2):
        if one.meets(other):
            _check_pair(name, one, other_name, other)
    return plan


def _named_tables(tables: Mapping[str, Any], section: str, where: str = "") -> dict[str, Mapping[str, Any]]:
    named = tables.get(section, {})
    path = f"{where}{section}"
    if not isinstance(named, Mapping):
        raise SettingError(describe(path, named, "one table for each name"))
    for name, table in named.items():
        if not NAME.fullmatch(name):
            raise SettingError(describe(path, name, "1 to 64 letters, digits, '_', '-' and '.'"))
        if not isinstance(table, Mapping):
            raise SettingError(describe(f"{path}.{name}", table, "a table"))
    return dict(named)


def _experiment(name: str, table: Mapping[str, Any]) -> Experiment:
    where = f"experiments.{name}"
    values = {"salt": name, "namespace": table.get("layer", "default"), **table}
    arms = _named_tables(table, "arms", f"{where}.")
    values["arms"] = {arm: _arm(settings, f"{where}.arms.{arm}") for arm, settings in arms.items()}
    experiment = parse(Experiment, values, where)
    if experiment.control not in experiment.arms:
        raise SettingError(f"{where}.control: {unknown('arm', experiment.control, experiment.arms)}")
    for unit, arm in experiment.overrides.items():
        if arm not in experiment.assigned:
            raise SettingError(f"{where}.overrides.{unit}: {unknown('arm', arm, experiment.assigned)}")
    return experiment


def _arm(table: Mapping[str, Any], where: str) -> Arm:
    if not isinstance(table.get("slate"), Mapping):
        return parse(Arm, table, where)
    return parse(Arm, {**table, "slate": parse(Slate, table["slate"], f"{where}.slate")}, where)


def _check_pair(name: str, one: Experiment, other_name: str, other: Experiment) -> None:
    """Refuse two experiments that run at the same time and could give one unit two answers."""
    where = f"experiments.{other_name}"
    if one.namespace == other.namespace:
        if one.unit != other.unit:
            advice = "A namespace keeps units apart only where all its experiments assign the same kind."
            raise SettingError(describe(f"{where}.unit", other.unit, f"{one.unit!r} as in {name}", advice))
        if max(one.segment[0], other.segment[0]) < min(one.segment[1], other.segment[1]):
            total = sum(100 * (segment[1] - segment[0]) for segment in (one.segment, other.segment))
            got = f"{list(other.segment)}, which overlaps {list(one.segment)} of {name}"
            if total > 100:
                got += f": {total:.4g} % of namespace {one.namespace!r} together"
            advice = "Choose disjoint segments, other times, or another layer."
            raise SettingError(
                describe(f"{where}.segment", verbatim(got), "a part that no other experiment has", advice)
            )
    elif one.layer == other.layer:
        advice = f"Two experiments of layer {one.layer!r} must share a namespace, or a unit could be in both."
        raise SettingError(describe(f"{where}.namespace", other.namespace, f"{one.namespace!r} as in {name}", advice))
    elif both := sorted(one.decides & other.decides):
        advice = f"{name} sets it, too, and one unit can be in both: put them into one namespace."
        raise SettingError(describe(f"{where}.arms", verbatim(", ".join(both)), "what no other layer sets", advice))
