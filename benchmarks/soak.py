"""A server for many minutes: all kinds of calls while releases are swapped, items change and processes are killed.

It speaks the wire (`proto/twintower/v1`) and skips, with a note, what the server of the day does not offer. A call may
fail as UNAVAILABLE while a killed process is missed; any other failure, a wrong answer, or an acknowledged item that is
not found is one too many, and the command ends with code 1.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import load
from benchmarks.report import RESULTS, Report
from benchmarks.serving_world import World, release_at
from recsys import progress
from recsys.cli import one_message
from recsys.export.release import Release, derive, open_release, promote
from serving.process import Running, running
from serving.settings import ServerSettings
from twintower import codecs as client_codecs
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import catalog_service_pb2_grpc as catalog_grpc
from twintower.v1 import operator_service_pb2 as operator_pb
from twintower.v1 import operator_service_pb2_grpc as operator_grpc
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

WORK = Path("work") / "bench-serving"
START_S = 600.0
CALL_S, OPERATE_S = 10.0, 300.0
SETTLE_S = 5.0
"""For so long after a kill a call may fail as UNAVAILABLE."""
ABSENT = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION)
K, BATCH, CALLERS, PROCESSES = 10, 50, 8, 2
UPSERTED = 20


@dataclass
class Tally:
    """What became of the calls; safe for calls from several threads.

    Attributes:
        outcomes: calls by method and code.
        seconds: of the calls that ended with OK, by method.
        wrong: answers that must not be, by what is wrong with them.
        unexcused: failures by method and code for which no kill was the reason.
        killed_at: when a process was killed last, on the monotonic clock.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter)
    unexcused: Counter[tuple[str, str]] = field(default_factory=Counter)
    killed_at: float = -SETTLE_S
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, ask: Callable[[], Any]) -> Any:
        """Return an answer, or None where the call failed, and count it."""
        started = time.monotonic()
        try:
            answer, code = ask(), grpc.StatusCode.OK
        except grpc.RpcError as error:
            answer, code = None, error.code()
        ended = time.monotonic()
        with self._lock:
            self.outcomes[name, code.name] += 1
            excused = code is grpc.StatusCode.UNAVAILABLE and started < self.killed_at + SETTLE_S
            if code is grpc.StatusCode.OK:
                self.seconds[name].append(ended - started)
            elif not excused:
                self.unexcused[name, code.name] += 1
        return answer

    def blame(self, what: str) -> None:
        """Count a wrong answer."""
        with self._lock:
            self.wrong[what] += 1


