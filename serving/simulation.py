"""Drive a real server by users whose preferences are known, through the arms of an experiment file."""

from __future__ import annotations

import dataclasses
import json
import random
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from recsys.errors import RefusedError
from recsys.experiment import plan as plans
from recsys.experiment.assignment import Assigner
from recsys.experiment.log import open_log
from recsys.experiment.plan import Plan
from recsys.experiment.simulation import (
    BEFORE,
    CLICK,
    DURING,
    Happening,
    Outcomes,
    People,
    Truth,
    Visit,
    alternatives,
    answering,
    cell_of,
    stretch,
    timeless,
    unit_of,
)
from recsys.files import storage, write_atomically
from recsys.progress import task
from serving.process import served
from twintower.client import Client
from twintower.errors import SettingError, describe, verbatim
from twintower.types import Event, ExperimentUnit, FeedbackItem, FeedbackKind, Ranking

START_S = 120.0
EVENTS_AT_ONCE, VISITS_AT_ONCE = 500, 200
LOOK_S = 0.2
"""Between two looks of the server at the experiment file."""
SETTLE_S = 2.0
"""From writing an experiment file until its start: every process of the server has read it by then."""
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
PHASE_DAYS = 14.0
"""What the longer phase becomes in the log: the analysis reads two weeks before a start."""
SKEW_S = 7200.0
"""How far the server lets clocks be wrong: events that are to come too late are told at once."""


class Page(NamedTuple):
    """One list of a visit.

    Attributes:
        ranking: what was shown.
        happenings: what the user did.
        time: when.
    """

    ranking: Ranking
    happenings: list[Happening]
    time: datetime

    @property
    def liked(self) -> list[FeedbackItem]:
        """What was clicked."""
        places = [one.place for one in self.happenings if one.kind == CLICK]
        return [FeedbackItem(self.ranking.item_ids[place], FeedbackKind.LIKED, place) for place in places]


@dataclass(frozen=True)
class Simulated:
    """What a simulation did.

    Attributes:
        plan: the experiment file, with the start that the simulation gave it.
        log: folder of the log, in which the longer phase has become two weeks.
        truths: what the arms truly did.
        visits: that were logged, of both phases.
        events: that were sent, repeats counted.
        rejected: events that the server did not take, by reason.
        strayed: visits that were answered otherwise than the same visit in the same arms before; none unless lists
            are drawn or interleaved at random.
    """

    plan: Path
    log: Path
    truths: tuple[Truth, ...]
    visits: int
    events: int
    rejected: Mapping[str, int]
    strayed: int


def simulate(
    people: People, plan_file: Path, releases: Path, out: Path, *, workers: int, say: Callable[[str], None]
) -> Simulated:
    """Serve, let users visit, and write the log of what they saw and did beside the truth.

    First every visit of the experiments' time is made under every arm, on a server that keeps no log: that is the
    truth. Then a server with a log answers the visits before any experiment runs, reads the experiment file with a
    start, and answers the others in the arms that it assigns. Starts, ends and overrides of the file are passed over.

    Args:
        people: who visits.
        plan_file: the experiment file.
        releases: the folder of releases that its arms name.
        out: a folder that is empty or not there; gets `plan.toml`, `log/`, `truth.json` and what the servers wrote.
        workers: threads that visit.
        say: prints a line.

    Raises:
        SettingError: the experiment file is unusable, or has no experiment or no metric.
        RefusedError: the folder is not empty, or the server answered in other arms than the file says.
        TwintowerError: a server did not start.
    """
    plans.load(plan_file)
    tables = timeless(tomllib.loads(plan_file.read_text(encoding="utf-8")))
    plan = plans.from_tables(tables)
    for section, named in (("experiments", plan.experiments), ("metrics", plan.metrics)):
        if not named:
            raise SettingError(describe(f"{plan_file}: {section}", verbatim("none"), "at least one"))
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise RefusedError(describe(str(out), verbatim("a folder with files in it"), "an empty one, or none"))
        simulation = _Simulation(people, tables, plan, releases, out, workers)
        say("what would be: every visit under every arm")
        truths, shown = simulation.potential()
        lines = [dataclasses.asdict(truth) | {"difference": truth.difference} for truth in truths]
        write_atomically(out / "truth.json", json.dumps(lines, indent=1) + "\n")
        say("what is: a time without experiments, then every visit in the arms that the server assigns")
        return simulation.logged(truths, shown)


