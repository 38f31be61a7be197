"""Nobody gets in but those whom the auth file names, with the role that the method needs, as often as their quota says.

A block around a call would not do: what a call takes from a quota stands in its request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from serving.errors import ForbiddenError, UnauthenticatedError
from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from serving.telemetry import calls
from serving.trust.callers import ADVICE, Caller, Callers
from serving.trust.quotas import Quotas
from serving.trust.reloaded import Reloaded
from serving.trust.rules import RULES, Role, Rule

AUTHORIZATION = "authorization"
SCHEME = "bearer"


class Auth(Intercept):
    """Let in who may.

    Args:
        callers: from the auth file.
    """

    def __init__(self, callers: Reloaded[Callers]) -> None:
        super().__init__()
        self._callers, self._quotas = callers, Quotas()

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler behind the rule of its method; a method without a rule is nobody's."""
        rule = RULES.get(method)
        if rule is not None and rule.role is Role.NOBODY:
            return handler

        def guard(inner: Behaviour) -> Behaviour:
            def guarded(asked: Any, context: grpc.ServicerContext) -> Any:
                caller = self._caller(context)
                if rule is None or caller.role < rule.role:
                    needed = "nobody may call it" if rule is None else f"needs the role {rule.role.name.lower()}"
                    got = "none" if caller.role is Role.NOBODY else caller.role.name.lower()
                    raise ForbiddenError(f"{method}: {needed}; {caller.name!r} has {got}.")
                if caller.quota is not None:
                    asked = self._charged(caller, rule, asked, handler.request_streaming)
                return inner(asked, context)

            return guarded

        return replaced(handler, guard)

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        try:
            caller = self._callers.current().caller(_token(context))
        except UnauthenticatedError as error:
            # What the caller is not told in detail stands in the access log.
            calls.current().refusal = str(error.__cause__ or error)
            raise
        calls.current().caller = caller.name
        return caller

    def _charged(self, caller: Caller, rule: Rule, asked: Any, streaming: bool) -> Any:
        """Return what was asked, paid for: a stream message by message as they come."""
        if not streaming:
            self._quotas.charge(caller.name, caller.quota, rule.count(asked))
            return asked

        def paid() -> Iterator[Any]:
            for request in asked:
                self._quotas.charge(caller.name, caller.quota, rule.count(request))
                yield request

        return paid()


def _token(context: grpc.ServicerContext) -> str:
    found = ""
    for key, value in context.invocation_metadata():
        if key == AUTHORIZATION:
            if found:
                raise UnauthenticatedError(f"authorization: got several, expected one. {ADVICE}")
            found = value
    if not found:
        raise UnauthenticatedError(f"authorization: got none, expected a token. {ADVICE}")
    scheme, _, token = found.partition(" ") if isinstance(found, str) else ("", "", "")
    if scheme.lower() != SCHEME or not token:
        raise UnauthenticatedError(f"authorization: expected 'Bearer' and a token. {ADVICE}")
    return token.strip()
