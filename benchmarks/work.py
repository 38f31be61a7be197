"""An ordinary caller beside callers that send the largest requests and soon wait no more; and one such call by itself.

The abusive callers are a process of their own and share a core with the ordinary caller; the server has the other one.
The ordinary caller asks at fixed times for ten items with metadata, for ten items with a filter, and for the server's
health; a call that begins late because the one before took long counts from the time at which it was due.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from benchmarks import load
from benchmarks.abuse import OWN_CONNECTION, SERVICE, largest, written
from benchmarks.cores import on_cores
from benchmarks.report import RESULTS, Report
from benchmarks.serving import START_S, WORK, Cores
from benchmarks.serving_world import World, release_at
from recsys import progress
from recsys.cli import one_message
from recsys.export.release import Release, open_release
from serving.process import Running, running
from twintower import codecs as client_codecs
from twintower.client import Client
from twintower.types import Condition, Filter, FilterType, Query
from twintower.v1 import recommendation_service_pb2 as pb

P99_BAR_MS, GROWTH_BAR_BYTES = 50.0, 200 * 2**20
STOPS_BAR_S = 1.0
"""Seconds beyond `drain_s` that the server may take to stop."""
K, PATIENCE_S = 10, 60.0
TICK_S, IDLE_RATE = 0.1, 0.1
"""How often it is looked whether the server still works, and the share of a core up to which it does not."""
HEALTH = "/grpc.health.v1.Health/Check"
EVERYONE, CALLERS = "all of these", 2
"""Abusive callers of one kind; beside all kinds there is one of each."""
DRAIN_S = 1.0


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        seconds: beside each kind of abusive callers.
        every_s: between two calls of the ordinary caller of one kind.
        deadline_s: of the abusive calls.
    """

    seconds: float
    every_s: float = 0.02
    deadline_s: float = 0.5


FULL, QUICK = Plan(seconds=8.0), Plan(seconds=0.5, every_s=0.05, deadline_s=0.2)


@dataclass
class Probe:
    """Calls of one kind at fixed times, until they are stopped.

    Attributes:
        call: is made again and again.
        every_s: between two calls.
        took_ms: of each call, from when it was due.
        failures: calls that did not end well.
    """

    call: Callable[[], object]
    every_s: float
    took_ms: list[float] = field(default_factory=list)
    failures: int = 0

    def run(self, over: threading.Event) -> None:
        """Call until it is over."""
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            try:
                self.call()
            except grpc.RpcError:
                self.failures += 1
            self.took_ms.append((time.monotonic() - due) * 1000)
            due = max(due + self.every_s, time.monotonic() - 1.0)


@contextmanager
def watched(server: Running, ordinary: Mapping[str, tuple[str, bytes]], every_s: float) -> Iterator[dict[str, Probe]]:
    """Make ordinary calls while the block runs, and yield what became of them; the connections are open before."""
    over, probes = threading.Event(), {}
    with ExitStack() as stack:
        for name, (method, request) in ordinary.items():
            channel = stack.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))
            call = channel.unary_unary(method)
            call(request, timeout=PATIENCE_S)
            probes[name] = Probe(lambda call=call, request=request: call(request, timeout=PATIENCE_S), every_s)
        threads = [threading.Thread(target=probe.run, args=(over,)) for probe in probes.values()]
        for thread in threads:
            thread.start()
        try:
            yield probes
        finally:
            over.set()
            for thread in threads:
                thread.join()