@dataclass(frozen=True)
class _Simulation:
    people: People
    tables: Mapping[str, Any]
    plan: Plan
    releases: Path
    out: Path
    workers: int

    def potential(self) -> tuple[list[Truth], dict[Visit, int]]:
        """Make every visit under every arm; return the truth, and a digest of what each shows in its own arms."""
        asked = [
            (visit, arms, cell, told)
            for visit, arms in self._assigned()
            for cell, told in alternatives(arms, self.plan).items()
        ]
        folder, outcomes, shown = self.out / "potential", Outcomes(self.plan), {}
        folder.mkdir()
        plan_file = _write(folder, answering(self.tables, {cell for _, _, cell, _ in asked}))
        with self._served(folder, plan_file) as client:
            units = [(visit, ExperimentUnit(unit_of(cell), unit_of(cell)), dict(cell)) for visit, _, cell, _ in asked]
            for (visit, arms, cell, told), pages in zip(asked, self._visit(client, units), strict=True):
                for experiment, arm in told:
                    unit = visit.units[self.plan.experiments[experiment].unit]
                    outcomes.add(experiment, arm, unit, [page.happenings for page in pages])
                if cell == cell_of(arms):
                    shown[visit] = _digest(pages)
        return outcomes.truths(), shown

    def logged(self, truths: Sequence[Truth], shown: Mapping[Visit, int]) -> Simulated:
        """Make every visit once, before and during the experiments, on a server with a log."""
        before, during = self.people.visits(BEFORE), self._assigned()
        plan_file = _write(self.out, timeless(self.tables, NEVER))
        # A server that remembers no event: repeats reach the log, as where they meet another process.
        kept = self.out / "served"
        settings = (f"log.folder={kept}", "log.max_known_events=0", f"log.max_clock_skew_s={SKEW_S:g}")
        with self._served(self.out, plan_file, *settings) as client:
            outbox, began = _Outbox(client, self.people.habits.seed), datetime.now(UTC)
            for visit, pages in self._each_once(client, [(visit, {}) for visit in before]):
                outbox.put(visit, pages)
            start = datetime.now(UTC) + timedelta(seconds=SETTLE_S)
            _write(self.out, timeless(self.tables, start))
            time.sleep(SETTLE_S)
            strayed = 0
            for visit, pages in self._each_once(client, during):
                outbox.put(visit, pages)
                strayed += visit in shown and shown[visit] != _digest(pages)
            phases = (start - began, datetime.now(UTC) - start)
            outbox.send()
            outbox.send()
        log = self.out / "log"
        stretch(open_log(kept), log, start, max(phases) / PHASE_DAYS)
        visits = len(before) + len(during)
        return Simulated(plan_file, log, tuple(truths), visits, outbox.sent, dict(outbox.rejected), strayed)

    def _assigned(self) -> list[tuple[Visit, dict[str, str]]]:
        """Return the visits of the experiments' time with the arms that the file gives them."""
        assigner, now = Assigner(self.plan), datetime.now(UTC)
        return [
            (visit, {one.experiment: one.arm for one in assigner.assign(visit.units, now)})
            for visit in self.people.visits(DURING)
        ]

    def _served(self, folder: Path, plan_file: Path, *settings: str) -> AbstractContextManager[Client]:
        experiments = (f"experiments.file={plan_file}", f"experiments.look_s={LOOK_S}", "telemetry.access_log_rate=0")
        return served(self.releases, folder, start_s=START_S, settings=(*experiments, *settings))

    def _each_once(
        self, client: Client, visits: Sequence[tuple[Visit, dict[str, str]]]
    ) -> Iterator[tuple[Visit, list[Page]]]:
        asked = [(visit, ExperimentUnit(visit.user_id, visit.session_id), arms) for visit, arms in visits]
        return zip((visit for visit, _ in visits), self._visit(client, asked), strict=True)

    def _visit(
        self, client: Client, asked: Sequence[tuple[Visit, ExperimentUnit, dict[str, str]]]
    ) -> Iterator[list[Page]]:
        """Make visits by several threads; yield their lists in order."""
        with task("visit", len(asked), "visits") as running, ThreadPoolExecutor(self.workers) as threads:
            for first in range(0, len(asked), VISITS_AT_ONCE):
                some = asked[first : first + VISITS_AT_ONCE]
                yield from threads.map(lambda one: self._browse(client, *one), some)
                running.advance(len(some))

    def _browse(self, client: Client, visit: Visit, unit: ExperimentUnit, arms: dict[str, str]) -> list[Page]:
        """Look at a list, and at another one after all that was liked so far as long as there is something to like."""
        habits, query = self.people.habits, self.people.query(visit)
        pages = [self._page(visit, 0, client.nearest_items(query, habits.k, unit=unit), arms)]
        liked: list[FeedbackItem] = []
        while (found := pages[-1].liked) and len(pages) < habits.pages:
            liked = found + liked
            query = replace(query, excluded_ids=(*query.excluded_ids, *pages[-1].ranking.item_ids))
            answer = client.reformulate(query, habits.k, liked, unit=unit)
            pages.append(self._page(visit, len(pages), answer.ranking, arms))
        return pages

    def _page(self, visit: Visit, number: int, ranking: Ranking, arms: dict[str, str]) -> Page:
        if dict(ranking.arms) != arms:
            advice = "The server reads another experiment file, or lost a release that an arm names: see its log."
            raise RefusedError(describe(f"arms of {visit.user_id}", dict(ranking.arms), f"{arms} as assigned", advice))
        return Page(ranking, self.people.happenings(visit, number, ranking.item_ids), datetime.now(UTC))


