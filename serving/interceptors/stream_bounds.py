"""Calls that stay open hold a place, which counts against their caller, and lose it where nothing comes or goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import grpc

from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from serving.runtime.streams import Streams
from serving.telemetry import calls


class StreamBounds(Intercept):
    """Bounds every method that answers with a stream.

    It stands behind the charging, so that a place is taken by a message that is paid for.

    Args:
        streams: bounds by the method's full name.
        check: raises where the caller of this call may not keep what it holds.
    """

    def __init__(self, streams: Mapping[str, Streams], check: Callable[[], None]) -> None:
        super().__init__()
        self._streams, self._check = streams, check

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the method's handler within its bounds; one that answers with one response is left as it is."""
        if not handler.response_streaming:
            return handler
        streams = self._streams[method]

        def change(inner: Behaviour) -> Behaviour:
            def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with streams.places.held_by(caller_of(context)):
                    yield from streams.responses(inner(request, context), context.cancel)

            def converse(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
                coming = streams.requests(requests, self._check)
                first = next(coming, None)
                if first is not None:
                    yield from answer(chain((first,), coming), context)

            return converse if handler.request_streaming else answer

        return replaced(handler, change)


def caller_of(context: grpc.ServicerContext) -> str:
    """Return the name of who calls; where nobody is named, the address without its port."""
    return calls.current().caller or context.peer().rpartition(":")[0]
