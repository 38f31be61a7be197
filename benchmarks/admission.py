"""An ordinary caller beside attackers: calls that send nothing, floods of health watches, and too many calls at once.

The attackers open streams on one connection each, at a rate, and are processes of their own. The ordinary caller has a
key, calls NearestItems at the times of a Poisson process, and must not notice. At the end thousands of calls come at
once, and each must end with an answer or with a refusal that says when to come back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks import load, wire
from benchmarks.cores import on_cores
from benchmarks.report import RESULTS, Report
from benchmarks.serving import START_S, WORK, Cores
from benchmarks.serving_world import SERVICE, World, nearest, release_at
from recsys import progress
from recsys.cli import one_message
from recsys.export.release import open_release
from serving.process import Running, running
from serving.trust.callers import digest_of, new_key
from twintower.status import OVERLOADED

K = 10
METHOD, WATCH, SESSION = f"{SERVICE}NearestItems", "/grpc.health.v1.Health/Watch", f"{SERVICE}Session"
P99_BAR_MS = 50.0
AT_ONCE_TIMEOUT_S = 60.0
MEMORY_EVERY_S = 0.05


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        seconds: of one attack.
        rate: streams a second of one attacker.
        ordinary_rate: calls a second of the ordinary caller.
        at_once: calls that come at once.
        channels: connections that they come over.
    """

    seconds: float
    rate: float
    ordinary_rate: float
    at_once: int
    channels: int


FULL = Plan(seconds=10.0, rate=1200.0, ordinary_rate=100.0, at_once=8000, channels=80)
QUICK = Plan(seconds=1.0, rate=300.0, ordinary_rate=20.0, at_once=1000, channels=20)


@dataclass(frozen=True)
class Attack:
    """Streams that an attacker opens.

    Attributes:
        method: full name.
        has_key: the attacker is a caller of the auth file.
        sends_requests: each stream gets an empty request; otherwise only headers.
        resets: each stream is cancelled as soon as it is open.
    """

    method: str
    has_key: bool = False
    sends_requests: bool = False
    resets: bool = False


HEADERS_ONLY = Attack(METHOD)
WITH_KEY = Attack(METHOD, has_key=True)
SESSIONS = Attack(SESSION, has_key=True)
SILENT_WATCHES = Attack(WATCH)
WATCHES = Attack(WATCH, sends_requests=True)
RESETS = Attack(METHOD, resets=True)
RESETS_WITH_KEY = Attack(METHOD, has_key=True, resets=True)
ATTACKS: Mapping[str, Sequence[Attack]] = {
    "nobody": (),
    "headers without a key": (HEADERS_ONLY,),
    "headers with a key": (WITH_KEY,),
    "sessions without a request, with a key": (SESSIONS,),
    "watches without a request": (SILENT_WATCHES,),
    "watches": (WATCHES,),
    "streams that are reset": (RESETS, RESETS_WITH_KEY),
    "all of these": (HEADERS_ONLY, WITH_KEY, SESSIONS, SILENT_WATCHES, WATCHES, RESETS, RESETS_WITH_KEY),
}


@contextmanager
def attacked(address: str, attacks: Sequence[Attack], key: str, plan: Plan) -> Iterator[list[dict[str, int]]]:
    """Run attackers while the block runs; what became of their streams is in the list afterwards."""
    counts: list[dict[str, int]] = []
    with ExitStack() as stack:
        attackers = []
        for attack in attacks:
            command = [sys.executable, "-m", "benchmarks.streams", address, attack.method, "--rate", str(plan.rate)]
            command += ["--seconds", str(plan.seconds)] + (["--token", key] if attack.has_key else [])
            command += ["--empty-request"] * attack.sends_requests + ["--resets"] * attack.resets
            attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
            stack.callback(attacker.kill)
            attackers.append(attacker)
        yield counts
        counts += [json.loads(attacker.communicate(timeout=plan.seconds + 60)[0]) for attacker in attackers]


def add_attacks(
    report: Report, server: Running, messages: Sequence[bytes], keys: Mapping[str, str], plan: Plan
) -> None:
    """Measure the ordinary caller beside each kind of attackers."""
    metadata = {"authorization": f"Bearer {keys['shop']}"}
    case = {"part": "attacks", "streams_per_s": plan.rate, "calls_per_s": plan.ordinary_rate, "k": K}
    missed = []
    for name, attacks in progress.track(ATTACKS.items(), "attacks", len(ATTACKS), "attacks"):
        with attacked(server.address, attacks, keys["attacker"], plan) as counts:
            outcome = wire.opened(
                server.address, METHOD, messages, rate=plan.ordinary_rate, seconds=plan.seconds, metadata=metadata,
                connections=1,
            )  # fmt: skip
        failures = outcome.statuses.total() - outcome.statuses["OK"]
        subject = f"beside {name}"
        report.add(case, subject, "calls", outcome.statuses.total())
        report.add(case, subject, "failures", failures)
        for percentile in (50, 99):
            report.add(case, subject, f"p{percentile}_ms", outcome.latency_ms(percentile))
        # The generator shares its core with the attackers; calls count from when they were due.
        report.add(case, subject, "sent_late_p99_ms", float(np.percentile(outcome.late_s, 99)) * 1000)
        for attack, count in zip(attacks, counts, strict=True):
            report.note(f"{subject}: {attack.method.rpartition('/')[2]} ended as {dict(count)}.")
        if failures or not outcome.latency_ms(99) < P99_BAR_MS:
            missed.append(f"{name} ({dict(outcome.statuses)}, p99 {outcome.latency_ms(99):.1f} ms)")
    report.note(
        f"Bar {'MISSED: beside ' + '; '.join(missed) if missed else 'met'}: every call of the ordinary caller is "
        f"answered, p99 under {P99_BAR_MS:g} ms wanted."
    )