class Caller:
    """One client with a connection of its own, which asks whatever comes to its mind.

    Args:
        address: of the server.
        world: what to ask about.
        fingerprints: of the releases that may answer.
        tally: gets the outcomes.
        seed: of what it asks.
    """

    def __init__(self, address: str, world: World, fingerprints: set[str], tally: Tally, seed: int) -> None:
        # Without this, all channels of one process to one address share a connection, and so one worker process.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._service = pb_grpc.RecommendationServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)
        self._world, self._fingerprints, self._tally = world, fingerprints, tally
        self._random = random.Random(seed)

    def until(self, ends: float) -> None:
        """Ask without a pause until the monotonic clock says so."""
        asks = (*[self._nearest] * 3, self._batch, self._search, self._encode, self._reformulate)
        while time.monotonic() < ends:
            self._random.choice((*asks, self._session, self._release, self._check))()

    def _query(self) -> pb.Query:
        form = self._random.choice((*self._world.queries, "items"))
        if form == "items":
            return pb.Query(items=pb.Items(item_ids=self._random.sample(list(self._world.rows), 2)))
        return client_codecs.query_to_proto(self._random.choice(self._world.queries[form]))

    def _nearest(self) -> None:
        request = pb.NearestItemsRequest(query=self._query(), k=K, include_metadata=self._random.random() < 0.1)
        answer = self._ask("NearestItems", request)
        if answer is not None:
            self._judge(answer.result, answer.release)

    def _batch(self) -> None:
        request = pb.BatchNearestItemsRequest(queries=[self._query() for _ in range(BATCH)], k=K)
        answer = self._ask("BatchNearestItems", request)
        if answer is not None:
            for result in answer.results:
                self._judge(result, answer.release)

    def _search(self) -> None:
        vectors = [query.vector.tobytes() for query in self._random.sample(self._world.queries["vector"], BATCH)]
        answer = self._ask("SearchVectors", pb.SearchVectorsRequest(vectors=vectors, k=K))
        if answer is not None:
            scores = np.frombuffer(answer.scores_float32_le, "<f4")
            for start in range(0, K * BATCH, K):
                part = slice(start, start + K)
                self._judge(pb.RankedItems(item_ids=answer.item_ids[part], scores=scores[part]), answer.release)

    def _encode(self) -> None:
        self._ask("EncodeQuery", pb.EncodeQueryRequest(query=self._query()))

    def _reformulate(self) -> None:
        feedback = pb.Feedback(pseudo=True)
        answer = self._ask("Reformulate", pb.ReformulateRequest(query=self._query(), k=K, depth=5, feedback=feedback))
        if answer is not None:
            self._judge(answer.result, answer.release)

    def _session(self) -> None:
        liked = [
            pb.FeedbackItem(item_id=item_id, kind=pb.FEEDBACK_KIND_LIKED)
            for item_id in self._random.sample(list(self._world.rows), 2)
        ]
        rounds = [
            pb.SessionRequest(begin=pb.ReformulateRequest(query=self._query(), k=K)),
            pb.SessionRequest(feedback=pb.Feedback(items=liked)),
        ]
        answers = self._tally.call(
            "Session", lambda: list(self._service.Session(iter(rounds), timeout=CALL_S, wait_for_ready=True))
        )
        if answers is not None:
            if len({each.answer.release.fingerprint for each in answers}) != 1 or len(answers) != len(rounds):
                self._tally.blame("a session answered by several releases, or not in every round")
            for each in answers:
                self._judge(each.answer.result, each.answer.release)

    def _release(self) -> None:
        self._ask("GetRelease", pb.GetReleaseRequest())

    def _check(self) -> None:
        request = health_pb2.HealthCheckRequest()
        self._tally.call("Check", lambda: self._health.Check(request, timeout=CALL_S, wait_for_ready=True))

    def _ask(self, name: str, request: Any) -> Any:
        method = getattr(self._service, name)
        return self._tally.call(name, lambda: method(request, timeout=CALL_S, wait_for_ready=True))

    def _judge(self, result: pb.RankedItems, release: pb.ReleaseId) -> None:
        if release.fingerprint not in self._fingerprints:
            self._tally.blame("an answer from an unknown release")
        if len(result.item_ids) != K or len(result.scores) != K or len(set(result.item_ids)) != K:
            self._tally.blame("an answer without k different items and scores")