class _Outbox:
    """Events on their way to the server: in batches, each out of order; what is sent twice is in the next batch again.

    Args:
        client: takes them.
        seed: of the order.
    """

    def __init__(self, client: Client, seed: int) -> None:
        self._client, self._random = client, random.Random(seed)
        self._waiting: list[Event] = []
        self._again: list[Event] = []
        self.sent, self.rejected = 0, Counter[str]()

    def put(self, visit: Visit, pages: Sequence[Page]) -> None:
        """Add what happened on the lists of a visit."""
        for number, page in enumerate(pages):
            for one in page.happenings:
                event = Event(
                    event_id=f"{visit.session_id}-{number}-{one.place}-{one.kind}",
                    attribution_token=page.ranking.attribution_token,
                    kind=one.kind,
                    item_id=page.ranking.item_ids[one.place],
                    value=one.value,
                    time=page.time + timedelta(seconds=one.delay_s),
                )
                self._waiting.append(event)
                self._again += [event] * (one.sent_count - 1)
        if len(self._waiting) >= EVENTS_AT_ONCE:
            self.send()

    def send(self) -> None:
        """Send what waits, but for what was sent before."""
        self._random.shuffle(self._waiting)
        for first in range(0, len(self._waiting), EVENTS_AT_ONCE):
            answer = self._client.record_events(self._waiting[first : first + EVENTS_AT_ONCE])
            self.rejected.update(one.reason for one in answer.rejected)
        self.sent += len(self._waiting)
        self._waiting, self._again = self._again, []


def _digest(pages: Sequence[Page]) -> int:
    return hash(tuple(page.ranking.item_ids for page in pages))


def _write(folder: Path, tables: Mapping[str, Any]) -> Path:
    path = folder / "plan.toml"
    write_atomically(path, tomli_w.dumps(tables))
    return path
