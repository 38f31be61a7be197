"""What the arms of a request come to, and whether releases can serve them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from recsys.experiment.assignment import Assignment
from recsys.experiment.plan import INTERLEAVED, Arm, Experiment, Plan, Slate
from recsys.retrieval import Retriever
from twintower.errors import SettingError, TwintowerError, unknown
from twintower.types import ANONYMOUS, ExperimentUnit


class Way(NamedTuple):
    """How one list is searched.

    Attributes:
        retriever: searches it.
        reformulator: moves its query where there is feedback; empty leaves the request's.
    """

    retriever: Retriever
    reformulator: str = ""


class Treatment(NamedTuple):
    """How a request is answered.

    Attributes:
        ways: one, or two whose lists are drafted into one, the control's first.
        unit: who asks.
        held_out: no experiment may take the unit.
        assignments: experiments that the request is in.
        slate: how its list is drawn; None shows it best first.
        teams: the arms of both ways; empty where there is one.
    """

    ways: tuple[Way, ...]
    unit: ExperimentUnit = ANONYMOUS
    held_out: bool = False
    assignments: tuple[Assignment, ...] = ()
    slate: Slate | None = None
    teams: tuple[str, ...] = ()

    @property
    def retriever(self) -> Retriever:
        """What answers, of two the control's."""
        return self.ways[0].retriever

    def metadata(self, item_ids: Sequence[str]) -> Sequence[dict[str, Any]]:
        """Return the display columns of items, each from the first way that has it."""
        shown = self.retriever.metadata(item_ids)
        for way in self.ways[1:]:
            shown = [own or other for own, other in zip(shown, way.retriever.metadata(item_ids), strict=True)]
        return shown


@dataclass(frozen=True)
class Recipe:
    """What arms set together.

    Attributes:
        release: a label or a name; empty leaves the server's.
        reformulator: by name; empty leaves the request's.
        settings: of index and planner, by path.
    """

    release: str
    reformulator: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, arms: Sequence[Arm]) -> Recipe:
        """Put arms together; of two that set the same, which only overrides can bring about, the first one counts."""
        release = next((arm.release for arm in arms if arm.release), "")
        reformulator = next((arm.reformulator for arm in arms if arm.reformulator), "")
        settings = {path: value for arm in reversed(arms) for path, value in arm.settings.items()}
        return cls(release, reformulator, settings)

    def over(self, retriever: Retriever) -> Way:
        """Return how a release serves this.

        Raises:
            SettingError: it has no such reformulator or setting.
        """
        if self.reformulator and self.reformulator not in retriever.reformulators:
            name = retriever.release.name
            raise SettingError(unknown(f"reformulator in release {name}", self.reformulator, retriever.reformulators))
        return Way(retriever.tuned(self.settings) if self.settings else retriever, self.reformulator)


@dataclass(frozen=True)
class Blend:
    """What all assignments of a request come to.

    Attributes:
        recipes: one, or two to interleave, the control's first.
        slate: how the list is drawn.
        teams: the arms of both recipes; empty where there is one.
    """

    recipes: tuple[Recipe, ...]
    slate: Slate | None
    teams: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, assignments: Sequence[Assignment]) -> Blend:
        """Put the arms of assignments together."""
        arms, interleaved = [], None
        for assignment in assignments:
            experiment = plan.experiments[assignment.experiment]
            if assignment.arm != INTERLEAVED:
                arms.append(experiment.arms[assignment.arm])
            elif interleaved is None:
                interleaved = experiment
        if interleaved is None:
            return cls((Recipe.of(arms),), next((arm.slate for arm in arms if arm.slate), None), ())
        teams = tuple(sorted(interleaved.arms, key=lambda arm: arm != interleaved.control))
        return cls(tuple(Recipe.of([interleaved.arms[team], *arms]) for team in teams), None, teams)


def releases_of(plan: Plan, now: datetime) -> set[str]:
    """Return the labels and names of releases that arms of experiments name which have not ended."""
    named = (arm.release for experiment in _open(plan, now).values() for arm in experiment.arms.values())
    return {release for release in named if release}


def check(plan: Plan, now: datetime, retriever_of: Callable[[str], Retriever]) -> None:
    """Look whether releases can serve every arm, also together with those of other layers.

    Args:
        plan: the experiment file.
        now: experiments that have ended by then are passed over.
        retriever_of: returns what a label or name stands for, empty for the server's own; raises a TwintowerError where
            it stands for nothing.

    Raises:
        SettingError: one cannot; the message names the arm.
    """
    experiments = _open(plan, now)
    for name, experiment in experiments.items():
        met = _releases_met(experiment, experiments.values())
        for arm_name, arm in experiment.arms.items():
            for release in [arm.release] if arm.release else ["", *met]:
                try:
                    Recipe.of([arm]).over(retriever_of(release))
                except TwintowerError as error:
                    raise SettingError(f"experiments.{name}.arms.{arm_name}: {error}") from None


def _open(plan: Plan, now: datetime) -> dict[str, Experiment]:
    return {name: each for name, each in plan.experiments.items() if each.end is None or now < each.end}


def _releases_met(experiment: Experiment, others: Collection[Experiment]) -> list[str]:
    """Return the releases that may answer an arm that names none, because its unit is in another experiment, too."""
    met = {
        arm.release
        for other in others
        if other.namespace != experiment.namespace and other.meets(experiment)
        for arm in other.arms.values()
    }
    return sorted(met - {""})