class Disturber:
    """What goes on around the calls, each thing in a thread and at a pace of its own.

    Args:
        server: that is disturbed.
        channel: to it.
        releases: that are swapped.
        world: of one of them.
        tally: gets the outcomes.
        seed: of what is changed and killed.
    """

    def __init__(
        self,
        server: Running,
        channel: grpc.Channel,
        releases: Sequence[Release],
        world: World,
        tally: Tally,
        seed: int,
    ) -> None:
        self._server, self._releases, self._world, self._tally = server, releases, world, tally
        self._service = pb_grpc.RecommendationServiceStub(channel)
        self._operator = operator_grpc.OperatorServiceStub(channel)
        self._catalogue = catalog_grpc.CatalogServiceStub(channel)
        self._random = np.random.default_rng(seed)
        self._turn = 0
        self.kills = 0

    def offers_swaps(self) -> bool:
        """Tell whether the server loads releases while it runs."""
        return _offered(lambda: self._operator.ListReleases(operator_pb.ListReleasesRequest(), timeout=CALL_S))

    def offers_upserts(self) -> bool:
        """Tell whether the server takes changes of items: it answers an empty call as the caller's mistake."""
        return _offered(lambda: self._catalogue.UpsertItems(catalog_pb.UpsertItemsRequest(), timeout=CALL_S))

    def workers(self) -> list[int]:
        """Return the processes that listen beside the one that was started."""
        return [pid for pid in load.family(self._server.pid)[1:] if load.listens(pid, self._server.address)]

    def swap(self) -> None:
        """Put another release in the place of the one that is served."""
        self._turn += 1
        name = self._releases[self._turn % len(self._releases)].name
        request = operator_pb.ReloadReleaseRequest(release=name)
        self._ask(self._operator.ReloadRelease, "ReloadRelease", request, OPERATE_S)

    def upsert(self) -> None:
        """Add items by vector and by features, look for them in whichever process answers, and remove them again."""
        vectors = self._random.standard_normal((UPSERTED, self._world.item_vectors.shape[1])).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        names = [f"soak-{number}" for number in self._random.integers(2**62, size=2 * UPSERTED)]
        items = [
            catalog_pb.UpsertItem(item_id=name, vector=pb.Vector(float32_le=vector.tobytes()))
            for name, vector in zip(names, vectors, strict=False)
        ]
        described = catalog_pb.ItemFeatures()  # every value unknown, which any release can encode
        items += [catalog_pb.UpsertItem(item_id=name, features=described) for name in names[UPSERTED:]]
        done = self._ask(self._catalogue.UpsertItems, "UpsertItems", catalog_pb.UpsertItemsRequest(items=items))
        if done is not None:
            for item in items:
                self._find(item, done.release.fingerprint)
        self._ask(self._catalogue.DeleteItems, "DeleteItems", catalog_pb.DeleteItemsRequest(item_ids=names))

    def kill(self) -> None:
        """Kill one worker process, as long as another one listens: without any there is nobody to answer."""
        workers = self.workers()
        if len(workers) > 1:
            self._tally.killed_at = time.monotonic()
            os.kill(int(self._random.choice(workers)), signal.SIGKILL)
            self.kills += 1

    def _find(self, item: catalog_pb.UpsertItem, fingerprint: str) -> None:
        """Look for an item: one by vector near its vector, where the release is still the same, others by their id."""
        by_vector = item.HasField("vector")
        asked = pb.Query(vector=item.vector) if by_vector else pb.Query(items=pb.Items(item_ids=[item.item_id]))
        answer = self._ask(self._service.NearestItems, "NearestItems", pb.NearestItemsRequest(query=asked, k=K))
        if answer is None or (by_vector and answer.release.fingerprint != fingerprint):
            return
        found = item.item_id in answer.result.item_ids if by_vector else not answer.result.missing_ids
        if not found:
            self._tally.blame("an acknowledged item that was not found")

    def _ask(self, method: Callable[..., Any], name: str, request: Any, timeout_s: float = CALL_S) -> Any:
        return self._tally.call(name, lambda: method(request, timeout=timeout_s, wait_for_ready=True))


def soak(
    release: Release, minutes: float, processes: int, overrides: Sequence[str], report: Report, *, pace_s: float
) -> bool:
    """Run the server for so long and report.

    Args:
        release: that is served, in turns with another one of the same vectors.
        minutes: how long.
        processes: worker processes, where the server has any.
        overrides: settings of the server.
        report: gets rows and notes.
        pace_s: seconds between two swaps; items change five times as often, and a process is killed half as often.

    Returns:
        Whether nothing went wrong.
    """
    several = processes > 1 and hasattr(ServerSettings(), "processes")
    if processes > 1 and not several:
        report.note("One process: this server knows no more.")
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        releases = _pair(release, Path(folder) / "releases")
        given = [*overrides, *([f"processes={processes}"] if several else [])]
        if hasattr(ServerSettings(), "catalogue"):
            given.append(f"catalogue.folder={Path(folder) / 'changes'}")
        with running(releases[0].folder.parent, Path(folder), start_s=START_S, settings=given) as server:
            before = _memory(server)
            kills = _disturbed(server, releases, minutes * 60, pace_s, tally, report)
            time.sleep(SETTLE_S if kills else 0)
            after = _memory(server)
    _tell(report, release, tally, before, after)
    report.note(f"{minutes:g} minutes, {CALLERS} callers, {kills} worker processes killed.")
    good = not tally.wrong and not tally.unexcused
    what = ", ".join(f"{count} x {what}" for what, count in tally.wrong.items()) or "none"
    failures = ", ".join(f"{count} x {name} {code}" for (name, code), count in tally.unexcused.items()) or "none"
    report.note(f"Bar {'met' if good else 'MISSED'}: wrong answers: {what}; failures without a kill: {failures}.")
    return good


