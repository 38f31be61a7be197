"""Who and what is let in, before a call takes a thread, a place or a turn."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from serving.errors import UnknownMethodError
from serving.interceptors.auth import Auth
from serving.interceptors.call_record import request_id
from serving.interceptors.refusal import Refusal
from serving.runtime.admission import Admission
from serving.telemetry import calls
from serving.telemetry.calls import Call
from serving.trust.rules import RULES, Role

UNKNOWN_METHOD = "unknown"
"""Stands for methods that there are not: their names are the caller's choice."""
_OPEN = frozenset(method for method, rule in RULES.items() if rule.role is Role.NOBODY)


class AdmissionControl(grpc.ServerInterceptor):
    """Begins each call's record, and refuses at once what is not to be worked on, when only its headers are here.

    It stands before all others, because only the outermost interceptor sees every call. Calls that need no role (health
    checks) pass: a server that is busy is not dead.

    Args:
        auth: knows who may call; None for everybody.
        admission: knows whether a call may wait.
        refusal: ends what is not let in.
    """

    def __init__(self, auth: Auth | None, admission: Admission, refusal: Refusal) -> None:
        self._auth, self._admission, self._refusal = auth, admission, refusal

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler, or one that refuses."""
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        handler = continuation(handler_call_details)
        calls.begin(Call(UNKNOWN_METHOD if handler is None else method, request_id(metadata)))
        try:
            if handler is None:
                raise UnknownMethodError("this server has no such method.")
            if method not in _OPEN:
                if self._auth is not None:
                    self._auth.check(method, metadata)
                self._admission.check()
        except Exception as error:
            return self._refusal.handler(error)
        return handler
