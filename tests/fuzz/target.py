"""A server under fuzz: every method of every service, as bytes over the wire, and what may come back."""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from recsys.retrieval import Retriever
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings
from tests.fuzz.messages import Drawn
from twintower.client import Client
from twintower.types import Query
from twintower.v1 import catalog_service_pb2, event_service_pb2, operator_service_pb2, recommendation_service_pb2

METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for file in (recommendation_service_pb2, catalog_service_pb2, event_service_pb2, operator_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
ANSWERED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""What a healthy server may say to a bad request. INTERNAL, UNKNOWN and a deadline would be failures of the server."""
LEAK = re.compile(r"Traceback|File \"|\.py\b|site-packages|object at 0x")
TIMEOUT_S = 30.0


class Target:
    """A server over a release, in this process; `close` it.

    Args:
        release: its folder.
    """

    def __init__(self, release: Path) -> None:
        self.log = io.BytesIO()
        self._kept = tempfile.TemporaryDirectory()
        given = ServerSettings(port=0, drain_s=1.0, log={"folder": self._kept.name})
        self._server = Server(given, make_logger(self.log))
        self._server.listen()
        retriever = Retriever.load(release)
        self._server.install(retriever)
        self._channel = grpc.insecure_channel(self._server.address)
        self._leaks = re.compile("|".join([LEAK.pattern, *map(re.escape, (str(release), str(Path.cwd()), sys.prefix))]))
        with Client(self._server.address, timeout_s=TIMEOUT_S) as client:
            token = client.nearest_items(Query(entity_id="user 1"), 3).attribution_token
        facts = retriever.release.facts
        names = (retriever.release.name, "stable", *retriever.reformulators, *facts.query_columns)
        self.drawn = Drawn(
            ("item-ü3", "item-ü8", "user 1", "north", "taste", "salt", "price", token, *names), facts.dim
        )
        self._served = self._services()

    def call(self, method: MethodDescriptor, requests: Sequence[bytes]) -> grpc.StatusCode:
        """Return the code of a call, after a look at the answer.

        Raises:
            AssertionError: it is none that the wire's documentation knows, or says more than it should.
        """
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = message_factory.GetMessageClass(method.output_type).FromString
        try:
            if method.client_streaming:
                list(self._channel.stream_stream(path, None, read)(iter(requests), timeout=TIMEOUT_S))
            else:
                self._channel.unary_unary(path, None, read)(requests[0], timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            self._check(error, method)
            return error.code()
        assert method.containing_service.full_name in self._served
        return grpc.StatusCode.OK

    def failures(self) -> list[str]:
        """Return what the log has of failures of the server."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line.get("exception", line["event"]) for line in lines if line["level"] != "info"]

    def close(self) -> None:
        """Stop the server."""
        self._channel.close()
        self._server.stop()
        self._kept.cleanup()

    def _check(self, error: grpc.RpcError, method: MethodDescriptor) -> None:
        if method.containing_service.full_name not in self._served:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            return
        assert error.code() in ANSWERED, (error.code(), error.details(), self.failures()[-1:])
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in error.details():
            return  # gRPC itself, before the server saw it
        status = rpc_status.from_call(error)
        infos = [each for each in status.details if each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
        assert len(infos) == 1, (error.code(), error.details())
        told = status.SerializeToString().decode(errors="replace")
        assert not self._leaks.search(told), told

    def _services(self) -> set[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(self._channel)
        [answer] = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        return {service.name for service in answer.list_services_response.service}
