"""Errors of the library become statuses of the wire; anything else is logged and kept from the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
from google.rpc import code_pb2
from grpc_status import rpc_status

from recsys.errors import StorageError
from serving.status import reason_of, status_of
from serving.telemetry import calls
from serving.telemetry.sampled import Sampled


def error_mapping(logger: Any, sampled: Sampled) -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that ends a failed call with the status of its error.

    Args:
        logger: gets what the caller must not see.
        sampled: limits the lines of writes that fail, which every call can meet while a disk is full.
    """

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        try:
            yield
            return
        except grpc.RpcError:  # the caller of a session has gone: there is nobody to tell
            raise
        except Exception as error:
            call = calls.current()
            status = status_of(error, call.request_id)
            call.reason = reason_of(status)
            if isinstance(error, StorageError):
                if sampled.takes("write refused", method=method):
                    logger.error("write refused", method=method, reason=str(error))
            elif status.code == code_pb2.INTERNAL:
                logger.error("call failed", method=method, exc_info=error)
        context.abort_with_status(rpc_status.to_status(status))

    return around
