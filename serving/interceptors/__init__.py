"""What happens around every unary call, outermost first: access log, error mapping, deadline.

The order is fixed here, by hand, because it matters: the log must see the code that the mapping chose, and the mapping
must see what the deadline raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from serving.interceptors.access_log import access_log
from serving.interceptors.deadline import deadline
from serving.interceptors.error_mapping import error_mapping

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


def interceptors(logger: Any) -> list[grpc.ServerInterceptor]:
    """Return the interceptors of a server, outermost first.

    Args:
        logger: a structlog logger.
    """
    return [Around(access_log(logger)), Around(error_mapping(logger)), Around(deadline())]


class Around(grpc.ServerInterceptor):
    """Run a wrapper around every unary call.

    Args:
        wrap: takes the method's full name and its behaviour, returns the behaviour to run instead.
    """

    def __init__(self, wrap: Callable[[str, Behaviour], Behaviour]) -> None:
        self._wrap = wrap
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler with the wrapper around it; each method is wrapped once."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None or handler.unary_unary is None:
                return handler
            self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
                self._wrap(method, handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return self._wrapped[method]
