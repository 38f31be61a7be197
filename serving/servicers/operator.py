"""`twintower.v1.OperatorService`: load, roll back and list the releases that a server holds."""

from __future__ import annotations

import grpc

from serving.runtime.release_folder import ReleaseFolder
from twintower.v1 import operator_service_pb2 as pb
from twintower.v1 import operator_service_pb2_grpc as pb_grpc


class OperatorServicer(pb_grpc.OperatorServiceServicer):
    """Changes which release answers.

    Args:
        folder: the folder that the server answers from.
    """

    def __init__(self, folder: ReleaseFolder) -> None:
        self._folder = folder

    def ListReleases(self, request: pb.ListReleasesRequest, context: grpc.ServicerContext) -> pb.ListReleasesResponse:
        """Return what is held, and what was refused."""
        return self._listed()

    def ReloadRelease(self, request: pb.ReloadReleaseRequest, context: grpc.ServicerContext) -> pb.ListReleasesResponse:
        """Load a release and put it under a label."""
        self._folder.reload(request.label, request.release)
        return self._listed()

    def RollBackRelease(
        self, request: pb.RollBackReleaseRequest, context: grpc.ServicerContext
    ) -> pb.ListReleasesResponse:
        """Put the release that a label had before back under it."""
        self._folder.roll_back(request.label)
        return self._listed()

    def _listed(self) -> pb.ListReleasesResponse:
        holding = self._folder.releases.holding
        response = pb.ListReleasesResponse()
        for held in holding:
            labels = holding.labels_of(held.fingerprint)
            message = response.releases.add(name=held.name, fingerprint=held.fingerprint, labels=labels)
            message.rolled_back = any(label in holding.rolled_back for label in labels)
            message.load_time.FromDatetime(held.loaded)
        for label in sorted(holding.refused):
            refused = holding.refused[label]
            told = response.refused.add(name=refused.name, label=label, reason=refused.reason)
            told.refuse_time.FromDatetime(refused.time)
        return response
