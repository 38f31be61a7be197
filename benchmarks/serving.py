"""The server under load: against an empty call of its own, over the offered load, when overrun, and beside its peers.

Server and load generator have a core each. `h2load` gives the rates; a generator of our own (`benchmarks.wire`) rotates
real queries, reads the status of every call and the ids of the answers, confirms the rates, and gives latencies. One
process is held to the bars; two are only reported, because they share the generator's core.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import typer

from benchmarks import load, wire
from benchmarks.cores import on_cores
from benchmarks.peers import environment, vector_search
from benchmarks.peers.vector_search import Found, Rows, Search, Task
from benchmarks.report import RESULTS, Report, Row, median_interval
from benchmarks.serving_world import FORMS, SERVICE, World, batches, nearest, release_at
from recsys import progress
from recsys.cli import one_message
from recsys.export.release import open_release
from recsys.indexes import ExactSearcher
from recsys.plots import figure
from recsys.retrieval import Retriever
from recsys.types import Float32
from serving import settings
from serving.process import Running, running
from serving.runtime.admission import HURRIED_EFFORT
from serving.settings import ServerSettings
from twintower import codecs as client_codecs
from twintower.client import Client
from twintower.coalescing import CoalescingClient
from twintower.types import Query
from twintower.v1 import recommendation_service_pb2 as pb

WORK = Path("work") / "bench-serving"
K, DEPTH, BATCH, BATCH_CALLERS = 10, 5, 200, 4
SINGLE_FORMS = {form: vector_search.FORMS[form] for form in vector_search.KINDS["single queries"]}
RECALLS = (0.95, 0.99)
START_S = 600.0
TIMEOUT_S = 1.0
"""The deadline of a call in the curve of latency: what our own client sets unless told otherwise."""
HALF = 0.5
CURVE = (0.1, 0.25, HALF, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)
OVERRUN = 5
SATURATED = 0.97
"""Share of the largest rate of a sweep that counts as saturated."""
EMPTY = "empty call"
EMPTY_AT_HALF = "empty call, as often as at half of saturation"
BARE = "empty call, bare grpc.server"
SINGLE = {form: f"NearestItems by {form}" for form in FORMS}
BATCHED = f"BatchNearestItems, {BATCH} vectors"
REFORMULATE = "Reformulate"
SHARES = {SINGLE["vector"]: 0.80, SINGLE["features"]: 0.60}
BATCH_BAR, RECALL_BAR, P99_BAR_MS, GOODPUT_BAR, PEER_BAR, REFORMULATE_BAR = 30_000, 0.95, 5.0, 0.90, 5.0, 2.2
CONFIRMED = 0.9
"""Share of the rate that the second client must count; it has to read what h2load drops."""
OURS, COALESCING = "ours", "ours, coalescing client"
PEERS = (environment.CHROMA, environment.MILVUS_LITE)
Case = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long each part takes.

    Attributes:
        rounds: blocks of each subject.
        block_s: seconds of one block.
        callers: numbers of callers that are tried for saturation.
        curve_s: seconds of one point of the curve.
        processes: numbers of server processes.
    """

    rounds: int
    block_s: float
    callers: Sequence[int]
    curve_s: float
    processes: Sequence[int]


FULL = Plan(rounds=11, block_s=3.0, callers=(1, 2, 4, 8, 16, 32, 64, 128), curve_s=15.0, processes=(1, 2))
QUICK = Plan(rounds=2, block_s=0.3, callers=(1, 8), curve_s=0.4, processes=(1,))


@dataclass(frozen=True)
class Call:
    """One kind of call to one server.

    Attributes:
        target: `host:port`.
        method: full name.
        messages: serialised requests.
        queries: in one of them.
    """

    target: str
    method: str
    messages: Sequence[bytes]
    queries: int = 1


