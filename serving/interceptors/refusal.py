"""How a call ends that is not let in: with its error's status, a count, and a line of the log where there are few."""

from __future__ import annotations

from typing import Any

import grpc

from serving.interceptors.audit import Audit
from serving.interceptors.behaviour import Behaviour, Surrounding, on_threads
from serving.runtime.call_threads import AtOnce
from serving.telemetry import calls


class Refusal:
    """Makes the behaviours of calls that are refused before they are worked on.

    They do not look at the request, which may not have come, and do not wait.

    Args:
        record: the block of a call's record.
        mapping: the block that makes a status of an error.
        audit: writes lines of calls that would change something.
    """

    def __init__(self, record: Surrounding, mapping: Surrounding, audit: Audit) -> None:
        self._record, self._mapping, self._audit = record, mapping, audit
        self._at_once = AtOnce()

    def behaviour(self, error: Exception) -> Behaviour:
        """Return a behaviour that ends a call with an error."""

        def refuse(_request: Any, context: grpc.ServicerContext) -> Any:
            method = calls.current().method
            with self._record(method, context), self._audit.refusal(method, context), self._mapping(method, context):
                raise error

        return refuse

    def handler(self, error: Exception) -> grpc.RpcMethodHandler:
        """Return a handler that ends a call with an error at once, whatever its method sends."""
        return grpc.unary_unary_rpc_method_handler(on_threads(self.behaviour(error), self._at_once))
