"""Another behaviour in place of a method's own, whatever streams it has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc

Behaviour = Callable[[Any, grpc.ServicerContext], Any]
Surrounding = Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]
"""Takes the method's full name and the call's context, returns the block that the call runs in."""
MAKE = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}


class Intercept(grpc.ServerInterceptor):
    """An interceptor that makes another handler of each method's, once."""

    def __init__(self) -> None:
        self._made: dict[str, grpc.RpcMethodHandler] = {}

    @abstractmethod
    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return what answers in place of a method's handler."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler as `around` made it; nothing for a method that there is not."""
        method = handler_call_details.method
        if method not in self._made:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            self._made[method] = self.around(method, handler)
        return self._made[method]


def replaced(
    handler: grpc.RpcMethodHandler,
    change: Callable[[Behaviour], Behaviour],
    request_deserializer: Callable[[bytes], Any] | None = None,
    response_serializer: Callable[[Any], bytes] | None = None,
) -> grpc.RpcMethodHandler:
    """Return a handler with another behaviour, of the same kind.

    Args:
        handler: of a method.
        change: takes its behaviour, returns the other one.
        request_deserializer: another one of these, too; None keeps it.
        response_serializer: another one of these, too; None keeps it.
    """
    make, kind = MAKE[handler.request_streaming, handler.response_streaming]
    behaviour = change(getattr(handler, kind))
    return make(
        behaviour,
        request_deserializer or handler.request_deserializer,
        response_serializer or handler.response_serializer,
    )


def on_threads(behaviour: Behaviour, threads: ThreadPoolExecutor) -> Behaviour:
    """Return a behaviour that is worked on by threads of its own; it counts where it stands outermost."""
    behaviour.experimental_thread_pool = threads  # type: ignore[attr-defined] # as gRPC calls it
    return behaviour
