"""A gRPC server over a release: service, health, reflection, limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from recsys.retrieval import Retriever
from serving.interceptors import interceptors
from serving.logs import Logger
from serving.runtime.current_release import CurrentRelease
from serving.runtime.readiness import Readiness
from serving.runtime.sessions import Sessions
from serving.servicers.recommendation import RecommendationServicer
from serving.settings import ServerSettings, address, address_taken
from serving.telemetry.observation import Observation
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
        logger: gets a line a call.

    Raises:
        SettingError: the address is taken, or not one of this machine; the one of the metrics likewise; a certificate
            or the auth file is unusable.

    Attributes:
        observation: what it tells of itself.
    """

    def __init__(self, settings: ServerSettings, logger: Logger) -> None:
        self._settings = settings
        credentials = server_credentials(settings.tls, logger) if settings.tls.certificate else None
        callers = _callers(settings.auth.file, logger) if settings.auth.file else None
        if callers is not None and credentials is None and settings.host not in LOOPBACK:
            logger.warning("tokens travel in the open", advice="Set tls.certificate and tls.key, or encrypt before it.")
        self._current = CurrentRelease()
        sessions = Sessions(settings.max_sessions, settings.max_session_s)
        self.observation = Observation(settings.telemetry, logger)
        self._readiness = Readiness([SERVICE], self.observation.ready)
        threads = CallThreads(settings.worker_threads, thread_name_prefix="call")
        self.observation.watch(queue=threads.waiting)
        self._server = grpc.server(
            threads,
            interceptors=interceptors(logger, self.observation, sessions.threads, callers),
            options=[
                # Two servers on one port share its calls without a word: only where that is meant.
                ("grpc.so_reuseport", int(settings.port_is_shared)),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        pb_grpc.add_RecommendationServiceServicer_to_server(
            RecommendationServicer(self._current, sessions, settings), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(settings.address)
            else:
                self.port = self._server.add_secure_port(settings.address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            self.observation.close()
            raise address_taken(settings)
        self._server.start()

    @property
    def address(self) -> str:
        """Host and the real port."""
        return address(self._settings.host, self.port)

    def install(self, retriever: Retriever, load_s: float = 0.0) -> None:
        """Answer from this release from now on, and say so to health checks.

        Args:
            retriever: answers.
            load_s: seconds that it took to load.
        """
        self._current.install(retriever)
        self.observation.loaded(retriever.release, load_s)
        self._readiness.say(SERVICE, True)

    def stop(self) -> None:
        """Report NOT_SERVING, take no new calls, let running ones end within `drain_s`, stop."""
        self._readiness.drain()
        self._server.stop(self._settings.drain_s).wait()
        self.observation.close()


class CallThreads(ThreadPoolExecutor):
    """The threads that work on calls."""

    def waiting(self) -> int:
        """Return how many calls wait for one."""
        return self._work_queue.qsize()


def _callers(file: Path, logger: Logger) -> Reloaded[Callers]:
    return Reloaded(lambda read: Callers(file, read), "auth", logger, every_s=AUTH_RELOAD_S)
