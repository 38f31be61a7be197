"""The releases that a server holds: which one answers under which label, and the one that answered before it."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from recsys.retrieval import Retriever
from serving.runtime.live_catalogue import LiveCatalogue
from twintower.errors import MissingError, ReleasePinError, RequestError, UnavailableError, describe, unknown

STABLE = "stable"
SHORTEST_PREFIX = 8
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, eq=False)
class Held:
    """A loaded release.

    Attributes:
        retriever: answers from it as it was written.
        live: its items as they were changed since; None where they cannot be.
        load_s: seconds that it took to check, load and warm.
        loaded: when it had been loaded, UTC.
    """

    retriever: Retriever
    live: LiveCatalogue | None = None
    load_s: float = 0.0
    loaded: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @property
    def is_behind(self) -> bool:
        """Whether `now` has changes of the catalogue to read first, which may take a while."""
        return self.live is not None and self.live.is_behind

    def now(self) -> Retriever:
        """Return what answers a call that begins now."""
        return self.retriever if self.live is None else self.live.retriever()

    @property
    def name(self) -> str:
        """Under which it was published."""
        return self.retriever.release.name

    @property
    def fingerprint(self) -> str:
        """64 hex digits over all its parts."""
        return self.retriever.release.fingerprint


@dataclass(frozen=True)
class Refused:
    """A release that was not loaded.

    Attributes:
        name: its name.
        label: that it should have had.
        reason: why, in words for operators.
        time: when, UTC.
    """

    name: str
    label: str
    reason: str
    time: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


@dataclass(frozen=True)
class Holding:
    """What is held at one moment; never changed, only replaced.

    Attributes:
        answering: the release that answers, by label.
        before: the one that answered before it and is kept to roll back to, by label.
        refused: the last that was refused since the one that answers was loaded, by label.
        rolled_back: labels that an operator took back.
        named: releases that arms of experiments name, by that name, whether they stand under a label or not.
    """

    answering: Mapping[str, Held] = field(default_factory=dict)
    before: Mapping[str, Held] = field(default_factory=dict)
    refused: Mapping[str, Refused] = field(default_factory=dict)
    rolled_back: frozenset[str] = frozenset()
    named: Mapping[str, Held] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Held]:
        """Give each release once: those with labels, `stable` first, those of arms, those kept to roll back to."""
        labels = sorted(self.answering, key=lambda label: (label != STABLE, label))
        every = [*(self.answering[label] for label in labels), *self.named.values(), *self.before.values()]
        return iter({held.fingerprint: held for held in every}.values())

    def of_arm(self, release: str) -> Held | None:
        """Return what answers an arm: the release under that label, or of that name; empty means `stable`."""
        return self.answering.get(release or STABLE) or self.named.get(release)

    def labels_of(self, fingerprint: str) -> tuple[str, ...]:
        """Return the labels under which a release answers, sorted."""
        return tuple(sorted(label for label, held in self.answering.items() if held.fingerprint == fingerprint))


class Releases:
    """Nothing while a server starts, then one release or several. Safe for calls from several threads.

    A change replaces `holding` as a whole, and a call takes one retriever and keeps it: a release that is replaced
    lives until the last call that took it has ended.
    """

    def __init__(self) -> None:
        self.holding = Holding()
        self._changing = threading.Lock()
        self._told: Callable[[Holding, Holding], None] = lambda before, after: None

    def tell(self, told: Callable[[Holding, Holding], None]) -> None:
        """Say who hears of every change, with what was held before and what is held now."""
        self._told = told

    def retriever(self, pin: str = "", label: str = "") -> Retriever:
        """Return what answers a call; one call asks once, so that all of its answer comes from one release.

        Arguments and errors as for `held`.
        """
        return self.held(pin, label).now()

    def are_behind(self, pin: str = "", label: str = "") -> bool:
        """Return whether what may answer a call, arms included, has changes of the catalogue to read first.

        Arguments and errors as for `held`.
        """
        holding = self.holding
        return any(
            held.is_behind for held in (self.held(pin, label), *holding.answering.values(), *holding.named.values())
        )

    def held(self, pin: str = "", label: str = "") -> Held:
        """Return the release that a call is for.

        Args:
            pin: the only release that will do: its name, its fingerprint, or at least 8 leading digits of that; also
                one that is kept to roll back to. Empty for any.
            label: which of those that answer; empty means `stable`.

        Raises:
            RequestError: pin and label.
            UnavailableError: nothing is loaded yet.
            ReleasePinError: no such release is held, or none under the label.
        """
        holding = self.holding
        held = holding.answering.get(label or STABLE)
        if held is not None and not pin:
            return held
        if pin and label:
            raise RequestError("release_label", f"got {label!r} beside a release_pin, expected one of the two")
        if not holding.answering:
            raise UnavailableError("the release is still being loaded.", RETRY_AFTER_S)
        if not pin:
            told = f"release_label: {unknown('label that is served', label or STABLE, holding.answering)}"
            raise ReleasePinError(told, label or STABLE)
        for held in holding:
            if matches(pin, held.name, held.fingerprint):
                return held
        served = ", ".join(f"{held.name} ({held.fingerprint})" for held in holding)
        advice = f"Served: {served}. Leave the pin out, or ask a server of the other release."
        raise ReleasePinError(describe("release_pin", pin, "a release that is served", advice), pin)

    def install(self, held: Held, label: str = STABLE, *, rolled_back: bool = False) -> None:
        """Answer under a label from this release from now on; the one that did is kept to roll back to.

        Args:
            held: loaded and warm.
            label: may be new.
            rolled_back: an operator took the label back to it; then nothing is kept.
        """
        with self._changing:
            old = self.holding.answering.get(label)
            before = dict(self.holding.before)
            if rolled_back:
                before.pop(label, None)
            elif old is not None and old.fingerprint != held.fingerprint:
                before[label] = old
            self._put(label, held, before, rolled_back=rolled_back)

    def roll_back(self, label: str) -> Held:
        """Answer under a label from the release before, and return that; the one that answered is let go.

        Raises:
            MissingError: none is kept.
        """
        with self._changing:
            before = dict(self.holding.before)
            held = before.pop(label, None)
            if held is None:
                advice = "Load one by name with ReloadRelease."
                raise MissingError(describe("label", label, "a label that had another release before", advice))
            self._put(label, held, before, rolled_back=True)
            return held

    def drop(self, label: str) -> None:
        """Answer no longer under a label, and keep nothing for it."""
        with self._changing:
            holding = self.holding
            self._replace(
                replace(
                    holding,
                    answering=_without(holding.answering, label),
                    before=_without(holding.before, label),
                    refused=_without(holding.refused, label),
                    rolled_back=holding.rolled_back - {label},
                )
            )

    def name(self, named: Mapping[str, Held]) -> None:
        """Hold these releases for the arms of experiments, and no longer those that were held for them."""
        with self._changing:
            self._replace(replace(self.holding, named=dict(named)))

    def refuse(self, refused: Refused) -> None:
        """Remember a release that was not loaded, until another one is loaded under its label."""
        with self._changing:
            self._replace(replace(self.holding, refused={**self.holding.refused, refused.label: refused}))

    def _put(self, label: str, held: Held, before: Mapping[str, Held], *, rolled_back: bool) -> None:
        holding = self.holding
        self._replace(
            replace(
                holding,
                answering={**holding.answering, label: held},
                before=before,
                refused=_without(holding.refused, label),
                rolled_back=holding.rolled_back | {label} if rolled_back else holding.rolled_back - {label},
            )
        )

    def _replace(self, holding: Holding) -> None:
        before, self.holding = self.holding, holding
        self._told(before, holding)


def matches(pin: str, name: str, fingerprint: str) -> bool:
    """Return whether a pin means the release of this name and fingerprint."""
    return pin == name or (len(pin) >= SHORTEST_PREFIX and fingerprint.startswith(pin.lower()))


def _without(table: Mapping, label: str) -> dict:
    return {key: value for key, value in table.items() if key != label}
