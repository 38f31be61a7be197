"""Users whose preferences are known: what they click on, and what each arm of an experiment would truly have earned.

Every visit has draws of its own that do not depend on what is shown. So one visit can be made under each arm, and the
difference is what the arm did, without noise: potential outcomes, of which an experiment sees one for each unit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from recsys.experiment.log import LOGS, Log
from recsys.experiment.plan import Metric, Plan
from recsys.registry import settings
from recsys.sources.synthetic import Synthetic
from recsys.spelling import as_python
from twintower.errors import SettingError, describe
from twintower.types import Query

BEFORE, DURING = 0, 1
"""Phases of a simulation: no experiment runs yet, and all do."""
CLICK, PURCHASE = "click", "purchase"
LATE_S, EARLY_S = 3600.0, -60.0
"""From a list to an event that comes too late, or by a wrong clock before it: both fall out of a stretched log."""
PURCHASE_VALUE = 10.0
"""Mean value of a purchase, unitless."""
ACTIVITY_SHAPE = 2.0
"""Of the gamma distribution of the users' visits: the standard deviation of their activity is .71 of its mean."""


@settings()
class Habits:
    """How simulated users look at lists.

    At each visit a user wishes for some items, drawn from the user's true preferences. An item at place r (0 = first)
    is clicked where it is among them and looked at:
    `p(click) = (1 - (1 - p(item | user))^wishes) * eagerness(user) * (r + 1)^-impatience`, `eagerness ~ Beta(4, 2)`

    Attributes:
        k: places of a list.
        pages: lists of one visit at most; a user asks for another one as long as the last one was worth a click.
        visits: mean number of a user's visits; users differ, as a gamma distribution does, and each comes as often in
            either phase, but for rounding at random.
        wishes: items that a user wishes for at a visit, drawn with replacement.
        impatience: how quickly places farther down are passed over; 0 looks at all alike.
        purchase_rate: share (0..1) of clicks that a purchase follows.
        stranger_rate: share (0..1) of users that the release does not know: it is told their features alone.
        bot_rate: share (0..1) of users that click on everything and buy nothing, whatever the arm.
        duplicate_rate: share (0..1) of events that are sent twice.
        late_rate: share (0..1) of events that come too late to count; they do not count in the truth either.
        early_rate: share (0..1) of events by a clock that is behind; likewise.
        seed: everything follows from it.
    """

    k: int = Field(default=10, ge=1)
    pages: int = Field(default=3, ge=1)
    visits: float = Field(default=3.0, gt=0)
    wishes: int = Field(default=20, ge=1)
    impatience: float = Field(default=0.5, ge=0)
    purchase_rate: float = Field(default=0.2, ge=0, le=1)
    stranger_rate: float = Field(default=0.0, ge=0, le=1)
    bot_rate: float = Field(default=0.0, ge=0, le=1)
    duplicate_rate: float = Field(default=0.0, ge=0, le=1)
    late_rate: float = Field(default=0.0, ge=0, le=1)
    early_rate: float = Field(default=0.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _one_trouble_at_most(self) -> Habits:
        if self.duplicate_rate + self.late_rate + self.early_rate > 1:
            raise ValueError("duplicate_rate, late_rate and early_rate of at most 1 together")
        return self


class Visit(NamedTuple):
    """One visit of one user.

    Attributes:
        user: row of the user in the source.
        phase: `BEFORE` or `DURING`.
        number: which of the user's visits in that phase, from 0.
    """

    user: int
    phase: int
    number: int

    @property
    def user_id(self) -> str:
        """The user's id in the source."""
        return f"u{self.user}"

    @property
    def session_id(self) -> str:
        """A session of its own."""
        return f"u{self.user}-{self.phase}-{self.number}"

    @property
    def units(self) -> dict[str, str]:
        """Whom experiments may assign, by kind."""
        return {"user": self.user_id, "session": self.session_id}


class Happening(NamedTuple):
    """Something that a user does to an item of a list.

    Attributes:
        kind: `click` or `purchase`.
        place: of the item, 0 = first.
        value: of a purchase, else None.
        sent_count: how often the client tells of it, 1 or 2.
        delay_s: from the list to when it is said to have happened; what is not 0 does not count.
    """

    kind: str
    place: int
    value: float | None
    sent_count: int
    delay_s: float


class People:
    """Users of a synthetic source.

    Args:
        source: gives their preferences.
        habits: how they look at lists.
        count: of users: the first ones of the source.
        columns: features that strangers tell.

    Raises:
        SettingError: more users than the source has, or none.
    """

    def __init__(self, source: Synthetic, habits: Habits, count: int, columns: Sequence[str] = ()) -> None:
        if not 1 <= count <= source.users:
            raise SettingError(describe("users", count, f"1 to {source.users}, those of the source"))
        self.habits, self.count = habits, count
        world = source.world()
        shares = np.cumsum(np.exp(world.log_probabilities), axis=1)
        self._groups = world.group_of_user
        self._shares = shares / shares[:, -1:]
        random = np.random.default_rng([habits.seed, 0])
        self._activity = random.gamma(ACTIVITY_SHAPE, habits.visits / ACTIVITY_SHAPE, count)
        self._eagerness = random.beta(4, 2, count)
        self._is_bot = random.random(count) < habits.bot_rate
        self._is_stranger = random.random(count) < habits.stranger_rate
        self._features = as_python(source.read().queries.select(list(columns)).slice(0, count))
        self._trouble = np.cumsum([habits.duplicate_rate, habits.late_rate, habits.early_rate]).tolist()

    def visits(self, phase: int) -> list[Visit]:
        """Return all visits of a phase in the order in which they happen."""
        random = np.random.default_rng([self.habits.seed, 1, phase])
        counts = np.floor(self._activity + random.random(self.count)).astype(int)
        times = random.random(counts.sum())
        visits = [Visit(user, phase, number) for user, count in enumerate(counts) for number in range(count)]
        return [visits[place] for place in np.argsort(times)]

    def query(self, visit: Visit) -> Query:
        """Return what is asked for a user."""
        if self._is_stranger[visit.user]:
            return Query(features=self._features[visit.user])
        return Query(entity_id=visit.user_id)

    def happenings(self, visit: Visit, page: int, item_ids: Sequence[str]) -> list[Happening]:
        """Return what the user does on one list of a visit.

        Args:
            visit: whose draws decide.
            page: 0..pages-1.
            item_ids: what is shown, best first, at most `k`.
        """
        habits, count = self.habits, len(item_ids)
        random = np.random.default_rng([habits.seed, 2, *visit])
        wishes = np.searchsorted(self._shares[self._groups[visit.user]], random.random(habits.wishes), side="right")
        looks, buys, values, troubles = random.random((4, habits.pages, habits.k))[:, page, :count]
        if self._is_bot[visit.user]:
            clicked, bought = np.ones(count, bool), np.zeros(count, bool)
        else:
            looked = looks < self._eagerness[visit.user] * (np.arange(count) + 1.0) ** -habits.impatience
            wished = set(wishes.tolist())
            clicked = looked & np.fromiter((int(item_id[1:]) in wished for item_id in item_ids), bool, count)
            bought = clicked & (buys < habits.purchase_rate)
        found = [self._happening(CLICK, place, None, troubles[place]) for place in np.flatnonzero(clicked).tolist()]
        for place in np.flatnonzero(bought).tolist():
            # The purchase has a draw of its own for trouble, made from the click's.
            trouble = (troubles[place] + 0.5) % 1
            found.append(self._happening(PURCHASE, place, -PURCHASE_VALUE * math.log1p(-values[place]), trouble))
        return found

    def _happening(self, kind: str, place: int, value: float | None, trouble: float) -> Happening:
        twice, late, early = self._trouble
        delay_s = 0.0 if trouble < twice or trouble >= early else LATE_S if trouble < late else EARLY_S
        return Happening(kind, place, value, 2 if trouble < twice else 1, delay_s)


Cell = tuple[tuple[str, str], ...]
"""Experiments with the arm in each, sorted: how a request can be answered."""


def cell_of(arms: Mapping[str, str]) -> Cell:
    """Return the cell of arms by experiment."""
    return tuple(sorted(arms.items()))


def unit_of(cell: Cell) -> str:
    """Return a unit that overrides put into a cell; short, whatever experiments are called."""
    return f"cell-{hashlib.blake2b(repr(cell).encode(), digest_size=8).hexdigest()}"


def alternatives(arms: Mapping[str, str], plan: Plan) -> dict[Cell, list[tuple[str, str]]]:
    """Return every cell in which one experiment gives a unit another arm and all others the same.

    Args:
        arms: the unit's own.
        plan: the experiments.

    Returns:
        For each cell the experiments and arms that an outcome in it tells of; the unit's own cell tells of all.
    """
    found: dict[Cell, list[tuple[str, str]]] = {}
    for experiment in arms:
        for arm in plan.experiments[experiment].arms:
            found.setdefault(cell_of({**arms, experiment: arm}), []).append((experiment, arm))
    return found


def answering(tables: Mapping[str, Any], cells: Iterable[Cell]) -> dict[str, Any]:
    """Return an experiment file that takes nobody but one unit for each cell, by overrides.

    Args:
        tables: of the experiment file.
        cells: that are wanted.
    """
    changed = timeless(tables)
    changed.pop("holdout", None)
    for name, table in changed["experiments"].items():
        table["traffic_rate"] = 0.0
        table["overrides"] = {unit_of(cell): dict(cell)[name] for cell in cells if name in dict(cell)}
    return changed


def timeless(tables: Mapping[str, Any], start: datetime | None = None) -> dict[str, Any]:
    """Return an experiment file whose experiments have no end and no overrides, and start at the given moment."""
    experiments = {
        name: {key: value for key, value in table.items() if key not in ("start", "end", "overrides")}
        | ({} if start is None else {"start": start})
        for name, table in tables.get("experiments", {}).items()
    }
    return {**tables, "experiments": experiments}


@dataclass(frozen=True)
class Truth:
    """What an arm truly did to one metric of the users who were there.

    Attributes:
        experiment: its name.
        arm: compared with the control.
        metric: its name.
        units: all units of the experiment, each of which was answered by every arm.
        control: the metric, had the control answered all of them.
        value: the metric, had the arm.
    """

    experiment: str
    arm: str
    metric: str
    units: int
    control: float
    value: float

    @property
    def difference(self) -> float:
        """Value minus control: what a perfect experiment on these users would find."""
        return self.value - self.control

    def verdict(self, metric: Metric) -> str:
        """Return the decision that the truth asks for, by the words of `analysis.Decision`."""
        gain = self.difference if metric.better == "higher" else -self.difference
        return "ship" if gain > 0 else "do not ship" if gain < 0 else "undecided"


class Outcomes:
    """What every unit did under every arm.

    Args:
        plan: names arms and metrics.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sums: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}

    def add(self, experiment: str, arm: str, unit: str, pages: Sequence[Sequence[Happening]]) -> None:
        """Add one visit: what happened on each of its lists."""
        counted = [len(pages), *(_total(metric, pages) for metric in self._plan.metrics.values())]
        units = self._sums.setdefault((experiment, arm), {})
        units[unit] = units.get(unit, 0) + np.array(counted, float)

    def truths(self) -> list[Truth]:
        """Return the true effect of each arm on each metric."""
        return [
            Truth(name, arm, metric, len(self._sums[name, arm]), *(self._value(name, of, metric) for of in pair))
            for name, experiment in self._plan.experiments.items()
            for arm in experiment.arms
            for metric in self._plan.metrics
            if arm != experiment.control and (name, arm) in self._sums
            for pair in [(experiment.control, arm)]
        ]

    def _value(self, experiment: str, arm: str, metric: str) -> float:
        sums = np.array(list(self._sums[experiment, arm].values()))
        column = sums[:, 1 + list(self._plan.metrics).index(metric)]
        settings = self._plan.metrics[metric]
        if settings.count == "any":
            column = column > 0
        return float(column.sum() / (sums[:, 0].sum() if settings.per == "exposure" else len(sums)))


def _total(metric: Metric, pages: Sequence[Sequence[Happening]]) -> float:
    counted = [[one for one in page if one.kind == metric.event and not one.delay_s] for page in pages]
    if metric.count == "value":
        return sum(one.value or 0.0 for page in counted for one in page)
    if metric.count == "exposures":
        return sum(map(bool, counted))
    return sum(map(len, counted))


def stretch(log: Log, out: Path, origin: datetime, day: timedelta) -> None:
    """Write a log anew in which a short time has become a day, before and after a moment that stays.

    Args:
        log: of a simulation that took seconds.
        out: gets `exposures/` and `events/`, Parquet.
        origin: the moment, with time zone.
        day: what becomes a day.
    """
    since_us = (pl.col("timestamp") - pl.lit(origin)).dt.total_microseconds()
    moment = pl.lit(origin) + pl.duration(microseconds=since_us * (timedelta(days=1) / day))
    for name, rows in (("exposures", log.exposures), ("events", log.events)):
        (out / name).mkdir(parents=True)
        table = rows.with_columns(timestamp=moment).collect().to_arrow().cast(LOGS[name])
        pq.write_table(table, out / name / "simulated.parquet", compression="zstd")
