"""A gRPC server over a release: service, health, reflection, limits."""

from __future__ import annotations

import math
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from recsys.retrieval import Retriever
from serving.arms.experiments import Experiments
from serving.exposures.log import Log
from serving.interceptors import Interceptors
from serving.interceptors.auth import Auth
from serving.logs import Logger
from serving.runtime.admission import Effort
from serving.runtime.call_threads import Arrivals
from serving.runtime.deadlines import Deadlines
from serving.runtime.executors import Executors
from serving.runtime.readiness import Readiness
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Held, Holding, Releases
from serving.servicers.catalogue import CatalogServicer
from serving.servicers.event import EventServicer
from serving.servicers.operator import OperatorServicer
from serving.servicers.recommendation import RecommendationServicer
from serving.settings import ServerSettings, address, address_taken
from serving.telemetry.observation import Observation
from serving.trust.callers import Callers
from serving.trust.reloaded import Reloaded
from serving.trust.tls import server_credentials
from twintower.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    operator_service_pb2,
    operator_service_pb2_grpc,
)
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
CATALOGUE = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
EVENTS = event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name
OPERATOR = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name
LOOPBACK = ("127.0.0.1", "::1", "localhost")
AUTH_RELOAD_S = 1.0
UNSEEN_FACTOR = 20
"""Calls of one method that gRPC may hold before we see them, for each that may wait in our queue; some 10 KB each."""
LARGEST = 2**31 - 1
"""Of gRPC's options."""


class Server:
    """A server that reports NOT_SERVING from `listen` until it has a release, and drains before it stops.

    Args:
        settings: where to listen and what to allow.
        logger: gets a line a call.
        folder: gives the releases, and lets operators change them; without it `install` gives one, and there is no
            OperatorService.

    Raises:
        SettingError: the address of the metrics is taken, or not one of this machine; a certificate or the auth file is
            unusable.
        DataError: the key of the log's tokens is damaged.
        StorageError: the log's folder cannot be written.

    Attributes:
        port: the real one; 0 before it listens.
        observation: what it tells of itself.
        experiments: gives each request its arms; to be loaded once the releases are.
    """

    def __init__(self, settings: ServerSettings, logger: Logger, folder: ReleaseFolder | None = None) -> None:
        self._settings = settings
        credentials = server_credentials(settings.tls, logger) if settings.tls.certificate else None
        callers = _callers(settings.auth.file, logger) if settings.auth.file else None
        if callers is not None and credentials is None and settings.host not in LOOPBACK:
            logger.warning("tokens travel in the open", advice="Set tls.certificate and tls.key, or encrypt before it.")
        self.releases = Releases() if folder is None else folder.releases
        services = (SERVICE, CATALOGUE, EVENTS, *(() if folder is None else (OPERATOR,)))
        self._deadlines = Deadlines()
        self._log = Log(settings.log, logger) if settings.log.folder is not None else None
        self.observation = Observation(settings.telemetry, logger, self._deadlines)
        self.releases.tell(self._changed)
        self.experiments = Experiments(settings.experiments, self.releases, folder, logger, self.observation.plan_read)
        self._readiness = Readiness(services, self.observation.ready)
        interceptors = Interceptors(logger, self.observation)
        arrivals = Arrivals(settings.request_s, interceptors.refusal.behaviour, self._deadlines)
        executors = Executors(settings, arrivals, self._deadlines, self.observation.together)
        waiting = executors.admission.waiting
        self.observation.watch(queue=waiting, **({"rows": self._log.counts} if self._log is not None else {}))
        max_unseen = min(UNSEEN_FACTOR * settings.queue.max_waiting, LARGEST)
        self._server = grpc.server(
            executors.threads,
            interceptors=interceptors.around(executors, Auth(callers) if callers is not None else None),
            options=[
                # Two servers on one port share its calls without a word: only where that is meant.
                ("grpc.so_reuseport", int(settings.port_is_shared)),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_allowed_incoming_connections", settings.max_connections),
                ("grpc.server_handshake_timeout_ms", math.ceil(settings.request_s * 1000)),
                ("grpc.max_concurrent_streams", settings.max_streams),
                # Streams that have ended must not count until their memory is free: a client that opens the next one
                # would get UNAVAILABLE.
                ("grpc.http.overload_protection", 0),
                # Calls that gRPC has and we have not seen yet: it ends those that are too many, or wait too long, with
                # a bare CANCELLED. Our own queue is full long before.
                ("grpc.server.max_pending_requests", max_unseen),
                ("grpc.server.max_pending_requests_hard_limit", max_unseen),
                ("grpc.server_max_unrequested_time_in_server", LARGEST),
            ],
        )
        executors.lane.attend(self._server)
        pb_grpc.add_RecommendationServiceServicer_to_server(
            RecommendationServicer(
                self.releases,
                settings,
                self.experiments,
                Effort(settings.queue, executors.admission).of,
                executors.turns.turn,
                self._log.exposures.record if self._log is not None else None,
                self._log.reported.of if self._log is not None else None,
            ),
            self._server,
        )
        event_service_pb2_grpc.add_EventServiceServicer_to_server(
            EventServicer(self._log.events if self._log is not None else None, settings.log.max_events), self._server
        )
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
            CatalogServicer(
                self.releases, folder and folder.log, settings.catalogue, logger, self.observation.sampled_failures
            ),
            self._server,
        )
        if folder is not None:
            operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(OperatorServicer(folder), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._readiness.servicer, self._server)
        reflected = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)
        self._credentials, self.port = credentials, 0

    def listen(self) -> None:
        """Take calls from now on.

        Raises:
            SettingError: the address is taken, or not one of this machine.
        """
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._settings.address)
            else:
                self.port = self._server.add_secure_port(self._settings.address, self._credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise address_taken(self._settings)
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
        self._readiness.all_ready()

    def stop(self) -> None:
        """Report NOT_SERVING, take no new calls, let running ones end within `drain_s`, stop."""
        self._readiness.drain()
        self.experiments.stop()
        if self.port:
            self._server.stop(self._settings.drain_s).wait()
        if self._log is not None:
            self._log.close()
        self._deadlines.close()
        self.observation.close()

    def _changed(self, before: Holding, after: Holding) -> None:
        """Tell of the releases that were loaded, and of those that are gone."""
        old, new = ({held.fingerprint: held for held in holding} for holding in (before, after))
        for fingerprint in new.keys() - old.keys():
            self.observation.loaded(new[fingerprint].retriever.release, new[fingerprint].load_s)
        for fingerprint in old.keys() - new.keys():
            self.observation.retired(old[fingerprint].retriever.release)


def _callers(file: Path, logger: Logger) -> Reloaded[Callers]:
    return Reloaded(lambda read: Callers(file, read), "auth", logger, every_s=AUTH_RELOAD_S)
