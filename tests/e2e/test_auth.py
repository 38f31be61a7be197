"""Who is let in, as what, and how often, over real gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tomli_w
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.interceptors import Interceptors
from serving.interceptors.auth import Auth as CallerAuth
from serving.logs import make_logger
from serving.runtime.call_threads import Arrivals
from serving.runtime.deadlines import Deadlines
from serving.runtime.executors import Executors
from serving.server import Server
from serving.settings import Auth, ServerSettings, TelemetrySettings, Tls
from serving.telemetry.observation import Observation
from serving.trust.callers import Callers
from serving.trust.reloaded import Reloaded
from serving.trust.rules import RULES, Role
from tests.certificates import Authority
from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_wire import log_lines, refusal, running, stub
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import QuotaError, RequestError, SettingError, UnauthenticatedError
from twintower.types import Query
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import catalog_service_pb2_grpc as catalog_grpc
from twintower.v1 import event_service_pb2 as event_pb
from twintower.v1 import operator_service_pb2 as operator_pb
from twintower.v1 import operator_service_pb2_grpc as operator_grpc
from twintower.v1 import recommendation_service_pb2 as pb

EAST = Query(vector=np.array([1, 0], np.float32))
QUOTA = {"queries_per_s": 0.001, "burst": 3}


def caller(role: str, **more: Any) -> dict[str, Any]:
    """A caller whose key is `key of <role>`."""
    return {"role": role, "keys_sha256": [hashlib.sha256(f"key of {role}".encode()).hexdigest()], **more}


TABLES = {
    "callers": {
        "reader": caller("read"),
        "writer": caller("write"),
        "operator": caller("operate"),
        "guest": {"role": "read", "keys_sha256": [hashlib.sha256(b"guest").hexdigest()], "quota": QUOTA},
    }
}


@pytest.fixture
def auth(tmp_path) -> Auth:
    path = tmp_path / "auth.toml"
    path.write_text(tomli_w.dumps(TABLES))
    return Auth(file=path)


@pytest.fixture
def log() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture
def server(auth, log) -> Iterator[Server]:
    with running(ExactRetriever(), log=log, auth=auth) as up:
        yield up


@pytest.mark.parametrize("key", ["key of read", "key of write", "key of operate"])
def test_every_role_may_read_and_the_access_log_says_who_it_was(server, log, key):
    with Client(server.address, timeout_s=10.0, token=key) as client:
        assert client.nearest_items(EAST, k=1).item_ids == ("a",)
    [line] = log_lines(log, 1)
    assert TABLES["callers"][line["caller"]] == caller(key.removeprefix("key of "))
    assert key not in log.getvalue().decode()


@pytest.mark.parametrize("token", ["", "wrong", "key of nobody"])
def test_nobody_else_is_let_in_and_the_token_is_not_told(server, log, token):
    with Client(server.address, timeout_s=10.0, token=token) as client:
        for ask in (
            lambda: client.nearest_items(EAST, k=1),
            lambda: client.batch_nearest_items([EAST], k=1),
            lambda: client.search_vectors([[1, 0]], k=1),
            lambda: client.encode_query(EAST),
            lambda: client.reformulate(EAST, 1),
            lambda: client.release(),
            lambda: client.session(EAST, 1).reformulate(),
        ):
            with pytest.raises(UnauthenticatedError) as caught:
                ask()
            assert token == "" or token not in str(caught.value)
    lines = log_lines(log, 6)
    assert {line["code"] for line in lines} == {"UNAUTHENTICATED"}
    assert all(line["refusal"] for line in lines)
    assert token == "" or token not in log.getvalue().decode()


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "key of read"),),
        (("authorization", "Basic key of read"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer key of read"), ("authorization", "Bearer key of write")),
        (("authorization-bin", b"Bearer key of read"),),
        (("x-api-key", "key of read"),),
    ],
    ids=range(6),
)
def test_only_one_bearer_token_is_one(server, metadata):
    code, details = refusal(lambda: stub(server).GetRelease(pb.GetReleaseRequest(), metadata=metadata))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert set(details) == {error_details_pb2.ErrorInfo}
    assert details[error_details_pb2.ErrorInfo].reason == "UNAUTHENTICATED"


def test_the_asyncio_client_and_its_sessions_bring_the_token_too_and_may_fetch_it_for_each_call(server):
    tokens = iter(["key of read", "wrong", "wrong"])

    async def ask() -> tuple[str, ...]:
        async with AsyncClient(server.address, timeout_s=10.0, token=lambda: next(tokens)) as client:
            found = (await client.nearest_items(EAST, k=1)).item_ids
            with pytest.raises(UnauthenticatedError):
                await client.release()
            with pytest.raises(UnauthenticatedError):
                async with client.session(EAST, 1) as session:
                    await session.reformulate()
            return found

    assert asyncio.run(ask()) == ("a",)


def test_a_session_that_is_refused_says_so_also_where_its_first_round_meets_the_refusal(server):
    async def ask(client: AsyncClient) -> None:
        async with client.session(EAST, 1) as session:
            for _ in range(3):
                await asyncio.sleep(0)
            time.sleep(0.002)  # the loop is busy while the refusal comes in
            with pytest.raises(UnauthenticatedError):
                await session.reformulate()

    async def ask_at_once() -> None:
        async with AsyncClient(server.address, timeout_s=10.0, token="wrong") as client:
            for _ in range(10):
                await asyncio.gather(*(ask(client) for _ in range(20)))

    asyncio.run(ask_at_once())


@pytest.mark.parametrize("token", ["two\nlines", "ü"])
def test_a_token_that_is_none_is_not_sent_and_not_shown(token):
    with Client("127.0.0.1:1", token=token) as client, pytest.raises(SettingError) as caught:
        client.release()
    assert token not in str(caught.value)


def test_health_is_everybody_s_and_reflection_is_the_readers(server):
    with Client(server.address) as nobody:
        assert nobody.is_serving()
    channel = grpc.insecure_channel(server.address)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

    def listed(metadata: Any) -> list[Any]:
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        return list(reflection.ServerReflectionInfo(asked, timeout=5, metadata=metadata))

    assert refusal(lambda: listed(()))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert len(listed((("authorization", "bearer key of read"),))) == 1


def test_a_quota_counts_the_queries_of_a_batch_and_says_when_to_come_back(server):
    with Client(server.address, timeout_s=10.0, token="guest") as client:
        client.batch_nearest_items([EAST, EAST], k=1)
        client.nearest_items(EAST, k=1)
        with pytest.raises(QuotaError) as caught:
            client.nearest_items(EAST, k=1)
        # 3 - 2 - 1 = 0 are left, and one takes 1,000 s
        assert 900 < caught.value.retry_after_s <= 1000
    metadata = (("authorization", "Bearer guest"),)
    code, details = refusal(lambda: stub(server).GetRelease(pb.GetReleaseRequest(), metadata=metadata))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert set(details) == {error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo}
    assert details[error_details_pb2.ErrorInfo].reason == "QUOTA_EXCEEDED"
    with Client(server.address, timeout_s=10.0, token="key of read") as other:
        assert other.nearest_items(EAST, k=1).item_ids == ("a",)


def test_a_quota_counts_vectors(server):
    with Client(server.address, timeout_s=10.0, token="guest") as client:
        client.search_vectors([[1, 0]] * 3, k=1)
        with pytest.raises(QuotaError):
            client.nearest_items(EAST, k=1)


def test_every_round_of_a_session_counts(server):
    begin = pb.SessionRequest(begin=pb.ReformulateRequest(k=1, query=pb.Query(entity=pb.Entity())))
    metadata = (("authorization", "Bearer guest"),)
    with Client(server.address, timeout_s=10.0, token="guest") as client:
        client.batch_nearest_items([EAST] * 3, k=1)
    code, _ = refusal(lambda: list(stub(server).Session(iter([begin]), metadata=metadata)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_the_callers_mistake_and_not_logged_as_a_failure(server, log):
    channel = grpc.insecure_channel(server.address)
    metadata = (("authorization", "Bearer key of read"),)
    for path, kind in (("NearestItems", channel.unary_unary), ("Session", channel.stream_stream)):
        call = kind(f"/twintower.v1.RecommendationService/{path}")
        sent = b"\xff\xff" if path == "NearestItems" else iter([b"\xff\xff"])
        code, details = refusal(lambda call=call, sent=sent: list(call(sent, metadata=metadata)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details[error_details_pb2.BadRequest].field_violations[0].field == "request"
    assert {line["level"] for line in log_lines(log, 2)} == {"info"}


def test_every_method_of_every_service_has_a_rule_and_no_rule_is_of_a_method_that_is_not_there():
    files = (pb, catalog_pb, event_pb, operator_pb, health_pb2, reflection_pb2)
    methods = {
        f"/{service.full_name}/{method.name}": method
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(RULES) == set(methods)
    for name, rule in RULES.items():
        named = {rule.counted, *rule.shown} - {""}
        assert named <= set(methods[name].input_type.fields_by_name)
        assert not any("id" in field.split("_") or "ids" in field.split("_") for field in rule.shown)
    changing = {name for name, rule in RULES.items() if rule.audited}
    assert changing == {
        "/twintower.v1.CatalogService/UpsertItems",
        "/twintower.v1.CatalogService/DeleteItems",
        "/twintower.v1.OperatorService/ReloadRelease",
        "/twintower.v1.OperatorService/RollBackRelease",
    }


class Catalogue(catalog_grpc.CatalogServiceServicer):
    """Takes every change."""

    def UpsertItems(self, request: Any, context: grpc.ServicerContext) -> catalog_pb.UpsertItemsResponse:
        return catalog_pb.UpsertItemsResponse(sequence=1)

    def DeleteItems(self, request: Any, context: grpc.ServicerContext) -> catalog_pb.DeleteItemsResponse:
        raise RequestError("item_ids", "too many")

    def GetCatalog(self, request: Any, context: grpc.ServicerContext) -> catalog_pb.Catalog:
        return catalog_pb.Catalog()


class Operator(operator_grpc.OperatorServiceServicer):
    """Takes every operation, and has a method that stands in no table."""

    def ReloadRelease(self, request: Any, context: grpc.ServicerContext) -> operator_pb.ListReleasesResponse:
        return operator_pb.ListReleasesResponse()

    ListReleases = RollBackRelease = ReloadRelease


@pytest.fixture
def changing(auth: Auth, log: io.BytesIO) -> Iterator[grpc.Channel]:
    """A channel to a server of the two services that change something, and of one that no rule knows."""
    logger = make_logger(log)
    callers = Reloaded(lambda read: Callers(auth.file, read), "auth", logger)
    deadlines = Deadlines()
    observation = Observation(TelemetrySettings(), logger, deadlines)
    interceptors = Interceptors(logger, observation)
    arrivals = Arrivals(10.0, interceptors.refusal.behaviour, deadlines)
    executors = Executors(ServerSettings(), arrivals, deadlines, lambda count: None)
    up = grpc.server(executors.threads, interceptors=interceptors.around(executors, CallerAuth(callers)))
    catalog_grpc.add_CatalogServiceServicer_to_server(Catalogue(), up)
    operator_grpc.add_OperatorServiceServicer_to_server(Operator(), up)
    unknown = {"Do": grpc.unary_unary_rpc_method_handler(lambda request, context: b"done")}
    up.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("new.Service", unknown)])
    port = up.add_insecure_port("127.0.0.1:0")
    up.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    up.stop(None)
    deadlines.close()


def as_role(role: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer key of {role}"),)


@pytest.mark.parametrize("role", ["read", "write", "operate"])
def test_a_role_reaches_its_own_methods_and_those_of_lower_roles(changing, role):
    reach = {"read": Role.READ, "write": Role.WRITE, "operate": Role.OPERATE}[role]
    catalogue = catalog_grpc.CatalogServiceStub(changing)
    operator = operator_grpc.OperatorServiceStub(changing)
    asked = [
        (Role.WRITE, lambda: catalogue.UpsertItems(catalog_pb.UpsertItemsRequest(), metadata=as_role(role))),
        (Role.WRITE, lambda: catalogue.GetCatalog(catalog_pb.GetCatalogRequest(), metadata=as_role(role))),
        (Role.OPERATE, lambda: operator.ListReleases(operator_pb.ListReleasesRequest(), metadata=as_role(role))),
        (Role.OPERATE, lambda: operator.ReloadRelease(operator_pb.ReloadReleaseRequest(), metadata=as_role(role))),
    ]
    for needed, ask in asked:
        if reach >= needed:
            ask()
        else:
            code, details = refusal(ask)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert details[error_details_pb2.ErrorInfo].reason == "ROLE_TOO_LOW"


def test_a_method_without_a_rule_is_nobody_s(changing):
    do = changing.unary_unary("/new.Service/Do")
    assert refusal(lambda: do(b"", metadata=as_role("operate")))[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_change_leaves_a_line_of_who_what_how_many_and_how_it_ended_without_ids(changing, log):
    catalogue = catalog_grpc.CatalogServiceStub(changing)
    operator = operator_grpc.OperatorServiceStub(changing)
    items = [catalog_pb.UpsertItem(item_id=f"secret {place}") for place in range(3)]
    catalogue.UpsertItems(catalog_pb.UpsertItemsRequest(items=items), metadata=as_role("write"))
    deleted = catalog_pb.DeleteItemsRequest(item_ids=["secret 1", "secret 2"])
    assert refusal(lambda: catalogue.DeleteItems(deleted, metadata=as_role("write")))[0].name == "INVALID_ARGUMENT"
    reload = operator_pb.ReloadReleaseRequest(label="canary", release="x" * 1000)
    operator.ReloadRelease(reload, metadata=as_role("operate"))
    assert refusal(lambda: operator.ReloadRelease(reload))[0] is grpc.StatusCode.UNAUTHENTICATED
    catalogue.GetCatalog(catalog_pb.GetCatalogRequest(), metadata=as_role("write"))
    audited = [line for line in log_lines(log, 9) if line["event"] == "audit"]
    assert [
        (line.get("caller"), line["method"].rpartition("/")[2], line["count"], line["code"]) for line in audited
    ] == [
        ("writer", "UpsertItems", 3, "OK"),
        ("writer", "DeleteItems", 2, "INVALID_ARGUMENT"),
        ("operator", "ReloadRelease", 1, "OK"),
        (None, "ReloadRelease", 0, "UNAUTHENTICATED"),  # refused unread
    ]
    assert audited[2]["asked"] == {"label": "canary", "release": "x" * 128}
    assert "secret" not in log.getvalue().decode()


def test_a_removed_caller_is_not_let_in_any_more(server, auth):
    with Client(server.address, timeout_s=10.0, token="key of read") as client:
        client.release()
        kept = {name: each for name, each in TABLES["callers"].items() if name != "reader"}
        Path(auth.file).write_text(tomli_w.dumps({"callers": kept}))
        # the file is looked at once a second
        time.sleep(1.1)
        with pytest.raises(UnauthenticatedError):
            client.release()


def test_tokens_in_the_open_are_warned_of_where_others_can_see_them(auth, log):
    Server(ServerSettings(port=0, host="0.0.0.0", auth=auth), make_logger(log)).stop()
    assert [json.loads(line)["event"] for line in log.getvalue().splitlines()] == ["tokens travel in the open"]


def test_a_broken_auth_file_stops_the_start(tmp_path):
    with pytest.raises(SettingError, match=r"auth\.file: got .*absent"):
        Server(ServerSettings(port=0, auth=Auth(file=tmp_path / "absent.toml")), make_logger(io.BytesIO()))


def test_the_command_line_asks_with_a_new_key_over_an_encrypted_connection(tmp_path):
    def recsys(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "recsys.cli", *words]
        variables = {**os.environ, "COLUMNS": "200", **environment}
        return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)

    # given: a caller as the command writes it, and its key as the command shows it
    made = recsys("auth", "new-key", "shop")
    (tmp_path / "auth.toml").write_text(made.stdout)
    [key] = [line for line in made.stderr.splitlines() if line.startswith("rsk_")]
    assert key not in made.stdout
    (tmp_path / "token").write_text(f"{key}\n")
    authority = Authority.make()
    ca = str(authority.write(tmp_path / "ca.pem"))
    certificate, private = authority.issue(tmp_path)
    tls = Tls(certificate=certificate, key=private)
    with running(ExactRetriever(), tls=tls, auth=Auth(file=tmp_path / "auth.toml")) as server:
        asked = ("query", "--target", server.address, "--ca", ca, "--vector", "1,0", "-k", "1")
        answered = [recsys(*asked, "--token-file", str(tmp_path / "token")), recsys(*asked, RECSYS_TOKEN=key)]
        refused = recsys(*asked)
    assert [(done.returncode, "Thing a" in done.stdout) for done in answered] == [(0, True)] * 2
    assert refused.returncode == 2
    assert "authorization: got none, expected a token" in refused.stderr