@dataclass(frozen=True)
class Cores:
    """Where the server and its load run.

    Attributes:
        server: its cores.
        generator: those of what loads it; the same ones where the machine has only one.
    """

    server: set[int]
    generator: set[int]

    @staticmethod
    def split(processes: int) -> Cores:
        """Give the first core to the generator, and the last ones to the processes, one each while there are any."""
        usable = sorted(os.sched_getaffinity(0))
        return Cores(server=set(usable[-processes:]), generator={usable[0]})


def calls_of(server: Running, bare: str, world: World) -> dict[str, Call]:
    """Return what is measured in turns, by subject."""
    calls = {
        EMPTY: Call(server.address, "/grpc.health.v1.Health/Check", [b""]),
        BARE: Call(bare, "/bare.Bare/Call", [b""]),
    }
    for form, subject in SINGLE.items():
        calls[subject] = Call(server.address, f"{SERVICE}NearestItems", nearest(world.queries[form], K))
    size = min(BATCH, len(world.query_vectors))
    by_vector = world.queries["vector"]
    calls[BATCHED] = Call(server.address, f"{SERVICE}BatchNearestItems", batches(by_vector, K, size), size)
    asked = [
        pb.ReformulateRequest(
            query=client_codecs.query_to_proto(query), k=K, depth=DEPTH, feedback=pb.Feedback(pseudo=True)
        ).SerializeToString()
        for query in by_vector
    ]
    return calls | {REFORMULATE: Call(server.address, f"{SERVICE}Reformulate", asked)}


@contextmanager
def started(world: World, overrides: Sequence[str], processes: int, cores: Cores) -> Iterator[tuple[Running, str]]:
    """Run the server, and the empty one, on the server's cores while the block runs; yield one, the other's address."""
    given = [*overrides, *([f"processes={processes}"] if processes > 1 else [])]
    threads = settings.load(overrides=given).worker_threads
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with on_cores(cores.server):
            server = stack.enter_context(running(world.release.folder, scratch, start_s=START_S, settings=given))
            bare = stack.enter_context(load.bare_server(threads, scratch))
        yield server, bare


def measure(world: World, plan: Plan, overrides: Sequence[str], processes: int, report: Report) -> None:
    """Measure a server of so many processes: all of it for one process, the rates for more."""
    case = _case(world, processes)
    cores = Cores.split(processes)
    with on_cores(cores.generator), started(world, overrides, processes, cores) as (server, bare):
        calls = calls_of(server, bare, world)
        callers = saturating(calls[SINGLE["vector"]], plan)
        report.note(
            f"{processes} process(es) on core(s) {_listed(cores.server)}, load on {_listed(cores.generator)}; "
            f"{callers} callers, {BATCH_CALLERS} of batches."
        )
        add_rates(report, case, calls, callers, plan)
        peak = confirm(report, case, calls, callers, plan, world, server)
        if processes == 1:
            add_latency(report, case, calls[SINGLE["vector"]], calls[EMPTY], peak, plan)
            overrun(report, case, calls[SINGLE["vector"]], callers, plan, server)
            add_hurried(report, case, world)
        add_memory(report, case, server, "at the end")
        report.add({**case, "part": "memory"}, "start", "ready_s", server.start_s)


def saturating(call: Call, plan: Plan) -> int:
    """Return the least number of callers that gets nearly the largest rate."""
    rates = {callers: _rate(call, callers, plan) for callers in plan.callers}
    return min(callers for callers, rate in rates.items() if rate >= SATURATED * max(rates.values()))


def add_rates(report: Report, case: Case, calls: Mapping[str, Call], callers: int, plan: Plan) -> None:
    """Measure every kind of call in turns, the order turned round each time, and set each round in relation."""
    case = {**case, "part": "calls"}
    rates: dict[str, list[float]] = {subject: [] for subject in calls}
    for done in progress.track(range(plan.rounds), "rates", plan.rounds, "rounds"):
        for subject in list(calls)[:: 1 if done % 2 else -1]:
            asking = callers if calls[subject].queries == 1 else BATCH_CALLERS
            rates[subject].append(_rate(calls[subject], asking, plan))
    for subject, found in rates.items():
        report.add(case, subject, "calls_per_s", found)
        if subject in SINGLE.values():
            report.add(case, subject, "share_of_empty_call", _ratios(found, rates[EMPTY]))
            report.add(case, subject, "share_of_bare_call", _ratios(found, rates[BARE]))
    queries = calls[BATCHED].queries
    report.add(case, BATCHED, "queries_per_s", [rate * queries for rate in rates[BATCHED]])
    report.add(case, REFORMULATE, "cost_ratio", _ratios(rates[SINGLE["vector"]], rates[REFORMULATE]))


