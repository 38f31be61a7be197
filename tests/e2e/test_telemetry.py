"""What a real server tells of itself: metrics, spans, recall, log lines, readiness."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import json
import os
import queue
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from recsys.export.release import Release
from recsys.retrieval import Answer, Retriever
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings
from tests.e2e.exact_retriever import FINGERPRINT, ExactRetriever, GatedRetriever
from tests.e2e.test_wire import ALONE, EAST, SERVICE, health, running
from twintower.client import Client
from twintower.errors import RequestError, SettingError
from twintower.types import NO_DIVERSITY, Diversity, FeedbackItem, FeedbackKind, Query
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc


def samples(address: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return what `/metrics` says now: labels and values by sample name."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(address: str, sample: str, /, **labels: str) -> float:
    """Return the sum of the samples of a name that have these labels."""
    return sum(found for has, found in samples(address).get(sample, ()) if labels.items() <= has.items())


def eventually(true: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def measured(retriever: Any = None, **telemetry: Any) -> Iterator[tuple[Server, str, Client]]:
    """A server with metrics, their address, and a client."""
    telemetry = {"metrics_port": 0, "recall_rate": 0.0, **telemetry}
    with running(retriever, telemetry=telemetry) as server, Client(server.address, timeout_s=20.0) as client:
        yield server, server.observation.metrics_address, client


def test_calls_are_counted_by_rpc_release_plan_and_code():
    with measured(ExactRetriever()) as (_, metrics, client):
        client.nearest_items(Query(vector=EAST), k=1)
        client.nearest_items(Query(features={}), k=1)
        client.batch_nearest_items([Query(vector=EAST), Query(features={})], k=1)
        with pytest.raises(RequestError):
            client.nearest_items(Query(vector=EAST), k=0)
        counts = {
            (labels["rpc"], labels["release"], labels["plan"], labels["code"]): count
            for labels, count in samples(metrics)["recsys_rpc_duration_seconds_count"]
        }
        release = FINGERPRINT[:12]
        assert counts == {
            ("NearestItems", release, "index", "OK"): 1,
            ("NearestItems", release, "popularity", "OK"): 1,
            ("BatchNearestItems", release, "mixed", "OK"): 1,
            ("NearestItems", release, "", "INVALID_ARGUMENT"): 1,
        }
        # two single calls, searched by themselves, and one of two queries
        assert value(metrics, "recsys_batch_queries_sum") == 1 + 1 + 2
        assert value(metrics, "recsys_batch_queries_count") == 3
        assert value(metrics, "recsys_release_info", release=release, name="exact-0123456789ab") == 1


def test_a_latency_lies_in_the_bucket_of_its_seconds():
    # given: a call that takes 0.3 s at least
    retriever = GatedRetriever()
    with measured(retriever) as (_, metrics, client), concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.nearest_items, ALONE, k=1)
        assert retriever.entered.wait(10)
        time.sleep(0.3)
        retriever.gate.set()
        call.result(10)
        name = "recsys_rpc_duration_seconds_bucket"
        assert value(metrics, name, rpc="NearestItems", le="0.25") == 0
        assert value(metrics, name, rpc="NearestItems", le="10.0") == 1
        assert 0.3 <= value(metrics, "recsys_rpc_duration_seconds_sum", rpc="NearestItems") < 10


def test_calls_in_flight_are_told_and_how_many_of_them_wait():
    # given: one thread, held by a call, and two calls that wait for it
    retriever = GatedRetriever()
    telemetry = {"metrics_port": 0, "recall_rate": 0.0}
    with (
        running(retriever, worker_threads=1, telemetry=telemetry) as server,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
        Client(server.address, timeout_s=20.0) as client,
    ):
        calls = [pool.submit(client.nearest_items, ALONE, k=1) for _ in range(3)]
        metrics = server.observation.metrics_address
        eventually(lambda: value(metrics, "recsys_queue_depth_calls") == 2)
        assert value(metrics, "recsys_rpcs_in_flight", rpc="NearestItems") == 3
        retriever.gate.set()
        assert [call.result(10).item_ids for call in calls] == [("a",)] * 3
        eventually(lambda: value(metrics, "recsys_queue_depth_calls") == 0)
        eventually(lambda: value(metrics, "recsys_rpcs_in_flight", rpc="NearestItems") == 0)


def test_nothing_that_a_caller_chose_stands_in_a_label():
    with measured(ExactRetriever()) as (server, metrics, client):
        client.nearest_items(Query(entity_id="Zoë", excluded_ids=["ü"]), k=1)
        with pytest.raises(RequestError):
            client.nearest_items(Query(features={"no such": "secret"}), k=1)
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{SERVICE}/Secret")(b"", metadata=[("x-request-id", "secret")])
        labels = {each for found in samples(metrics).values() for has, _ in found for each in has.values()}
    assert {each for each in labels if any(word in each.lower() for word in ("zoë", "ü", "such", "secret"))} == set()


def test_feedback_and_the_guard_are_counted(block_release):
    vector = np.load(block_release.folder / "item_embeddings.npy")[0]
    with measured(Retriever.load(block_release.folder)) as (_, metrics, client):
        liked = [FeedbackItem(f"item-ü{row}", FeedbackKind.LIKED) for row in (2, 4)]
        client.reformulate(Query(vector=vector), 5, liked, reformulator="rocchio")
        client.reformulate(Query(vector=vector), 5, pseudo=True, depth=3)
        # 2 liked items, then 3 first results
        assert value(metrics, "recsys_feedback_items_sum") == 5
        assert value(metrics, "recsys_feedback_items_count") == 2
        # the liked items are left out of the first answer
        for plan in ("over_fetch", "index"):
            assert value(metrics, "recsys_rpc_duration_seconds_count", rpc="Reformulate", plan=plan, code="OK") == 1


class Forgetful(ExactRetriever):
    """Never finds the best item, unless it is to search exactly."""

    def nearest(
        self, queries: Sequence[Query], k: int, diversity: Diversity = NO_DIVERSITY, *, exact: bool = False, **how: Any
    ) -> list[Answer]:
        found = super().nearest(queries, k if exact else k + 1)
        if exact:
            return found
        return [replace(each, item_ids=each.item_ids[1:], scores=each.scores[1:]) for each in found]


def test_the_recall_of_live_answers_is_measured_beside_the_calls():
    with measured(Forgetful(), recall_rate=1.0) as (_, metrics, client):
        # exact: a, c, b; answered: c, b, ü: two of three are there
        assert client.nearest_items(Query(vector=EAST), k=3).item_ids == ("c", "b", "ü")
        client.nearest_items(Query(features={}), k=3)  # popular items are not searched, and not measured
        client.batch_nearest_items([Query(vector=EAST)] * 2, k=3)  # one of the two
        eventually(lambda: value(metrics, "recsys_live_recall_count", release=FINGERPRINT[:12]) == 2)
        assert value(metrics, "recsys_live_recall_sum") == pytest.approx(4 / 3)


def test_the_recall_of_vectors_that_are_searched_at_once_is_measured_too():
    with measured(Forgetful(), recall_rate=1.0) as (_, metrics, client):
        # exact: a, c and b, c; answered: c, b and c, a: of each one of two is there
        assert client.search_vectors([[1, 0], [0, 1]], k=2).item_ids == (("c", "b"), ("c", "a"))
        eventually(lambda: value(metrics, "recsys_live_recall_count", release=FINGERPRINT[:12]) == 1)
        assert value(metrics, "recsys_live_recall_sum") == pytest.approx(1 / 2)


def test_the_recall_of_exact_answers_of_a_real_release_is_one(block_release):
    with measured(Retriever.load(block_release.folder), recall_rate=1.0) as (_, metrics, client):
        for user in range(5):
            client.nearest_items(Query(entity_id=f"user {user}"), k=5)
        eventually(lambda: value(metrics, "recsys_live_recall_count") == 5)
        assert value(metrics, "recsys_live_recall_sum") == 5
        assert value(metrics, "recsys_release_certified_recall") == block_release.facts.index_recall
        assert value(metrics, "recsys_release_items") == 40


class Unmeasurable(ExactRetriever):
    """Cannot be searched exactly."""

    def nearest(
        self, queries: Sequence[Query], k: int, diversity: Diversity = NO_DIVERSITY, *, exact: bool = False, **how: Any
    ) -> list[Answer]:
        if exact:
            raise RuntimeError("no")
        return super().nearest(queries, k)


def test_a_sample_that_cannot_be_searched_again_is_counted_and_ends_nothing():
    with measured(Unmeasurable(), recall_rate=1.0) as (_, metrics, client):
        for _ in range(2):
            client.nearest_items(Query(vector=EAST), k=3)
        eventually(lambda: value(metrics, "recsys_live_recall_dropped_total") == 2)


def test_releases_that_were_served_long_ago_are_forgotten():
    with measured() as (server, metrics, client):
        for number in range(20):
            retriever = ExactRetriever()
            manifest = dataclasses.replace(retriever.release.manifest, fingerprint=f"{number:02}" * 32)
            retriever.release = Release(Path(f"exact-{number:02}"), manifest)
            server.install(retriever)
            client.nearest_items(Query(vector=EAST), k=1)
        known = {labels["release"] for labels, _ in samples(metrics)["recsys_rpc_duration_seconds_count"]}
        assert known == {f"{number:02}" * 6 for number in range(4, 20)}


def test_without_a_port_nothing_listens_and_nothing_is_imported():
    code = "import sys, serving.bootstrap; print({'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
    with running(ExactRetriever()) as server:
        assert server.observation.metrics_address == ""


def test_a_port_of_the_metrics_that_is_taken_is_a_wrong_setting():
    with measured() as (_, metrics, _client):
        port = int(metrics.rpartition(":")[2])
        with pytest.raises(SettingError, match=rf"telemetry\.metrics_port: got .*{port}"):
            Server(ServerSettings(port=0, telemetry={"metrics_port": port}), make_logger(sys.stderr.buffer))


WORKER = """
import sys
from pathlib import Path
from serving.settings import TelemetrySettings
from serving.telemetry.exposition import expose
from serving.telemetry.calls import Call
from serving.telemetry.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.observe(Call("/s/NearestItems", "", plan="index", code="OK", duration_s=0.002))
if sys.argv[2] == "shows":
    print(expose(metrics.registry, TelemetrySettings(metrics_port=0)).address, flush=True)
