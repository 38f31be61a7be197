"""Health checks whose watchers cannot stop the server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc_health.v1 import health


class Health(health.HealthServicer):
    """The health service of grpcio, with the ends of watches on a thread of their own.

    grpcio's own holds a lock while it sends, and takes the same lock at the end of a watch on the one thread that also
    completes what is being sent: a watch that ended at the wrong moment stopped every call to the server for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends = ThreadPoolExecutor(1, thread_name_prefix="health")

    def _on_close_callback(self, send_response_callback: Callable[[Any], None], service: str) -> Callable[[], None]:
        end = super()._on_close_callback(send_response_callback, service)
        return lambda: self._ends.submit(end)