def _disturbed(
    server: Running, releases: Sequence[Release], seconds: float, pace_s: float, tally: Tally, report: Report
) -> int:
    """Call and disturb; return how many processes were killed."""
    world, fingerprints = World.open(releases[0]), {release.fingerprint for release in releases}
    callers = [Caller(server.address, world, fingerprints, tally, seed) for seed in range(CALLERS)]
    with grpc.insecure_channel(server.address) as channel:
        disturber = Disturber(server, channel, releases, world, tally, seed=CALLERS)
        paces: list[tuple[Callable[[], None], float]] = []
        for offered, what, act, every_s in (
            (disturber.offers_swaps(), "Swaps", disturber.swap, pace_s),
            (disturber.offers_upserts(), "Changes of items", disturber.upsert, pace_s / 5),
            (len(disturber.workers()) > 1, "Kills", disturber.kill, pace_s * 2),
        ):
            if offered:
                paces.append((act, every_s))
            else:
                report.note(f"{what} were skipped: this server does not offer them.")
        ends = time.monotonic() + seconds
        with ThreadPoolExecutor(CALLERS + len(paces)) as pool:
            working = [pool.submit(caller.until, ends) for caller in callers]
            working += [pool.submit(_repeat, act, every_s, ends) for act, every_s in paces]
            with progress.task("soak", round(seconds), "seconds") as shown:
                while time.monotonic() < ends:
                    time.sleep(1)
                    shown.advance(1, f"{tally.outcomes.total():,} calls, {tally.unexcused.total():,} failures")
            for each in working:
                each.result()
    for caller in callers:
        caller.channel.close()
    return disturber.kills


def _repeat(act: Callable[[], None], every_s: float, ends: float) -> None:
    while time.monotonic() + every_s < ends:
        time.sleep(every_s)
        act()


def _offered(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except grpc.RpcError as error:
        return error.code() not in ABSENT
    return True


def _pair(release: Release, root: Path) -> tuple[Release, Release]:
    """Return a copy of the release, labelled `stable`, and another one that differs in a note only, in a new folder."""
    shutil.copytree(release.folder, root / release.name)
    own = open_release(root / release.name)
    promote(own, "stable", metric=next(iter(own.facts.metrics)), max_drop_rate=1.0, force=True)
    return own, derive(own, lambda folder: {"notice": f"{own.facts.notice} Soak."})


def _memory(server: Running) -> tuple[int, int]:
    """Return the processes' resident sets and their proportional shares, summed, bytes."""
    found = [load.memory_of(pid) for pid in load.family(server.pid)]
    return sum(resident for resident, _ in found), sum(proportional for _, proportional in found)


def _tell(report: Report, release: Release, tally: Tally, before: tuple[int, int], after: tuple[int, int]) -> None:
    case = {"release": release.facts.run, "items": release.facts.item_count}
    for (name, code), count in sorted(tally.outcomes.items()):
        report.add({**case, "part": "calls by code"}, name, code, count)
    for name, seconds in sorted(tally.seconds.items()):
        for percentile in (50, 99):
            value = float(np.percentile(seconds, percentile)) * 1000
            report.add({**case, "part": "latency"}, name, f"p{percentile}_ms", value)
    for when, (resident, proportional) in (("at the start", before), ("at the end", after)):
        report.add({**case, "part": "memory"}, f"all processes, {when}", "rss_bytes", resident)
        report.add({**case, "part": "memory"}, f"all processes, {when}", "pss_bytes", proportional)


def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 20.0,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes of the server.")] = PROCESSES,
    pace_s: Annotated[float, typer.Option(min=0.5, help="Seconds between two swaps.")] = 15.0,
    overrides: Annotated[list[str], typer.Option("--set", help="A setting of the server, key=value.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A tiny release.")] = False,
    release: Annotated[Path | None, typer.Option(help="Serve this release instead.")] = None,
    work: Annotated[Path, typer.Option(help="Where the releases are kept.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Soak the server; write `<results>/soak.json` and `soak.md`; end with code 1 where something went wrong."""
    report = Report("soak-quick" if quick else "soak", ("grpcio", "protobuf", "numpy", "scann", "tensorflow"))
    served = open_release(release) if release else release_at(0.95, work, quick=quick)
    good = soak(served, minutes, processes, overrides, report, pace_s=pace_s)
    print(report.write(results).read_text(encoding="utf-8"))
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
