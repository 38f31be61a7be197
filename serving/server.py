"""A gRPC server over a release: service, health, reflection, limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from recsys.errors import SettingError, describe
from recsys.retrieval import Retriever
from serving.interceptors import interceptors
from serving.runtime.current_release import CurrentRelease
from serving.runtime.health import Health
from serving.runtime.sessions import Sessions
from serving.servicers.recommendation import RecommendationServicer
from serving.settings import ServerSettings, address
from serving.trust.callers import Callers
from serving.trust.reloaded import Reloaded
from serving.trust.tls import server_credentials
from serving.v1 import recommendation_service_pb2 as pb
from serving.v1 import recommendation_service_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
LOOPBACK = ("127.0.0.1", "::1", "localhost")
AUTH_RELOAD_S = 1.0


class Server:
    """A server that listens at once, reports NOT_SERVING until it has a release, and drains before it stops.

    Args:
        settings: where to listen and what to allow.
        logger: a structlog logger.

    Raises:
        SettingError: the address is taken, or not one of this machine; a certificate or the auth file is unusable.
    """

    def __init__(self, settings: ServerSettings, logger: Any) -> None:
        self._settings = settings
        credentials = server_credentials(settings.tls, logger) if settings.tls.certificate else None
        callers = _callers(settings.auth.file, logger) if settings.auth.file else None
        if callers is not None and credentials is None and settings.host not in LOOPBACK:
            logger.warning("tokens travel in the open", advice="Set tls.certificate and tls.key, or encrypt before it.")
        self._current = CurrentRelease()
        sessions = Sessions(settings.max_sessions, settings.max_session_s)
        self._health = Health()
        self._announce(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="call"),
            interceptors=interceptors(logger, sessions.threads, callers),
            options=[
                # Two servers on one port would share its calls without a word.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        pb_grpc.add_RecommendationServiceServicer_to_server(
            RecommendationServicer(self._current, sessions, settings), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(settings.address)
            else:
                self.port = self._server.add_secure_port(settings.address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            advice = "Stop what listens there, or take another port (0 for a free one)."
            raise SettingError(
                describe("server.port", settings.address, "an address to listen on that is free", advice)
            )
        self._server.start()

    @property
    def address(self) -> str:
        """Host and the real port."""
        return address(self._settings.host, self.port)

    def install(self, retriever: Retriever) -> None:
        """Answer from this release from now on, and say so to health checks."""
        self._current.install(retriever)
        self._announce(health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Report NOT_SERVING, take no new calls, let running ones end within `drain_s`, stop."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._settings.drain_s).wait()

    def _announce(self, status: int) -> None:
        for service in ("", SERVICE):
            self._health.set(service, status)


def _callers(file: Path, logger: Any) -> Reloaded[Callers]:
    return Reloaded(lambda read: Callers(file, read), "auth", logger, every_s=AUTH_RELOAD_S)