else:
    print("ready", flush=True)
sys.stdin.read()
"""


def test_one_port_shows_all_worker_processes_of_a_server(tmp_path):
    command, pipes = (
        [sys.executable, "-c", WORKER, str(tmp_path)],
        {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    workers = [subprocess.Popen([*command, role], text=True, **pipes) for role in ("hides", "shows")]
    try:
        _, metrics = (worker.stdout.readline().strip() for worker in workers)
        assert value(metrics, "recsys_rpc_duration_seconds_count", rpc="NearestItems") == 2
        # two Python processes with NumPy and gRPC: more than 20 MB each
        assert value(metrics, "process_resident_memory_bytes") > 40e6
        assert len(samples(metrics)["process_resident_memory_bytes"]) == 1
        assert value(metrics, "process_start_time_seconds") == pytest.approx(time.time(), abs=120)
    finally:
        for worker in workers:
            worker.communicate(timeout=20)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


def test_a_traced_call_has_a_span_and_its_stages_have_spans_below_it(block_release):
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    vector = np.load(block_release.folder / "item_embeddings.npy")[0]
    with collecting() as (collector, endpoint):
        telemetry = {"traces_endpoint": endpoint, "traces_rate": 0.0}
        with running(Retriever.load(block_release.folder), telemetry=telemetry) as server:
            with Client(server.address, timeout_s=20.0) as client:
                client.nearest_items(Query(vector=vector), k=3)  # nobody traces this one
            with grpc.insecure_channel(server.address) as channel:
                query = pb.Query(items=pb.Items(item_ids=["item-ü0"]))
                feedback = pb.Feedback(pseudo=True)
                request = pb.ReformulateRequest(query=query, k=3, feedback=feedback, depth=2)
                sent = [("traceparent", f"00-{trace_id}-{caller}-01"), ("x-request-id", "one")]
                pb_grpc.RecommendationServiceStub(channel).Reformulate(request, metadata=sent, timeout=20)
        # the server has stopped: it sent what there was
        spans = [collector.spans.get(timeout=10) for _ in range(5)]
        assert collector.spans.empty()
    (call,) = [span for span in spans if span.name == f"{SERVICE}/Reformulate"]
    assert {span.trace_id.hex() for span in spans} == {trace_id}
    assert call.parent_span_id.hex() == caller
    stages = [span for span in spans if span is not call]
    assert {span.parent_span_id for span in stages} == {call.span_id}
    # the query's vector, the first search, the move, the second search
    stages.sort(key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == ["encode", "search", "reformulate", "search"]
    told = {each.key: each.value.string_value or each.value.int_value for each in call.attributes}
    assert (told["rpc.method"], told["rpc.grpc.status_code"], told["recsys.request_id"]) == ("Reformulate", 0, "one")
    assert told["recsys.release"] == block_release.name


def test_a_collector_that_is_not_there_holds_nothing_up():
    telemetry = {"traces_endpoint": "http://127.0.0.1:1", "traces_rate": 1.0}
    log = io.BytesIO()
    with (
        running(ExactRetriever(), log=log, telemetry=telemetry) as server,
        Client(server.address, timeout_s=5.0) as client,
    ):
        assert client.nearest_items(Query(vector=EAST), k=1).item_ids == ("a",)
        started = time.monotonic()
    assert time.monotonic() - started < 15
    # what OpenTelemetry says of it is a line like every other
    assert {json.loads(line)["event"] for line in log.getvalue().splitlines()} == {"call", "tracing"}


def test_a_reader_that_never_empties_the_pipe_of_the_log_does_not_stall_the_calls(block_release, tmp_path):
    # given: a server whose log goes into a pipe of 64 KiB that nobody reads; a line has 200 bytes
    port = tmp_path / "port"
    command = [sys.executable, "-m", "serving", str(block_release.folder), "--port", "0", "--port-file", str(port)]
    options = ["--set", "telemetry.max_log_lines=100", "--set", "telemetry.metrics_port=0"]
    server = subprocess.Popen([*command, *options], stderr=subprocess.PIPE)
    try:
        eventually(port.is_file, within_s=120.0)
        ready = next(json.loads(line) for line in server.stderr if b'"serving"' in line)
        with Client(f"127.0.0.1:{port.read_text().strip()}", timeout_s=20.0) as client:
            # when: 120 KB of lines
            for _ in range(600):
                client.encode_query(Query(vector=np.ones(8, np.float32)))
        # then: all were answered; what did not fit was dropped, and counted
        eventually(lambda: value(ready["metrics"], "recsys_log_lines_dropped_total") > 0)
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()


def test_a_share_of_good_calls_is_logged_and_every_bad_one():
    log = io.BytesIO()
    with (
        running(ExactRetriever(), log=log, telemetry={"access_log_rate": 0.0}) as server,
        Client(server.address, timeout_s=20.0) as client,
    ):
        client.nearest_items(Query(vector=EAST), k=1)
        with pytest.raises(RequestError):
            client.nearest_items(Query(vector=EAST), k=0)
    assert [json.loads(line)["code"] for line in log.getvalue().splitlines()] == ["INVALID_ARGUMENT"]


def test_a_service_is_ready_when_it_answers_and_the_process_lives_before_that():
    with running(telemetry={"metrics_port": 0, "recall_rate": 0.0}) as server:
        metrics = server.observation.metrics_address
        assert [health(server, name) for name in ("", SERVICE)] == ["NOT_SERVING"] * 2
        assert health(server, "grpc.health.v1.Health") == "SERVING"
        assert value(metrics, "recsys_ready", service=SERVICE) == 0
        server.install(ExactRetriever())
        assert [health(server, name) for name in ("", SERVICE)] == ["SERVING"] * 2
        assert value(metrics, "recsys_ready", service=SERVICE) == 1


def test_a_check_of_a_service_that_does_not_exist_is_not_found():
    with running(ExactRetriever()) as server, grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest(service="none"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def top(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recsys.cli", "top", *words]
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_top_shows_what_happened_between_two_looks():
    with measured(ExactRetriever(), recall_rate=1.0) as (_, metrics, client):
        client.nearest_items(Query(vector=EAST), k=1)
        eventually(lambda: value(metrics, "recsys_live_recall_count") == 1)
        done = top(metrics, "--once", "--every", "0.1")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    assert ["ready", "yes"] in rows
    assert ["NearestItems", "0.0", "0.0", "-", "-"] in rows  # none since the first look
    assert ["OK", "0.0", "1"] in rows
    assert ["exact-0123456789ab", "brute_force", "4", "0.0", "-", "1.0000", "1.0000"] in rows


def test_top_says_in_one_sentence_that_nobody_answers_or_somebody_else_does():
    with running(ExactRetriever()) as server:
        for address in ("127.0.0.1:1", "nonsense:", server.address):
            done = top(address, "--once")
            assert done.returncode == 2
            assert address in done.stderr
            assert "Traceback" not in done.stderr