def confirm(
    report: Report, case: Case, calls: Mapping[str, Call], callers: int, plan: Plan, world: World, server: Running
) -> float:
    """Ask rotating queries with the second client: rate, statuses, and the recall of what was answered.

    Returns:
        Answered NearestItems by vector a second.
    """
    case, peak = {**case, "part": "calls"}, 0.0
    vectors = _encoded(server.address, world)
    for subject in (*SINGLE.values(), BATCHED):
        call = calls[subject]
        asking = callers if call.queries == 1 else BATCH_CALLERS
        told = wire.closed(call.target, call.method, call.messages, callers=asking, seconds=plan.block_s * 2)
        report.add(case, subject, "second_client_calls_per_s", told.goodput)
        report.add(
            case,
            subject,
            "second_client_failures",
            sum(told.statuses.values()) - told.statuses["OK"],
        )
        report.add(case, subject, "recall", _recall(world, vectors[subject], call, told.answers))
        if subject == SINGLE["vector"]:
            peak = told.goodput
    return peak


def add_hurried(report: Report, case: Case, world: World) -> None:
    """Measure what a search with less than its settled effort finds, and the time that it saves, without a server."""
    case = {**case, "part": "effort"}
    retriever, queries = Retriever.load(world.release.folder, verify=False), world.queries["vector"]
    for effort in (1.0, HURRIED_EFFORT):
        times = []
        for _ in range(5):
            started = time.process_time()
            answers = [retriever.nearest([query], K, effort=effort)[0] for query in queries]
            times.append(1e6 * (time.process_time() - started) / len(queries))
        subject = f"a query, effort {effort:g}"
        report.add(case, subject, "cpu_us", times)
        report.add(case, subject, "recall", world.recall(world.query_vectors, [each.item_ids for each in answers], K))


def add_latency(report: Report, case: Case, call: Call, empty: Call, peak: float, plan: Plan) -> None:
    """Measure latency over the offered load, and several times at half of the saturated one, in turns with empty calls.

    What an empty call takes at the same rate is the part that is not ours: gRPC, threads that wake, and the machine.
    """
    case = {**case, "part": "offered load"}
    for share in progress.track(CURVE, "latency", len(CURVE), "loads"):
        half = share == HALF
        asked = {f"{share:g} of saturation": call} | ({EMPTY_AT_HALF: empty} if half else {})
        told: dict[str, list[wire.Outcome]] = {subject: [] for subject in asked}
        for seed in range(plan.rounds if half else 1):
            for subject, each in asked.items():
                told[subject].append(
                    wire.opened(
                        each.target,
                        each.method,
                        each.messages,
                        rate=share * peak,
                        seconds=max(plan.block_s, plan.curve_s / 3) if half else plan.curve_s,
                        timeout_s=TIMEOUT_S,
                        seed=seed,
                    )
                )
        for subject, found in told.items():
            report.add(case, subject, "offered_per_s", share * peak)
            report.add(case, subject, "goodput_per_s", [each.goodput for each in found])
            report.add(case, subject, "p50_ms", [each.latency_ms(50) for each in found])
            report.add(case, subject, "p99_ms", [each.latency_ms(99) for each in found])
            failed = [1 - each.ok.sum() / sum(each.statuses.values()) for each in found]
            report.add(case, subject, "failure_rate", failed)
            late = [float(np.percentile(each.late_s, 99)) * 1000 for each in found]
            report.add(case, subject, "sent_late_p99_ms", late)