@contextmanager
def growth(server: Running) -> Iterator[list[int]]:
    """Watch the server's memory while the block runs; afterwards the list holds by how many bytes it grew at most."""
    over, grown = threading.Event(), [0]
    before = load.memory_of(server.pid)[0]

    def look() -> None:
        while not over.wait(TICK_S / 2):
            grown[0] = max(grown[0], load.memory_of(server.pid)[0] - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield grown
    finally:
        over.set()
        watcher.join()


def requests_of(release: Release, world: World, address: str) -> tuple[dict[str, tuple[str, Message]], Filter]:
    """Return the largest requests over a release, and a filter that an ordinary query may have."""
    with Client(address) as client:
        fields = client.release().filter_fields
    text = next(name for name, kind in fields.items() if kind is FilterType.STRING)
    number = next(name for name, kind in fields.items() if kind is FilterType.NUMBER)
    requests = largest(list(world.rows), world.query_vectors, text_field=text, number_field=number)
    return requests, Filter((Condition(number, minimum=0.0),))


def ordinary_of(world: World, narrowed: Filter) -> dict[str, tuple[str, bytes]]:
    """Return the ordinary calls: full names of methods, and serialized requests."""
    plain, filtered = Query(vector=world.query_vectors[0]), Query(vector=world.query_vectors[0], filter=narrowed)
    return {
        "NearestItems": (
            f"{SERVICE}NearestItems",
            pb.NearestItemsRequest(
                query=client_codecs.query_to_proto(plain), k=K, include_metadata=True
            ).SerializeToString(),
        ),
        "NearestItems with a filter": (
            f"{SERVICE}NearestItems",
            pb.NearestItemsRequest(query=client_codecs.query_to_proto(filtered), k=K).SerializeToString(),
        ),
        "health check": (HEALTH, health_pb2.HealthCheckRequest().SerializeToString()),
    }


def add_probes(report: Report, case: Mapping[str, object], probes: Mapping[str, Probe]) -> list[str]:
    """Add what became of ordinary calls; return those that missed the bar."""
    missed = []
    for name, probe in probes.items():
        p50, p99 = np.percentile(probe.took_ms, [50, 99])
        report.add(case, name, "calls", len(probe.took_ms))
        report.add(case, name, "failures", probe.failures)
        report.add(case, name, "p50_ms", p50)
        report.add(case, name, "p99_ms", p99)
        report.add(case, name, "max_ms", max(probe.took_ms))
        if probe.failures or p99 >= P99_BAR_MS:
            missed.append(f"{name} {case['beside']} ({probe.failures} failures, p99 {p99:.1f} ms)")
    return missed


def add_abuse(
    report: Report,
    server: Running,
    requests: Mapping[str, tuple[str, Message]],
    ordinary: Mapping[str, tuple[str, bytes]],
    plan: Plan,
) -> None:
    """Measure the ordinary caller beside each kind of abusive callers, and beside all of them."""
    subjects: dict[str, Sequence[str]] = {"nobody": ()} | {name: (name,) * CALLERS for name in requests}
    subjects[EVERYONE] = tuple(requests)
    missed = []
    for name, kinds in progress.track(subjects.items(), "abuse", len(subjects), "kinds"):
        with tempfile.TemporaryDirectory() as scratch:
            files = written([requests[kind] for kind in kinds], Path(scratch))
            command = [sys.executable, "-m", "benchmarks.abuse", server.address, *map(str, files)]
            command += ["--seconds", str(plan.seconds), "--deadline-s", str(plan.deadline_s)]
            case = {"beside": name, "callers": len(kinds), "deadline_s": plan.deadline_s}
            with growth(server) as grown, watched(server, ordinary, plan.every_s) as probes:
                if kinds:
                    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_root())
                    report.note(f"Beside {name}: abusive calls ended as {json.loads(done.stdout)}.")
                else:
                    time.sleep(plan.seconds)
        missed += add_probes(report, case, probes)
        report.add(case, "server", "grown_bytes", grown[0])
    report.note(
        f"Bar {'MISSED: ' + '; '.join(missed) if missed else 'met'}: all ordinary calls and health checks end well, "
        f"p99 under {P99_BAR_MS:g} ms wanted."
    )


