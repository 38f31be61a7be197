"""Errors of the library become statuses of the wire; anything else is logged and kept from the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import code_pb2
from grpc_status import rpc_status

from serving.interceptors.access_log import bound_request_id
from serving.status import status_of


def error_mapping(logger: Any) -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper that ends a failed call with the status of its error.

    Args:
        logger: gets what the caller must not see.
    """

    def wrap(method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return behaviour(request, context)
            except Exception as error:
                status = status_of(error, bound_request_id())
                if status.code == code_pb2.INTERNAL:
                    logger.error("call failed", method=method, exc_info=error)
            context.abort_with_status(rpc_status.to_status(status))

        return call

    return wrap