def overrun(report: Report, case: Case, call: Call, callers: int, plan: Plan, server: Running) -> None:
    """Ask with far more callers than saturate, between blocks of saturating ones."""
    case, kept, recovered, failures = {**case, "part": "overrun"}, [], [], 0
    add_memory(report, case, server, "before overrun")
    for _ in range(max(2, plan.rounds // 2)):
        before, during, after = (
            wire.closed(call.target, call.method, call.messages, callers=asking, seconds=plan.block_s)
            for asking in (callers, OVERRUN * callers, callers)
        )
        kept.append(during.goodput / before.goodput)
        recovered.append(after.goodput / before.goodput)
        failures += sum(during.statuses.values()) - during.statuses["OK"]
    subject = f"{OVERRUN} x saturating callers"
    report.add(case, subject, "goodput_kept", kept)
    report.add(case, subject, "goodput_after", recovered)
    report.add(case, subject, "failures", failures)


def add_memory(report: Report, case: Case, server: Running, when: str) -> None:
    """Add the memory of each process of the server."""
    for place, pid in enumerate(load.family(server.pid)):
        resident, proportional = load.memory_of(pid)
        report.add({**case, "part": "memory"}, f"process {place}, {when}", "rss_bytes", resident)
        report.add({**case, "part": "memory"}, f"process {place}, {when}", "pss_bytes", proportional)


def compare(world: World, plan: Plan, overrides: Sequence[str], work: Path, report: Report) -> None:
    """Measure our own Python client and those of the peers in the same forms, at equal recall."""
    queries = np.ascontiguousarray(world.query_vectors)
    vectors = np.array(world.item_vectors)
    exact = ExactSearcher(vectors).search(queries, K).scores
    rounds, cores = max(3, plan.rounds // 2), Cores.split(1)
    task = Task(vectors, queries, exact, RECALLS, plan.block_s, rounds)
    _add_limit(report, _case(world, 1), task, cores)
    found: dict[str, list[Found]] = {OURS: [], COALESCING: []}
    for target in RECALLS:
        for name, each in _ours(target, task, overrides, work, cores).items():
            found[name].append(each)
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("vectors", vectors), ("queries", queries), ("exact", exact)):
            np.save(Path(folder) / f"{name}.npy", array)
        told = {"targets": RECALLS, "seconds": plan.block_s, "rounds": rounds, "server_cores": sorted(cores.server)}
        for peer in PEERS:
            try:
                found[peer.peer] = _peer(peer, Path(folder), json.dumps(told), cores)
            except subprocess.CalledProcessError as error:
                report.note(f"Bar MISSED: {peer.peer} could not be measured: {error.stderr.strip()[-500:]}")
    for target in RECALLS:
        reached = {name: each for name, all_found in found.items() for each in all_found if each.target == target}
        _add_peers(report, {**_case(world, 1), "target_recall": target}, reached)


def _add_limit(report: Report, case: Case, task: Task, cores: Cores) -> None:
    """Measure what gRPC's own Python client gets of a server that does nothing: no client of it can be quicker."""
    with (
        on_cores(cores.generator),
        tempfile.TemporaryDirectory() as scratch,
        on_cores(cores.server),
        load.bare_server(ServerSettings().worker_threads, Path(scratch)) as bare,
        on_cores(cores.generator),
        grpc.insecure_channel(bare) as channel,
    ):
        call = channel.unary_unary("/bare.Bare/Call")

        def nothing(queries: np.ndarray) -> Rows:
            call(b"")
            return []

        for form, rates in vector_search.measured(task, nothing, SINGLE_FORMS).items():
            report.add({**case, "part": "limit"}, BARE, f"{form}_per_s", rates)


def _ours(target: float, task: Task, overrides: Sequence[str], work: Path, cores: Cores) -> dict[str, Found]:
    """Measure our server through our Python client; the index of another target is another release."""
    world = World.open(release_at(target, work, quick=False))
    with (
        on_cores(cores.generator),
        started(world, overrides, 1, cores) as (server, _),
        Client(server.address, timeout_s=60.0) as plain,
        CoalescingClient(server.address, timeout_s=60.0) as coalescing,
    ):

        def search_with(client: Client) -> Search:
            def search(queries: np.ndarray) -> Rows:
                if len(queries) == 1:
                    found = [client.nearest_items(Query(vector=queries[0]), K).item_ids]
                else:
                    found = client.search_vectors(queries, K).item_ids
                return [[world.rows[item_id] for item_id in item_ids] for item_ids in found]

            return search

        recall = task.recall(task.answered(search_with(plain)))
        measured = {
            OURS: vector_search.measured(task, search_with(plain)),
            COALESCING: vector_search.measured(task, search_with(coalescing), SINGLE_FORMS),
        }
        return {name: Found(target, world.index, recall, rates) for name, rates in measured.items()}


def _peer(peer: environment.Environment, folder: Path, told: str, cores: Cores) -> list[Found]:
    python = peer.python()
    print(f"{peer.peer}: measuring (some minutes)", flush=True)
    with on_cores(cores.generator):
        done = subprocess.run(
            [python, "-m", f"benchmarks.peers.{peer.peer}", folder, told],
            cwd=environment.ROOT,
            env=environment.variables(),
            check=True,
            capture_output=True,
            text=True,
        )
    return [Found(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def _add_peers(report: Report, case: Case, reached: Mapping[str, Found]) -> None:
    for name, found in reached.items():
        report.add(case, name, "recall", found.recall)
        for form, rates in found.queries_per_s.items():
            report.add(case, name, f"{form}_per_s", rates)
        report.note(f"{name} at recall {case['target_recall']}: {_shown(found.settings)}; recall {found.recall:.4f}.")
    ours = reached[OURS]
    for peer in (each.peer for each in PEERS):
        if peer not in reached:
            report.note(f"{peer} did not reach recall {case['target_recall']} with any setting, or was not measured.")
            continue
        theirs = reached[peer].queries_per_s
        for form, rates in theirs.items():
            ratio = _median(ours.queries_per_s[form]) / _median(rates)
            report.add(case, f"{OURS} / {peer}", f"{form}_per_s", ratio)
        equal = ours.recall >= case["target_recall"]
        for what, forms in vector_search.KINDS.items():
            (mine, how), (other, their_way) = (_best(reached, names, forms) for names in ((OURS, COALESCING), (peer,)))
            report.add(case, f"{OURS} / {peer}", f"{what}_throughput", mine / other)
            _judge(
                report,
                equal and mine / other >= PEER_BAR,
                f"at recall {case['target_recall']} (ours {ours.recall:.4f}) the throughput of {what} is "
                f"{mine / other:.1f} times that of {peer}, each at its best ({how}; {their_way}), wanted {PEER_BAR:g}.",
            )


def _best(reached: Mapping[str, Found], names: Sequence[str], forms: Sequence[str]) -> tuple[float, str]:
    """Return the largest of some rates, queries a second, and whose it is in which form."""
    rates = {
        f"{name}, {form}": _median(reached[name].queries_per_s[form])
        for name in names
        for form in forms
        if form in reached[name].queries_per_s
    }
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


def judge(report: Report, case: Case) -> None:
    """Hold the measurements of one process to the bars."""
    for subject, bar in SHARES.items():
        share, bare = (_row(report, case, subject, f"share_of_{call}_call") for call in ("empty", "bare"))
        _judge(
            report,
            share.value >= bar,
            f"{subject} reaches {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of the rate of the server's own "
            f"empty call, wanted {bar}; {bare.value:.3f} [{bare.low:.3f}, {bare.high:.3f}] of that of a grpc.server "
            "that does nothing.",
        )
    rate, recall = _row(report, case, BATCHED, "queries_per_s"), _row(report, case, BATCHED, "recall")
    _judge(
        report,
        rate.value >= BATCH_BAR and recall.value >= RECALL_BAR,
        f"{BATCHED}: {rate.value:,.0f} queries a second at recall {recall.value:.4f}, wanted {BATCH_BAR:,} at "
        f"{RECALL_BAR} or more.",
    )
    p99, empty = (_row(report, case, subject, "p99_ms") for subject in (f"{HALF:g} of saturation", EMPTY_AT_HALF))
    _judge(
        report,
        p99.value < P99_BAR_MS,
        f"p99 at half of the saturated load is {p99.value:.2f} ms [{p99.low:.2f}, {p99.high:.2f}], wanted less than "
        f"{P99_BAR_MS:g} ms; of empty calls, in turns and as often, {empty.value:.2f} ms [{empty.low:.2f}, "
        f"{empty.high:.2f}].",
    )
    kept = _row(report, case, f"{OVERRUN} x saturating callers", "goodput_kept")
    _judge(
        report,
        kept.value >= GOODPUT_BAR,
        f"with {OVERRUN} times the saturating callers the server keeps {kept.value:.3f} of its goodput, wanted "
        f"{GOODPUT_BAR} or more.",
    )
    cost = _row(report, case, REFORMULATE, "cost_ratio")
    _judge(
        report,
        cost.value <= REFORMULATE_BAR,
        f"Reformulate (pseudo feedback, depth {DEPTH}, attention, guard) takes {cost.value:.2f} of the time of "
        f"NearestItems, wanted {REFORMULATE_BAR} or less.",
    )
    for subject in (*SINGLE.values(), BATCHED):
        mine = _row(report, case, subject, "calls_per_s").value
        second = _row(report, case, subject, "second_client_calls_per_s").value
        failures = _row(report, case, subject, "second_client_failures").value
        word = "confirmed" if failures == 0 and second >= CONFIRMED * mine else "NOT confirmed"
        counted = f"the second client counts {second / mine:.2f} of the rate and {failures:.0f} failures"
        report.note(f"{subject}: {word}, {counted}.")


def draw(report: Report, case: Case, file: Path) -> None:
    """Draw latency and goodput over the offered load."""
    points = [(share, f"{share:g} of saturation") for share in CURVE]
    offered = [_row(report, case, subject, "offered_per_s").value for _, subject in points]
    picture = figure(8, 4)
    latency, goodput = picture.subplots(1, 2)
    for metric, label in (("p50_ms", "median"), ("p99_ms", "99th percentile")):
        latency.plot(offered, [_row(report, case, subject, metric).value for _, subject in points], "o-", label=label)
    latency.axhline(P99_BAR_MS, color="grey", linewidth=0.8, linestyle=":")
    latency.set(xlabel="calls offered a second", ylabel="milliseconds from when a call was due", yscale="log")
    latency.legend()
    answered = [_row(report, case, subject, "goodput_per_s").value for _, subject in points]
    goodput.plot(offered, answered, "o-", label="answered")
    goodput.plot(offered, offered, color="grey", linewidth=0.8, linestyle=":", label="offered")
    goodput.set(xlabel="calls offered a second", ylabel="calls answered within their deadline a second", ylim=(0, None))
    goodput.legend()
    picture.savefig(file, dpi=120)


def _case(world: World, processes: int) -> dict[str, Any]:
    items, dim = world.item_vectors.shape
    run = world.release.facts.run
    return {"release": run, "items": items, "dim": dim, "k": K, "processes": processes}


def _rate(call: Call, callers: int, plan: Plan) -> float:
    return load.calls_per_s(call.target, call.method, call.messages, callers=callers, seconds=plan.block_s)


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [much / little for much, little in zip(above, below, strict=True)]


def _encoded(address: str, world: World) -> dict[str, Float32]:
    """Return the vectors that the server searches with, by subject."""
    with Client(address, timeout_s=60.0) as client:
        encoded = {
            SINGLE[form]: np.stack([client.encode_query(query).vector for query in world.queries[form]])
            for form in ("entity", "features")
        }
    return {SINGLE["vector"]: world.query_vectors, BATCHED: world.query_vectors, **encoded}


def _recall(world: World, vectors: Float32, call: Call, answers: Mapping[int, bytes]) -> float:
    """Return the recall of the answers, by the place of their request."""
    rows, found = [], []
    for place, answer in sorted(answers.items()):
        if call.queries == 1:
            results = [pb.NearestItemsResponse.FromString(answer).result]
        else:
            results = pb.BatchNearestItemsResponse.FromString(answer).results
        rows.extend(range(place * call.queries, (place + 1) * call.queries))
        found.extend(list(each.item_ids) for each in results)
    return world.recall(vectors[rows], found, K)


def _row(report: Report, case: Case, subject: str, metric: str) -> Row:
    """Return a row by what its case has among other things."""
    return next(
        row
        for row in report.rows
        if case.items() <= row.case.items() and (row.subject, row.metric) == (subject, metric)
    )


def _judge(report: Report, met: bool, sentence: str) -> None:
    report.note(f"Bar {'met' if met else 'MISSED'}: {sentence}")


def _median(samples: Sequence[float]) -> float:
    return median_interval(samples)[0]


def _shown(parameters: Mapping[str, Any]) -> str:
    texts = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in parameters.items()}
    return ", ".join(f"{name} {value}" for name, value in texts.items())


def _listed(cores: set[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tiny release, short blocks, no peers.")] = False,
    peers: Annotated[
        bool, typer.Option(help="Also measure Chroma and Milvus Lite, in environments of their own.")
    ] = True,
    overrides: Annotated[list[str], typer.Option("--set", help="A setting of the server, key=value.")] = [],  # noqa: B006
    rounds: Annotated[int | None, typer.Option(min=1, help="Blocks of each subject; 11, or 2 with --quick.")] = None,
    block_s: Annotated[float | None, typer.Option(min=0.1, help="Seconds of a block; 3, or 0.3 with --quick.")] = None,
    release: Annotated[Path | None, typer.Option(help="Measure this release instead, without peers.")] = None,
    work: Annotated[Path, typer.Option(help="Where the releases are kept.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure the server; write `<results>/serving.json`, `serving.md` and `serving.png`."""
    name = "serving-quick" if quick else "serving"
    report = Report(name, ("grpcio", "protobuf", "numpy", "scann", "tensorflow"))
    plan = QUICK if quick else FULL
    given = {"rounds": rounds, "block_s": block_s}
    plan = dataclasses.replace(plan, **{key: value for key, value in given.items() if value is not None})
    world = World.open(open_release(release) if release else release_at(RECALLS[0], work, quick=quick))
    report.note(f"The release's index: {_shown(world.index)}.")
    report.note(f"Settings of the server: {', '.join(overrides) or 'defaults'}.")
    for processes in plan.processes:
        if processes > 1 and not hasattr(ServerSettings(), "processes"):
            report.note(f"{processes} processes were not measured: this server knows one.")
            continue
        measure(world, plan, overrides, processes, report)
    case = _case(world, 1)
    judge(report, case)
    if quick or release or not peers:
        report.note("Chroma and Milvus Lite were left out.")
    else:
        compare(world, plan, overrides, work, report)
    report.note(_how())
    results.mkdir(parents=True, exist_ok=True)
    draw(report, case, results / f"{name}.png")
    print(report.write(results).read_text(encoding="utf-8"))


def _how() -> str:
    tool = "the second client (h2load is not installed)" if load.H2LOAD is None else "h2load"
    return (
        f"calls_per_s by {tool}, closed loop, all subjects in turns; shares and cost_ratio are of one round each. The "
        "empty call is grpc.health.v1.Health/Check of the same process, through the same interceptors, but on a thread "
        "of its own; short calls go together where they arrive, and can be quicker. The bare grpc.server answers "
        "with no bytes, in a process of its own with grpcio's threads. "
        f"Latency is of an open loop (Poisson), from when a call was due, with a deadline of {TIMEOUT_S:g} s; "
        "sent_late is the generator's own delay, a part of it."
    )


if __name__ == "__main__":
    with one_message():
        typer.run(main)
