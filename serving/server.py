"""A gRPC server over a release: service, health, reflection, limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from recsys.errors import SettingError, describe
from recsys.retrieval import Retriever
from serving.interceptors import interceptors
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Held, Releases
from serving.runtime.sessions import Sessions
from serving.servicers.catalogue import CatalogueServicer
from serving.servicers.operator import OperatorServicer
from serving.servicers.recommendation import RecommendationServicer
from serving.settings import ServerSettings, address
from serving.v1 import (
    catalogue_service_pb2,
    catalogue_service_pb2_grpc,
    operator_service_pb2,
    operator_service_pb2_grpc,
)
from serving.v1 import recommendation_service_pb2 as pb
from serving.v1 import recommendation_service_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
CATALOGUE = catalogue_service_pb2.DESCRIPTOR.services_by_name["CatalogueService"].full_name
OPERATOR = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name


class Server:
    """A server that listens at once, reports NOT_SERVING until it has a release, and drains before it stops.

    Args:
        settings: where to listen and what to allow.
        logger: a structlog logger.
        folder: gives the releases, and lets operators change them; without it `install` gives one, and there is no
            OperatorService.

    Raises:
        SettingError: the address is taken, or not one of this machine.
    """

    def __init__(self, settings: ServerSettings, logger: Any, folder: ReleaseFolder | None = None) -> None:
        self._settings = settings
        self.releases = Releases() if folder is None else folder.releases
        self._services = (SERVICE, CATALOGUE) if folder is None else (SERVICE, CATALOGUE, OPERATOR)
        sessions = Sessions(settings.max_sessions, settings.max_session_s)
        self._health = health.HealthServicer()
        self._announce(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="call"),
            interceptors=interceptors(logger, sessions.threads),
            options=[
                # Two servers on one port would share its calls without a word.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        pb_grpc.add_RecommendationServiceServicer_to_server(
            RecommendationServicer(self.releases, sessions, settings), self._server
        )
        catalogue_service_pb2_grpc.add_CatalogueServiceServicer_to_server(
            CatalogueServicer(self.releases, folder and folder.log, settings.catalogue, logger), self._server
        )
        if folder is not None:
            operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(OperatorServicer(folder), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)
        try:
            self.port = self._server.add_insecure_port(settings.address)
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
        """Answer from this release from now on, under the label `stable`, and say so to health checks."""
        self.releases.install(Held(retriever))
        self.ready()

    def ready(self) -> None:
        """Tell health checks that calls are answered."""
        self._announce(health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Report NOT_SERVING, take no new calls, let running ones end within `drain_s`, stop."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._settings.drain_s).wait()

    def _announce(self, status: int) -> None:
        for service in ("", *self._services):
            self._health.set(service, status)
