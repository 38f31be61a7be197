"""Bytes that are no message are the caller's mistake: gRPC itself would call them a failure of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from twintower.errors import RequestError

UNDECODABLE = object()
"""Stands where a request should."""


class Decoding(Intercept):
    """Refuse requests that cannot be decoded, in the place where errors are mapped."""

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler with a decoder that does not fail, and a look at what it gave before the work."""
        if handler.request_deserializer is None:  # it takes bytes as they are
            return handler

        def decode(content: bytes) -> Any:
            try:
                return handler.request_deserializer(content)
            except DecodeError:
                return UNDECODABLE

        def change(inner: Behaviour) -> Behaviour:
            if handler.request_streaming:
                return lambda requests, context: inner(_decoded(requests), context)
            return lambda request, context: inner(_checked(request), context)

        return replaced(handler, change, decode)


def _decoded(requests: Iterator[Any]) -> Iterator[Any]:
    for request in requests:
        yield _checked(request)


def _checked(request: Any) -> Any:
    if request is UNDECODABLE:
        raise RequestError("request", "got bytes that are no message of this method, expected one")
    return request
