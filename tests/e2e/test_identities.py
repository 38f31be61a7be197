"""Any text in any identity: it is refused or escaped, a line of the log is always there, and no call fails by it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.streams import Streams
from serving.settings import Auth
from serving.trust.rules import NEAREST_ITEMS
from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_admission import eventually
from tests.e2e.test_wire import EAST, log_lines, running
from twintower.client import Client
from twintower.types import ExperimentUnit, Query
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import catalog_service_pb2_grpc as catalog_grpc
from twintower.v1 import recommendation_service_pb2 as pb

KEY = ec.generate_private_key(ec.SECP256R1())
ODD = {
    "half of a character": "\ud800",
    "NUL": "a\0b",
    "newline": 'a\n{"event": "forged"}',
    "escape sequence": "a\x1b[31mb",
    "mark of direction": "a\u202eb",
    "long": "x" * 5000,
    "empty": "",
}
KINDS = ("x-request-id", "user-agent", "authorization", "traceparent", "x-other", "x-other-bin")


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    key = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key()))
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key]}))
    issuer = {"issuer": "https://login", "audience": "recsys", "algorithms": ["ES256"], "keys": "jwks.json"}
    (tmp_path / "auth.toml").write_text(tomli_w.dumps({"jwt": issuer}))
    return Auth(file=tmp_path / "auth.toml")


def token(subject: str) -> str:
    claims = {"sub": subject, "iss": "https://login", "aud": "recsys", "exp": time.time() + 600, "role": "operate"}
    return jwt.encode(claims, KEY, "ES256")


@pytest.mark.parametrize("subject", [*ODD.values(), "Zoë", "石川"], ids=[*ODD, "a letter", "letters"])
def test_any_subject_of_a_jwt_leaves_an_audit_line_and_never_an_internal_text(auth, subject):
    log = io.BytesIO()
    is_name = subject in ("Zoë", "石川")
    with running(ExactRetriever(), auth=auth, log=log) as server, grpc.insecure_channel(server.address) as channel:
        metadata = (("authorization", f"Bearer {token(subject)}"),)
        upsert = catalog_grpc.CatalogServiceStub(channel).UpsertItems
        with pytest.raises(grpc.RpcError) as caught:
            upsert(catalog_pb.UpsertItemsRequest(items=[catalog_pb.UpsertItem(item_id="a")]), metadata=metadata)
        assert caught.value.code().name == ("FAILED_PRECONDITION" if is_name else "UNAUTHENTICATED")
        audit, line = sorted(log_lines(log, 2), key=lambda line: line["event"])
    assert (audit["event"], line["event"]) == ("audit", "call")
    for each in (audit, line):
        assert each["code"] == caught.value.code().name
        assert each.get("caller") == (f"jwt:{subject}" if is_name else None)
    assert log.getvalue().isascii()


@pytest.fixture(scope="module")
def open_server() -> Iterator[tuple[Any, io.BytesIO]]:
    log = io.BytesIO()
    with running(ExactRetriever(), log=log, telemetry={"metrics_port": 0}) as server:
        yield server, log


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KINDS), st.binary(max_size=200) | st.text(max_size=50).map(str.encode)))
def test_any_bytes_in_metadata_leave_one_line_of_json_for_the_call(open_server, metadata):
    server, log = open_server
    before = log.getvalue().count(b"\n")
    request = pb.NearestItemsRequest(k=1)
    request.query.vector.values.values.extend(EAST)
    streams = Streams(server.address)
    status = streams.wait(streams.open(NEAREST_ITEMS, metadata, request.SerializeToString()))
    streams.close()
    # gRPC itself refuses what is no header of HTTP/2, before the server sees a call
    assert status in ("OK", "") or not streams.is_open or status == "INTERNAL"
    if status == "OK":
        assert eventually(lambda: log.getvalue().count(b"\n") > before)
    written = log.getvalue()
    assert written.isascii()
    assert [json.loads(line)["event"] for line in written.splitlines()] == ["call"] * written.count(b"\n")


@pytest.mark.parametrize("name", [name for name in ODD if name != "half of a character"])
def test_any_user_and_session_is_answered_or_refused_by_its_rule(open_server, name):
    server, log = open_server
    text = ODD[name]
    with grpc.insecure_channel(server.address) as channel:
        request = pb.NearestItemsRequest(k=1, unit=pb.Unit(user_id=text, session_id=text))
        request.query.vector.values.values.extend(EAST)
        ask = channel.unary_unary(NEAREST_ITEMS, pb.NearestItemsRequest.SerializeToString)
        call = ask.future(request, timeout=20)
        assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
        pinned = pb.NearestItemsRequest(k=1, release_pin=text or "none")
        call = ask.future(pinned, timeout=20)
        assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert log.getvalue().isascii()


def test_the_client_refuses_a_user_that_no_text_can_be(open_server):
    server, _ = open_server
    with Client(server.address) as client, pytest.raises(Exception, match="user_id"):
        client.nearest_items(Query(vector=EAST), 1, unit=ExperimentUnit(user_id="\ud800"))
