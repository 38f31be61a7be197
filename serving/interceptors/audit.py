"""One more log line for each call that changes something: who, what, how many, and how it ended.

Ids of users and items never stand in it, and the metrics have no label of them either.
"""

from __future__ import annotations

from typing import Any

import grpc

from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from serving.trust.rules import RULES

LONGEST_SHOWN = 128


class Audit(Intercept):
    """Tell of writes and operations. It stands before the error mapping, so that it sees the code, and what auth bound.

    Args:
        logger: a structlog logger.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler with a line after each call; a method that changes nothing is left as it is."""
        rule = RULES.get(method)
        if rule is None or not rule.audited:
            return handler

        def change(inner: Behaviour) -> Behaviour:
            def told(request: Any, context: grpc.ServicerContext) -> Any:
                try:
                    return inner(request, context)
                finally:
                    code = context.code() or (grpc.StatusCode.OK if context.is_active() else grpc.StatusCode.CANCELLED)
                    shown = {name: str(getattr(request, name, ""))[:LONGEST_SHOWN] for name in rule.shown}
                    count = len(getattr(request, rule.counted, ())) if rule.counted else 1
                    self._logger.info(
                        "audit", method=method, code=code.name, count=count, peer=context.peer(), asked=shown
                    )

            return told

        return replaced(handler, change)
