"""The health service: checks, and watches whose callers cannot hold up anybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    """Answers checks, and tells each watcher of changes on the watcher's own thread.

    grpcio's own sends to all watchers in turn, while it holds a lock that checks need: one watcher that did not read
    stopped every check. It also kept every name that was ever watched. Safe for calls from several threads.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changes: set[threading.Event] = set()

    def set(self, service: str, is_serving: bool) -> None:
        """Say whether a service answers from now on."""
        response = health_pb2.HealthCheckResponse
        self._statuses[service] = response.SERVING if is_serving else response.NOT_SERVING
        for change in self._changes.copy():
            change.set()

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service."""
        status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Return the status of a service, and then each change, until the caller goes."""
        change, sent = threading.Event(), None
        self._changes.add(change)
        context.add_callback(change.set)
        try:
            while True:
                change.clear()
                if not context.is_active():
                    return
                status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                if status == sent:
                    change.wait()
                else:
                    sent = status
                    yield health_pb2.HealthCheckResponse(status=status)
        finally:
            self._changes.discard(change)