def add_one_call(report: Report, world: World, cores: Cores, plan: Plan, scratch: Path) -> None:
    """Measure one call of 1,024 lists of 1,000 items with metadata, with and without MMR, whose caller waits for 2 s.

    The limits of an answer are raised for it: by default it is refused at once.
    """
    limits = ["max_answer_items=1024000", "max_answer_bytes=2000000000", f"drain_s={DRAIN_S}"]
    missed = []
    for name, more in (("metadata", {}), ("metadata and MMR", {"diversity": pb.Diversity(mmr_weight=0.3)})):
        with ExitStack() as stack:
            with on_cores(cores.server):
                started = running(world.release.folder, scratch, start_s=START_S, settings=limits)
                server = stack.enter_context(started)
            requests, narrowed = requests_of(world.release, world, server.address)
            queries = requests["metadata of many lists"][1].queries
            request = pb.BatchNearestItemsRequest(queries=queries, k=1000, include_metadata=True, **more)
            channel = stack.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))
            call = channel.unary_unary(f"{SERVICE}BatchNearestItems")
            deadline_s = 4 * plan.deadline_s
            case = {"beside": f"one call: {name}", "request_bytes": request.ByteSize(), "deadline_s": deadline_s}
            with growth(server) as grown, watched(server, ordinary_of(world, narrowed), plan.every_s) as probes:
                asked = call.future(request.SerializeToString(), timeout=deadline_s)
                ended = asked.code().name
            missed += add_probes(report, case, probes)
            report.add(case, "server", "grown_bytes", grown[0])
            report.add(case, "server", "works_on_s", _works_on_s(server.pid))
            call.future(request.SerializeToString(), timeout=PATIENCE_S)
            time.sleep(2 * plan.deadline_s)
            stopping = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            while _is_alive(server.pid) and time.monotonic() < stopping + PATIENCE_S:
                time.sleep(0.01)
            stops_s = time.monotonic() - stopping
            report.add(case, "server", "stops_s", stops_s)
            report.note(f"One call with {name} ended as {ended}.")
            if grown[0] > GROWTH_BAR_BYTES or stops_s > DRAIN_S + STOPS_BAR_S:
                missed.append(f"{name}: memory grew by {grown[0] / 2**20:.0f} MB, SIGTERM took {stops_s:.1f} s")
    report.note(
        f"Bar {'MISSED: ' + '; '.join(missed) if missed else 'met'}: beside one such call p99 under {P99_BAR_MS:g} ms, "
        f"growth under {GROWTH_BAR_BYTES / 2**20:.0f} MB, and SIGTERM under it within drain_s = {DRAIN_S:g} s and "
        f"{STOPS_BAR_S:g} s wanted."
    )


def _works_on_s(pid: int) -> float:
    """Return for how many seconds a process goes on working: until it takes little of a core, or for `PATIENCE_S`."""
    started = last = time.monotonic()
    while last - started < PATIENCE_S and time.monotonic() - last < 5 * TICK_S:
        before_s = _cpu_s(pid)
        time.sleep(TICK_S)
        if _cpu_s(pid) - before_s > IDLE_RATE * TICK_S:
            last = time.monotonic()
    return last - started


def _cpu_s(pid: int) -> float:
    """Return seconds of processor that a process has taken."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _is_alive(pid: int) -> bool:
    """Return whether a child process has not ended yet."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def _root() -> Path:
    return Path(__file__).parents[1]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tiny release, short blocks.")] = False,
    release: Annotated[Path | None, typer.Option(help="Serve this release instead: of texts and numbers.")] = None,
    work: Annotated[Path, typer.Option(help="Where the releases are kept.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure ordinary calls beside abusive ones; write `<results>/work.json` and `work.md`."""
    plan = QUICK if quick else FULL
    report = Report("work-quick" if quick else "work", ("grpcio", "protobuf", "numpy", "scann"))
    world = World.open(open_release(release) if release else release_at(0.95, work, quick=quick))
    report.note(f"{len(world.item_vectors):,} items of {world.item_vectors.shape[1]} dimensions.")
    cores = Cores.split(1)
    with ExitStack() as stack:
        stack.enter_context(on_cores(cores.generator))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with ExitStack() as serving:
            with on_cores(cores.server):
                server = serving.enter_context(running(world.release.folder, scratch, start_s=START_S))
            requests, narrowed = requests_of(world.release, world, server.address)
            add_abuse(report, server, requests, ordinary_of(world, narrowed), plan)
        add_one_call(report, world, cores, plan, scratch)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
