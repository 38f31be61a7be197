"""Which services answer: what health checks are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from grpc_health.v1 import health

from serving.runtime.health import Health

WHOLE = ""
"""The service's name that stands for the whole server in a health check."""


class Readiness:
    """Health of each service; the whole server is ready when all of them are. Safe for calls from several threads.

    The health service itself answers as soon as the server listens, and says so of itself until it drains: a check of
    its name is a check that the process lives.

    Args:
        services: full names; none is ready yet.
        told: is told each change of a service.
    """

    def __init__(self, services: Iterable[str], told: Callable[[str, bool], None]) -> None:
        self.servicer = Health()
        self._ready = dict.fromkeys(services, False)
        self._told = told
        self._lock = threading.Lock()
        self._is_draining = False
        self.servicer.set(health.SERVICE_NAME, True)
        for service in self._ready:
            self.say(service, False)

    def say(self, service: str, is_ready: bool) -> None:
        """Say whether a service answers from now on."""
        with self._lock:
            if self._is_draining:
                return
            self._ready[service] = is_ready
            self.servicer.set(service, is_ready)
            self.servicer.set(WHOLE, all(self._ready.values()))
        self._told(service, is_ready)

    def all_ready(self) -> None:
        """Say that every service answers from now on."""
        for service in self._ready:
            self.say(service, True)

    def drain(self) -> None:
        """Say NOT_SERVING of everything, for good."""
        with self._lock:
            self._is_draining = True
            for name in (*self._ready, WHOLE, health.SERVICE_NAME):
                self.servicer.set(name, False)
        for service in self._ready:
            self._told(service, False)
