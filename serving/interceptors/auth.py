"""Only callers of the auth file are let in, with the role that the method needs, as often as their quota says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import grpc

from serving.interceptors.behaviour import Behaviour, Intercept, replaced
from serving.telemetry import calls
from serving.trust.callers import ADVICE, Caller, Callers
from serving.trust.quotas import Quotas
from serving.trust.reloaded import Reloaded
from serving.trust.rules import RULES, Role, Rule
from twintower.errors import ForbiddenError, UnauthenticatedError

AUTHORIZATION = "authorization"
SCHEME = "bearer"
MAX_DEBT_S = 1.0
"""Seconds until the next query of a caller that keeps a stream open though its quota is used up."""
Metadata = Sequence[tuple[str, str | bytes]]
_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Of the call being worked on; gRPC gives each call a context of its own."""


class Auth:
    """Knows who may call what, and how often. Safe for calls from several threads.

    Args:
        callers: from the auth file.
    """

    def __init__(self, callers: Reloaded[Callers]) -> None:
        self._callers, self._quotas = callers, Quotas()

    def check(self, method: str, metadata: Metadata) -> None:
        """Find out who makes the call that has begun, from its headers alone.

        Raises:
            UnauthenticatedError: nobody whom the auth file names.
            ForbiddenError: the caller's role does not reach; a method without a rule is nobody's.
            QuotaError: nothing is left of the caller's quota.
        """
        rule, caller = RULES.get(method), self._found(metadata)
        call = calls.current()
        call.caller = caller.name
        _caller.set(caller)
        if rule is None or caller.role < rule.role:
            needed = "nobody may call it" if rule is None else f"needs the role {rule.role.name.lower()}"
            got = "none" if caller.role is Role.NOBODY else caller.role.name.lower()
            raise ForbiddenError(f"{method}: {needed}; {caller.name!r} has {got}.")
        if caller.quota is not None:
            self._quotas.check(caller.name, caller.quota)

    def charge(self, caller: Caller | None, count: int) -> None:
        """Take queries or items from a caller's quota.

        Raises:
            QuotaError: nothing is left.
        """
        if caller is not None and caller.quota is not None:
            self._quotas.charge(caller.name, caller.quota, count)

    def check_held(self) -> None:
        """Check that the caller of this call may keep what it holds.

        Raises:
            QuotaError: nothing is left of its quota, and will not be soon.
        """
        caller = _caller.get()
        if caller is not None and caller.quota is not None:
            self._quotas.check(caller.name, caller.quota, MAX_DEBT_S)

    def _found(self, metadata: Metadata) -> Caller:
        try:
            return self._callers.current().caller(_token(metadata))
        except UnauthenticatedError as error:
            # What the caller is not told in detail stands in the access log.
            calls.current().refusal = str(error.__cause__ or error)
            raise


class Charging(Intercept):
    """Charges calls to their callers' quotas: what a call is worth stands in its request.

    Args:
        auth: knows the quotas.
    """

    def __init__(self, auth: Auth) -> None:
        super().__init__()
        self._auth = auth

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the handler with a charge before its work; of a stream each message is charged as it comes."""
        rule = RULES.get(method)
        if rule is None or rule.role is Role.NOBODY:
            return handler

        def change(inner: Behaviour) -> Behaviour:
            def charged(asked: Any, context: grpc.ServicerContext) -> Any:
                caller = _caller.get()
                if handler.request_streaming:
                    return inner(self._paid(asked, rule, caller), context)
                self._auth.charge(caller, rule.count(asked))
                return inner(asked, context)

            return charged

        return replaced(handler, change)

    def _paid(self, requests: Iterator[Any], rule: Rule, caller: Caller | None) -> Iterator[Any]:
        for request in requests:  # on a thread that is not in the call's context
            self._auth.charge(caller, rule.count(request))
            yield request


def _token(metadata: Metadata) -> str:
    found: str | bytes = ""
    for key, value in metadata:
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
