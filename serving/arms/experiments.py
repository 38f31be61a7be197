"""The experiment file of a server, read again when it changes, and the treatment that it gives to each request.

A file that was cut between two tables is valid, and ends the experiments of those that are missing. So one that changed
is followed only when it rests: an editor that is writing it is waited for. That is no protection from a writer that
pauses or is killed: replace the file whole, by a rename.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recsys.experiment import plan as plans
from recsys.experiment.assignment import Assigner, Assignment
from recsys.experiment.plan import Plan
from recsys.retrieval import Retriever
from serving.arms.treatment import Blend, Treatment, Way, check, releases_of
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Holding, Releases
from serving.settings import ExperimentSettings
from serving.telemetry import calls
from twintower.errors import MissingError, SettingError, TwintowerError, unknown
from twintower.types import ExperimentUnit

REST_S = 0.5
"""A file that changed is read twice, so far apart; no longer than the time between two looks."""


@dataclass(frozen=True)
class _Accepted:
    """A plan that the releases can serve.

    Attributes:
        plan: of the file.
        assigner: assigns after it.
        blends: what arms come to together, filled in as they are met.
    """

    plan: Plan
    assigner: Assigner
    blends: dict[tuple[Assignment, ...], Blend] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan) -> _Accepted:
        return cls(plan, Assigner(plan))

    def blend(self, assignments: tuple[Assignment, ...]) -> Blend:
        found = self.blends.get(assignments)
        if found is None:
            found = self.blends[assignments] = Blend.of(self.plan, assignments)
        return found


class Experiments:
    """Gives each request its treatment. Safe for calls from several threads.

    The file is looked at on a thread of its own and never on a request's. One that is broken, or that the releases
    cannot serve, is refused, and what was accepted last goes on.

    Args:
        settings: where the file is; without one no request is in an experiment.
        releases: that answer.
        folder: loads releases that arms name and that stand under no label; None where there is no folder.
        logger: a structlog logger.
        told: hears of every file that was read: whether it was accepted.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        releases: Releases,
        folder: ReleaseFolder | None,
        logger: Any,
        told: Callable[[bool], None] = lambda accepted: None,
    ) -> None:
        self._settings, self._releases, self._folder = settings, releases, folder
        self._logger, self._told = logger, told
        self._accepted = _Accepted.of(Plan())
        self._content = b""
        self._complaint = ""
        self._tried: tuple[Plan, str] | None = None
        self._warned: set[str] = set()
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch-experiments", daemon=True)

    def load(self) -> None:
        """Read the file, before anything answers.

        Raises:
            SettingError: it is missing or broken, or an arm cannot be served.
        """
        if self._settings.file is not None:
            self._follow(plans.load(self._settings.file))

    def start(self) -> None:
        """Look at the file again and again in the background."""
        if self._settings.file is not None and self._settings.look_s > 0:
            self._watcher.start()

    def stop(self) -> None:
        """Look no more; a release that is just being loaded is not waited for."""
        self._stopping.set()

    def look(self) -> None:
        """Follow what the file says now, or refuse it; what was refused is tried again when its releases change.

        A file that somebody is writing is left for the next look.
        """
        file = self._settings.file
        if file is None:
            return
        try:
            content = plans.content_of(file)
            if content != self._content:
                self._stopping.wait(min(REST_S, self._settings.look_s))
                if plans.content_of(file) != content:
                    return
                self._content = content
            plan = plans.from_content(content, file)
            if plan != self._accepted.plan:
                attempt = (plan, self._state(plan))
                if attempt == self._tried:
                    return
                self._tried = attempt  # before it is made: what changes meanwhile is looked at again
                self._follow(plan)
        except SettingError as error:
            if str(error) != self._complaint:
                self._logger.warning("experiments refused, the old ones go on", file=str(file), reason=str(error))
                self._told(False)
            self._complaint = str(error)
        else:
            self._complaint = ""

    def treatment(self, unit: ExperimentUnit) -> Treatment:
        """Return how a request is answered that names no release.

        A request whose arms cannot be served, because their label has gone or has another release now, is answered as
        outside of all experiments.

        Raises:
            UnavailableError: nothing is loaded yet.
        """
        accepted = self._accepted
        assignments = accepted.assigner.assign(
            {"user": unit.user_id or "", "session": unit.session_id or ""}, datetime.now(UTC)
        )
        if assignments:
            blend, holding = accepted.blend(assignments), self._releases.holding
            try:
                ways = tuple(recipe.over(_retriever(holding, recipe.release)) for recipe in blend.recipes)
            except (MissingError, SettingError) as error:
                self._not_served(assignments, str(error))
            else:
                calls.current().assignments = assignments
                return Treatment(ways, unit, self.held_out(unit), assignments, blend.slate, blend.teams)
        return Treatment((Way(self._releases.retriever()),), unit, self.held_out(unit))

    def held_out(self, unit: ExperimentUnit) -> bool:
        """Return whether no experiment may take a user, or where that is unknown a session."""
        return self._accepted.assigner.held_out(unit.user_id or unit.session_id or "")

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.look_s):
            try:
                self.look()
            except Exception as error:
                self._logger.error("looking at the experiment file failed", exc_info=error)

    def _follow(self, plan: Plan) -> None:
        """Answer by this plan from now on.

        Raises:
            SettingError: an arm cannot be served; nothing changed.
        """
        now, old = datetime.now(UTC), self._accepted.plan
        wanted = releases_of(plan, now)
        try:
            self._hold(wanted | releases_of(old, now))
            check(plan, now, lambda release: _retriever(self._releases.holding, release))
        except TwintowerError as error:
            self._hold(releases_of(old, now))
            raise SettingError(str(error)) from None
        self._accepted, self._warned = _Accepted.of(plan), set()
        self._hold(wanted)
        running = sorted(name for name, experiment in plan.experiments.items() if experiment.runs_at(now))
        self._logger.info("experiments accepted", file=str(self._settings.file), running=running)
        self._told(True)

    def _state(self, plan: Plan) -> str:
        """Return what changes when the releases that answer a plan's arms do."""
        answering = {label: held.fingerprint for label, held in sorted(self._releases.holding.answering.items())}
        names = releases_of(plan, datetime.now(UTC))
        return f"{answering} {self._folder.state_of(names) if self._folder is not None else ''}"

    def _hold(self, names: Collection[str]) -> None:
        if self._folder is not None:
            self._folder.hold(names)

    def _not_served(self, assignments: tuple[Assignment, ...], reason: str) -> None:
        calls.current().not_treated = True
        if reason not in self._warned:
            self._warned.add(reason)
            arms = {each.experiment: each.arm for each in assignments}
            self._logger.warning("arms not served, answered as outside of experiments", arms=arms, reason=reason)


def _retriever(holding: Holding, release: str) -> Retriever:
    """Return what answers an arm.

    Raises:
        MissingError: no such label or name.
    """
    held = holding.of_arm(release)
    if held is None:
        raise MissingError(unknown("label that is served, or release", release, [*holding.answering, *holding.named]))
    return held.now()
