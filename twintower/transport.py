"""Calls over a channel, for threads and for asyncio: deadlines, tokens, retries, hedging, health."""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from twintower.errors import DeadlineError, SettingError, UnavailableError, describe
from twintower.policies import HedgingPolicy, RetryPolicy, check_seconds
from twintower.status import error_from_call
from twintower.tls import ClientTls
from twintower.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    operator_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
)

Metadata = tuple[tuple[str, str], ...]
Token = str | Callable[[], str]
TIMEOUT_S = 1.0
POLL_S = 0.1
HEALTH_S = 1.0
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVING = 1
"""Of `grpc.health.v1.HealthCheckResponse.ServingStatus`."""
SERVICE = recommendation_service_pb2.DESCRIPTOR.services_by_name["RecommendationService"].full_name
REPEATABLE = (
    SERVICE,
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
)
"""Services whose calls change nothing more when they are repeated."""


class _Transport:
    """What both transports share: settings, stubs, and what a failed call means.

    Args:
        target: `host:port`.
        timeout_s: time allowed for each call with its retries, seconds.
        tls: encrypts the connection; None leaves it open.
        token: an API key or a JWT, or a function that returns one for each call; None for none.
        retry: when a call is repeated.
        hedging: when a query is sent again because its answer takes long; None for never.
        grpc_module: `grpc` or `grpc.aio`, which open the channel.

    Raises:
        SettingError: an argument is wrong, or a file of `tls`.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float,
        tls: ClientTls | None,
        token: Token | None,
        retry: RetryPolicy,
        hedging: HedgingPolicy | None,
        grpc_module: Any,
    ) -> None:
        if not isinstance(target, str) or not target or " " in target or not target.isprintable():
            expected = "`host:port`, as a text of printable letters without spaces"
            raise SettingError(describe("target", target, expected))
        self.target, self.timeout_s = target, check_seconds("timeout_s", timeout_s)
        self._token, self._retry, self._hedging = token, retry, hedging
        options = [
            ("grpc.service_config", retry.service_config(REPEATABLE)),
            ("grpc.max_receive_message_length", -1),
            # gRPC would wait a second before it looks again for a server that was not there, longer than all attempts.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            # The server is reached directly, even where the environment names a proxy for the web.
            ("grpc.enable_http_proxy", 0),
        ]
        if tls is None:
            self._channel = grpc_module.insecure_channel(target, options=options)
        else:
            self._channel = grpc_module.secure_channel(target, tls.credentials(), options=options)
        self.recommendation = recommendation_service_pb2_grpc.RecommendationServiceStub(self._channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(self._channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self._channel)
        self.operator = operator_service_pb2_grpc.OperatorServiceStub(self._channel)
        # The health service's request is one string and its response one enum, each field 1: the wire of these two
        # types. So no further package is needed for its messages.
        self._health = self._channel.unary_unary(
            HEALTH_CHECK, request_serializer=StringValue.SerializeToString, response_deserializer=Int32Value.FromString
        )

    def metadata(self) -> Metadata:
        """Return the metadata of a call, with the token.

        Raises:
            SettingError: the token is no text that metadata carries.
        """
        token = self._token() if callable(self._token) else self._token
        if not token:
            return ()
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            # Not shown: it is a secret, even where it is a wrong one.
            raise SettingError("token: expected printable ASCII characters in one line.")
        return (("authorization", f"Bearer {token}"),)

    def _deadline(self, timeout_s: float | None) -> float:
        """Return when a call must have ended, on the monotonic clock.

        Raises:
            DeadlineError: at once; gRPC may still answer a call whose deadline is now.
        """
        allowed_s = self.timeout_s if timeout_s is None else timeout_s
        if allowed_s <= 0:
            raise DeadlineError("no time was left for the call (0 s). Allow more time.")
        return time.monotonic() + allowed_s

    def _health_call(self) -> Any:
        return self._health(StringValue(value=SERVICE), timeout=min(self.timeout_s or HEALTH_S, HEALTH_S))


def _unready(response: Int32Value, target: str) -> UnavailableError | None:
    return None if response.value == SERVING else UnavailableError(f"the server at {target} is loading or stopping")


class Transport(_Transport):
    """Calls from threads. Safe for calls from several threads."""

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(target, grpc_module=grpc, **settings)

    def call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Return the response of one call.

        Args:
            method: of a stub.
            request: its message.
            timeout_s: time allowed, seconds; None for the client's own.

        Raises:
            TwintowerError: it failed.
        """
        return self._repeated(self._once, method, request, timeout_s)

    def read(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Return the response of one call that only reads; it may be hedged."""
        return self._repeated(self._once if self._hedging is None else self._hedged, method, request, timeout_s)

    def _repeated(self, attempt: Callable[..., Any], method: Any, request: Any, timeout_s: float | None) -> Any:
        deadline = self._deadline(timeout_s)
        for number in itertools.count(1):
            try:
                return attempt(method, request, deadline)
            except grpc.RpcError as failed:
                error = error_from_call(failed, self.target)
            wait_s = self._retry.wait_s(error, number, deadline - time.monotonic())
            if wait_s is None:
                raise error
            time.sleep(wait_s)

    def _once(self, method: Any, request: Any, deadline: float) -> Any:
        return method(request, timeout=max(deadline - time.monotonic(), 0.0), metadata=self.metadata())

    def _hedged(self, method: Any, request: Any, deadline: float) -> Any:
        policy, metadata = self._hedging, self.metadata()
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pending: list[Any] = []
        try:
            for number in range(1, policy.max_attempts + 1):
                call = method.future(request, timeout=max(deadline - time.monotonic(), 0.0), metadata=metadata)
                pending.append(call)
                call.add_done_callback(ended.put)
                while pending:
                    try:
                        first = ended.get(timeout=policy.delay_s if number < policy.max_attempts else None)
                    except queue.Empty:
                        break
                    pending.remove(first)
                    if first.code() is not grpc.StatusCode.UNAVAILABLE:
                        return first.result()
            return first.result()
        finally:
            for call in pending:
                call.cancel()

    def readiness(self) -> UnavailableError | None:
        """Return why the server is not ready; None where it is."""
        try:
            return _unready(self._health_call(), self.target)
        except grpc.RpcError as error:
            return _as_unavailable(error, self.target)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready.

        Raises:
            UnavailableError: it is not after `timeout_s` seconds.
        """
        deadline = time.monotonic() + check_seconds("timeout_s", timeout_s)
        while (why := self.readiness()) is not None:
            if time.monotonic() > deadline:
                raise why
            time.sleep(POLL_S)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class AsyncTransport(_Transport):
    """Calls from asyncio; the methods of `Transport` as coroutines."""

    def __init__(self, target: str, **settings: Any) -> None:
        super().__init__(target, grpc_module=grpc.aio, **settings)

    async def call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Return the response of one call, as `Transport.call`."""
        return await self._repeated(self._once, method, request, timeout_s)

    async def read(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        """Return the response of one call that only reads; it may be hedged."""
        return await self._repeated(self._once if self._hedging is None else self._hedged, method, request, timeout_s)

    async def _repeated(self, attempt: Callable[..., Any], method: Any, request: Any, timeout_s: float | None) -> Any:
        deadline = self._deadline(timeout_s)
        for number in itertools.count(1):
            try:
                return await attempt(method, request, deadline)
            except grpc.RpcError as failed:
                error = error_from_call(failed, self.target)
            wait_s = self._retry.wait_s(error, number, deadline - time.monotonic())
            if wait_s is None:
                raise error
            await asyncio.sleep(wait_s)

    async def _once(self, method: Any, request: Any, deadline: float) -> Any:
        return await method(request, timeout=max(deadline - time.monotonic(), 0.0), metadata=self.metadata())

    async def _hedged(self, method: Any, request: Any, deadline: float) -> Any:
        policy = self._hedging
        pending: set[asyncio.Task[Any]] = set()
        try:
            for number in range(1, policy.max_attempts + 1):
                pending.add(asyncio.ensure_future(self._once(method, request, deadline)))
                while pending:
                    delay_s = policy.delay_s if number < policy.max_attempts else None
                    done, pending = await asyncio.wait(pending, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        break
                    for first in done:
                        failed = first.exception()
                        if not isinstance(failed, grpc.RpcError) or failed.code() is not grpc.StatusCode.UNAVAILABLE:
                            return first.result()
            return first.result()
        finally:
            for task in pending:
                task.cancel()

    async def readiness(self) -> UnavailableError | None:
        """Return why the server is not ready; None where it is."""
        try:
            return _unready(await self._health_call(), self.target)
        except grpc.RpcError as error:
            return _as_unavailable(error, self.target)

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready, as `Transport.wait_until_ready`."""
        deadline = time.monotonic() + check_seconds("timeout_s", timeout_s)
        while (why := await self.readiness()) is not None:
            if time.monotonic() > deadline:
                raise why
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _as_unavailable(error: grpc.RpcError, target: str) -> UnavailableError:
    found = error_from_call(error, target)
    return found if isinstance(found, UnavailableError) else UnavailableError(f"the server at {target}: {found}")
