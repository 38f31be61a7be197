"""One more log line for each call that changes something: who, what, how many, and how it ended.

Ids of users and items never stand in it, and the metrics have no label of them either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from serving.telemetry.calls import code_of
from serving.telemetry.sampled import Sampled
from serving.trust.rules import RULES

LONGEST_SHOWN = 128


class Audit(Intercept):
    """Logs writes and operations. It stands before the error mapping, so that it sees the code, and what auth bound.

    Args:
        logger: a structlog logger.
        sampled: limits the lines of refused calls.
    """

    def __init__(self, logger: Any, sampled: Sampled) -> None:
        super().__init__()
        self._logger, self._sampled = logger, sampled

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler with a line after each call; a method that changes nothing is left as it is."""
        rule = RULES.get(method)
        if rule is None or not rule.audited:
            return handler

        def change(inner: Behaviour) -> Behaviour:
            def audited(request: Any, context: grpc.ServicerContext) -> Any:
                try:
                    return inner(request, context)
                finally:
                    shown = {name: str(getattr(request, name, ""))[:LONGEST_SHOWN] for name in rule.shown}
                    count = len(getattr(request, rule.counted, ())) if rule.counted else 1
                    self._log(method, context, count=count, asked=shown)

            return audited

        return replaced(handler, change)

    @contextmanager
    def refusal(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Log a call after the block that refuses it unread, where the method changes something."""
        try:
            yield
        finally:
            rule = RULES.get(method)
            audited = rule is not None and rule.audited
            if audited and self._sampled.takes("audit", method=method, code=code_of(context)):
                self._log(method, context, count=0, asked={})

    def _log(self, method: str, context: grpc.ServicerContext, **facts: Any) -> None:
        self._logger.info("audit", method=method, code=code_of(context), peer=context.peer(), **facts)
