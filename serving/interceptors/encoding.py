"""Responses that a method encodes itself are sent as they are."""

from __future__ import annotations

from typing import Any

import grpc

from serving.interceptors.behaviour import Intercept, replaced


class Encoding(Intercept):
    """Let methods return bytes instead of a message: large answers are encoded part by part, within the call."""

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler with an encoder that passes bytes on; one that streams one way only stays as it is."""
        serialize = handler.response_serializer
        if serialize is None or handler.request_streaming != handler.response_streaming:
            return handler

        def encode(response: Any) -> bytes:
            return response if isinstance(response, bytes) else serialize(response)

        return replaced(handler, lambda inner: inner, response_serializer=encode)
