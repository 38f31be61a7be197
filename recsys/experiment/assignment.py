"""Which arm a unit is in: a salted hash, the same on every machine and for one unit or a million."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recsys.experiment.plan import INTERLEAVED, Experiment, Plan
from recsys.types import Bool
from twintower.errors import SettingError, describe

OUTSIDE = ""
"""Stands for the arm of a unit that is in none."""

SEGMENT, TRAFFIC, ARM, HOLDOUT = b"segment", b"traffic", b"arm", b"holdout"
"""What a draw is for; draws for different purposes are independent."""


@dataclass(frozen=True)
class Assignment:
    """One experiment that a unit is in.

    Attributes:
        experiment: its name.
        arm: the arm's name, or `INTERLEAVED`: both of them in one list.
        unit_kind: `user` or `session`.
        overridden: whether the experiment file names the unit; such units are not analysed.
    """

    experiment: str
    arm: str
    unit_kind: str
    overridden: bool


def draw(salt: str, purpose: bytes, unit: str) -> float:
    """Return a unit's place on a line, a multiple of `2^-53` in [0, 1).

    `floor( BLAKE2b-64(unit; key = salt, person = purpose) / 2^11 ) / 2^53`, the digest read as little-endian

    A keyed hash, so that no salt and unit can run together to the bytes of another pair; BLAKE2b (RFC 7693), because it
    has key and purpose built in, is in every standard library that matters and takes less time than SHA-256. Python's
    `hash` differs between processes, and hashes of data frames between versions.

    Args:
        salt: at most 64 bytes.
        purpose: at most 16 bytes.
        unit: any text.
    """
    digest = hashlib.blake2b(unit.encode(), digest_size=8, key=salt.encode(), person=purpose).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def draws(salt: str, purpose: bytes, units: Iterable[str]) -> NDArray[np.float64]:
    """Return what `draw` gives for each unit, `[units]`, float64."""
    start = hashlib.blake2b(digest_size=8, key=salt.encode(), person=purpose)
    digests = bytearray()
    for unit in units:
        one = start.copy()
        one.update(unit.encode())
        digests += one.digest()
    return (np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53


class _Line:
    """What `draw` gives for one salt and purpose, in half the time."""

    def __init__(self, salt: str, purpose: bytes) -> None:
        self._start = hashlib.blake2b(digest_size=8, key=salt.encode(), person=purpose)

    def __call__(self, unit: bytes) -> float:
        one = self._start.copy()
        one.update(unit)
        return (int.from_bytes(one.digest(), "little") >> 11) * 2.0**-53


class Assigner:
    """Assigns arms after a plan; holds nothing else, so a new plan is a new assigner.

    Args:
        plan: the experiment file.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._chances = [_Chances(name, experiment) for name, experiment in plan.experiments.items()]
        self._holdout = _Line(plan.holdout.salt, HOLDOUT) if plan.holdout.rate > 0 else None

    def held_out(self, unit: str) -> bool:
        """Return whether no experiment may take a unit."""
        return self._holdout is not None and self._holdout(unit.encode()) < self.plan.holdout.rate

    def assign(self, units: Mapping[str, str], now: datetime) -> tuple[Assignment, ...]:
        """Return every experiment that a request is in, in the plan's order.

        A user who is held out is so in every session; where the user is unknown, the session decides.

        Args:
            units: the request's `user` and `session`, as far as known; an experiment whose unit is missing or empty
                does not take the request.
            now: with time zone.

        Raises:
            SettingError: a moment without time zone.
        """
        _check_zone(now)
        held_out = self.held_out(units.get("user") or units.get("session", ""))
        found = (
            chances.assignment(units[chances.kind], held_out, now)
            for chances in self._chances
            if units.get(chances.kind)
        )
        return tuple(assignment for assignment in found if assignment is not None)

    def arms_of(self, experiment: str, units: Sequence[str], now: datetime) -> NDArray[np.str_]:
        """Return what `assign` gives for each of many units, of sessions where their user is unknown.

        Args:
            experiment: its name.
            units: texts, of the experiment's kind.
            now: with time zone.

        Returns:
            `[units]`, names of arms, `OUTSIDE` where a unit is in none.

        Raises:
            SettingError: no experiment of that name, or a moment without time zone.
        """
        chosen = self.plan.experiment(experiment)
        _check_zone(now)
        bounds, arms = _cuts(chosen)
        labels = np.array([*arms, OUTSIDE])
        found = labels[np.searchsorted(bounds, draws(chosen.salt, ARM, units), side="right")]
        found[~self._takes(chosen, units, now)] = OUTSIDE
        if chosen.overrides:
            arm_of = chosen.overrides.get
            found = np.array([arm_of(unit, arm) for unit, arm in zip(units, found, strict=True)], labels.dtype)
        return found

    def _takes(self, experiment: Experiment, units: Sequence[str], now: datetime) -> Bool:
        if not experiment.runs_at(now):
            return np.zeros(len(units), bool)
        start, stop = experiment.segment
        places = draws(experiment.namespace, SEGMENT, units)
        taken = (places >= start) & (places < stop) & np.fromiter(map(bool, units), bool, len(units))
        taken &= draws(experiment.salt, TRAFFIC, units) < experiment.traffic_rate
        if self.plan.holdout.rate > 0:
            taken &= draws(self.plan.holdout.salt, HOLDOUT, units) >= self.plan.holdout.rate
        return taken


class _Chances:
    """Says whether one experiment takes a unit; what cannot decide anything is not drawn.

    Args:
        name: of the experiment.
        experiment: its settings.
    """

    def __init__(self, name: str, experiment: Experiment) -> None:
        self.kind = experiment.unit
        self._experiment = experiment
        self._segment = _Line(experiment.namespace, SEGMENT) if experiment.segment != (0.0, 1.0) else None
        self._traffic = _Line(experiment.salt, TRAFFIC) if experiment.traffic_rate < 1 else None
        self._arm = _Line(experiment.salt, ARM)
        self._bounds, arms = _cuts(experiment)
        self._taken = (*(Assignment(name, arm, self.kind, False) for arm in arms), None)
        self._overrides = {unit: Assignment(name, arm, self.kind, True) for unit, arm in experiment.overrides.items()}

    def assignment(self, unit: str, held_out: bool, now: datetime) -> Assignment | None:
        """Return the arm of a unit; None where the experiment does not take it."""
        if unit in self._overrides:
            return self._overrides[unit]
        experiment = self._experiment
        if held_out or not experiment.runs_at(now):
            return None
        encoded = unit.encode()
        if self._segment is not None:
            start, stop = experiment.segment
            if not start <= self._segment(encoded) < stop:
                return None
        if self._traffic is not None and self._traffic(encoded) >= experiment.traffic_rate:
            return None
        return self._taken[bisect_right(self._bounds, self._arm(encoded))]


def _cuts(experiment: Experiment) -> tuple[list[float], list[str]]:
    """Return the upper bounds of the arms' parts of the line, and the arms in the same order."""
    arms = sorted(experiment.arms)
    bounds = np.cumsum([experiment.arms[arm].share for arm in arms])
    # Shares that make 1 on paper must leave no unit out.
    bounds = np.where(np.abs(bounds - 1) < 1e-9, 1.0, bounds)
    if experiment.interleave:
        return [float(bounds[-1])], [INTERLEAVED]
    return bounds.tolist(), arms


def _check_zone(now: datetime) -> None:
    if now.tzinfo is None:
        raise SettingError(describe("now", now.isoformat(), "a moment with time zone"))
