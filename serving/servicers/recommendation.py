"""`serving.v1.RecommendationService` over the current release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from recsys.errors import RequestError
from recsys.retrieval import Answer, Retriever
from recsys.types import Origin
from serving import convert
from serving.runtime.current_release import CurrentRelease
from serving.settings import ServerSettings
from serving.v1 import recommendation_service_pb2 as pb
from serving.v1 import recommendation_service_pb2_grpc as pb_grpc


class RecommendationServicer(pb_grpc.RecommendationServiceServicer):
    """Answers from one release a call.

    Args:
        current: the release that answers at the moment of the call.
        settings: the limits.
    """

    def __init__(self, current: CurrentRelease, settings: ServerSettings) -> None:
        self._current, self._settings = current, settings

    def NearestItems(self, request: pb.NearestItemsRequest, context: grpc.ServicerContext) -> pb.NearestItemsResponse:
        """Return the nearest items of one query."""
        retriever = self._retriever(request.release_pin)
        self._check_k(request.k)
        query = convert.query(request.query, "query", self._settings)
        with _as_in_request("query"):
            (answer,) = retriever.nearest([query], request.k)
        shown = _shown(retriever, answer) if request.include_metadata else ()
        return pb.NearestItemsResponse(
            result=convert.ranked_items(answer, shown), release=convert.release_id(retriever.release)
        )

    def BatchNearestItems(
        self, request: pb.BatchNearestItemsRequest, context: grpc.ServicerContext
    ) -> pb.BatchNearestItemsResponse:
        """Return the nearest items of several queries."""
        retriever = self._retriever(request.release_pin)
        self._check_k(request.k)
        if not 1 <= len(request.queries) <= self._settings.max_batch:
            expected = f"expected 1 to {self._settings.max_batch}"
            raise RequestError("queries", f"got {len(request.queries)}, {expected}")
        queries = [
            convert.query(query, f"queries[{place}]", self._settings) for place, query in enumerate(request.queries)
        ]
        with _as_in_request("queries[0]"):
            answers = retriever.nearest(queries, request.k)
        return pb.BatchNearestItemsResponse(
            results=[
                convert.ranked_items(answer, _shown(retriever, answer) if request.include_metadata else ())
                for answer in answers
            ],
            release=convert.release_id(retriever.release),
        )

    def EncodeQuery(self, request: pb.EncodeQueryRequest, context: grpc.ServicerContext) -> pb.EncodeQueryResponse:
        """Return the vector of one query."""
        retriever = self._retriever(request.release_pin)
        query = convert.query(request.query, "query", self._settings)
        with _as_in_request("query"):
            encoding = retriever.encode([query])
        (origin,) = encoding.origins
        response = pb.EncodeQueryResponse(
            origin=convert.ORIGINS[origin],
            missing_ids=encoding.missing_ids[0],
            release=convert.release_id(retriever.release),
        )
        if origin is not Origin.POPULARITY:
            response.vector.values.values.extend(encoding.vectors[0].tolist())
        return response

    def GetRelease(self, request: pb.GetReleaseRequest, context: grpc.ServicerContext) -> pb.Release:
        """Return what is served."""
        return convert.release(self._retriever())

    def _retriever(self, pin: str = "") -> Retriever:
        retriever = self._current.retriever(pin)
        structlog.contextvars.bind_contextvars(release=retriever.release.name)
        return retriever

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= self._settings.max_k:
            raise RequestError("k", f"got {k}, expected 1 to {self._settings.max_k}")


@contextmanager
def _as_in_request(first: str) -> Iterator[None]:
    """Name the field of a mistake by its path in the request, where the library counts queries and knows no entity.

    Args:
        first: the path of the first query.
    """
    try:
        yield
    except RequestError as error:
        path = error.field.replace("queries[0]", first, 1).replace(".features.", ".entity.features.", 1)
        raise RequestError(path, error.reason) from None


def _shown(retriever: Retriever, answer: Answer) -> Sequence[dict[str, Any]]:
    return retriever.metadata(answer.item_ids)