def ends_at_once(address: str, request: bytes, key: str, count: int, channels: int) -> Counter[str]:
    """Send calls at once; return how many ended with which status, refusals of a full queue by their reason."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    metadata = (("authorization", f"Bearer {key}"),)
    ends: Counter[str] = Counter()
    with ExitStack() as stack:
        opened = [stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(channels)]
        for channel in opened:
            grpc.channel_ready_future(channel).result(AT_ONCE_TIMEOUT_S)
        ask = [channel.unary_unary(METHOD) for channel in opened]
        calls = [
            ask[place % channels].future(request, timeout=AT_ONCE_TIMEOUT_S, metadata=metadata)
            for place in range(count)
        ]
        for call in calls:
            ends[_end(call)] += 1
    return ends


def _end(call: grpc.Future) -> str:
    code = call.code().name
    status = rpc_status.from_call(call) if code != "OK" else None
    if status is None:
        return code
    kinds = {packed.TypeName(): packed for packed in status.details}
    info = error_details_pb2.ErrorInfo()
    kinds["google.rpc.ErrorInfo"].Unpack(info)
    return f"{code} {info.reason}" + (" with RetryInfo" if "google.rpc.RetryInfo" in kinds else "")


def add_at_once(report: Report, server: Running, request: bytes, key: str, plan: Plan) -> None:
    """Send thousands of calls at once, over a few and over many connections."""
    allowed = {"OK", f"RESOURCE_EXHAUSTED {OVERLOADED} with RetryInfo", "DEADLINE_EXCEEDED"}
    bare: Counter[str] = Counter()
    for channels in (1, plan.channels):
        memory, over = [load.memory_of(server.pid)[0]], threading.Event()

        def look(memory: list[int] = memory, over: threading.Event = over) -> None:
            while not over.wait(MEMORY_EVERY_S):
                memory.append(load.memory_of(server.pid)[0])

        watcher = threading.Thread(target=look)
        watcher.start()
        started = time.monotonic()
        ends = ends_at_once(server.address, request, key, plan.at_once, channels)
        took_s = time.monotonic() - started
        over.set()
        watcher.join()
        case = {"part": "at once", "calls": plan.at_once, "connections": channels}
        for end, count in sorted(ends.items()):
            report.add(case, end, "calls", count)
        report.add(case, "all", "seconds", took_s)
        report.add(case, "server", "grown_bytes", max(memory) - memory[0])
        bare.update({end: count for end, count in ends.items() if end not in allowed})
    report.note(
        f"Bar {f'MISSED: {dict(bare)}' if bare else 'met'}: each of {plan.at_once:,} calls at once ends with an answer "
        "or a refusal with RetryInfo."
    )


def main(
    release: Annotated[Path | None, typer.Option(help="A release; without it one is made in work/.")] = None,
    work: Annotated[Path, typer.Option(help="Keeps the release that is made.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder for the JSON and the table.")] = RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds, over a tiny catalogue.")] = False,
) -> None:
    """Attack a server while somebody uses it, and send it thousands of calls at once."""
    plan = QUICK if quick else FULL
    report = Report("admission-quick" if quick else "admission", distributions=("grpcio",))
    world = World.open(open_release(release) if release else release_at(0.95, work, quick=quick))
    messages, cores = nearest(world.queries["vector"], K), Cores.split(1)
    keys = {name: new_key() for name in ("shop", "attacker")}
    with ExitStack() as stack:
        stack.enter_context(on_cores(cores.generator))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        auth = scratch / "auth.toml"
        auth.write_text(
            "".join(
                f'[callers.{name}]\nrole = "read"\nkeys_sha256 = ["{digest_of(key)}"]\n' for name, key in keys.items()
            )
        )
        with on_cores(cores.server):
            started = running(world.release.folder, scratch, start_s=START_S, settings=[f"auth.file={auth}"])
            server = stack.enter_context(started)
        add_attacks(report, server, messages, keys, plan)
        add_at_once(report, server, messages[0], keys["shop"], plan)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
