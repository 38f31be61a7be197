"""Sessions: several rounds of feedback on one query, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from twintower import codecs, requests
from twintower.errors import DeadlineError, RequestError
from twintower.status import error_from_call
from twintower.transport import AsyncTransport, Transport
from twintower.types import FeedbackItem, Reformulation
from twintower.v1 import recommendation_service_pb2 as pb

T = TypeVar("T")
SESSION_S = 600.0


class Session:
    """Several rounds of feedback on one query, from a thread; made by `Client.session`.

    All its answers come from one release. An error in any round ends the session, and the server keeps nothing of it.

    Args:
        transport: of the client.
        begin: the request that opens the session.
        session_s: time allowed for all rounds, seconds; each one has the client's `timeout_s`.
    """

    def __init__(self, transport: Transport, begin: pb.ReformulateRequest, *, session_s: float) -> None:
        self._begin: pb.ReformulateRequest | None = begin
        self._target, self._timeout_s = transport.target, transport.timeout_s
        self._sent: queue.SimpleQueue[pb.SessionRequest | None] = queue.SimpleQueue()
        self._call = transport.recommendation.Session(
            iter(self._sent.get, None), timeout=session_s, metadata=transport.metadata()
        )

    def reformulate(self, feedback: Sequence[FeedbackItem] = (), *, pseudo: bool = False) -> Reformulation:
        """Return the answer after one more round of feedback.

        Args:
            feedback: items since the last round; a later item replaces an earlier one of the same id.
            pseudo: from now on also take the first `depth` results of the original query as relevant.

        Raises:
            TwintowerError: as every call of the client; the session is over.
        """
        self._sent.put(requests.session_round(self._begin, feedback, pseudo))
        self._begin = None
        with self._patience() as late:
            try:
                return _answered(next(self._call, None))
            except grpc.RpcError as error:
                raise _late(self._timeout_s) if late.is_set() else error_from_call(error, self._target) from None

    def close(self) -> None:
        """End the session."""
        self._sent.put(None)
        with self._patience():
            self._call.code()

    @contextmanager
    def _patience(self) -> Iterator[threading.Event]:
        """Cancel the session when the block takes longer than a round may, and set the event."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._call.cancel()

        timer = threading.Timer(self._timeout_s, give_up)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSession:
    """Several rounds of feedback on one query, from asyncio; made by `AsyncClient.session`, as `Session`.

    Args:
        transport: of the client.
        begin: the request that opens the session.
        session_s: time allowed for all rounds, seconds; each one has the client's `timeout_s`.
    """

    def __init__(self, transport: AsyncTransport, begin: pb.ReformulateRequest, *, session_s: float) -> None:
        self._begin: pb.ReformulateRequest | None = begin
        self._target, self._timeout_s = transport.target, transport.timeout_s
        self._ended: grpc.RpcError | None = None
        self._call = transport.recommendation.Session(timeout=session_s, metadata=transport.metadata())
        self._call.add_done_callback(self._keep_status)

    async def reformulate(self, feedback: Sequence[FeedbackItem] = (), *, pseudo: bool = False) -> Reformulation:
        """Return the answer after one more round of feedback.

        Args:
            feedback: items since the last round; a later item replaces an earlier one of the same id.
            pseudo: from now on also take the first `depth` results of the original query as relevant.

        Raises:
            TwintowerError: as every call of the client; the session is over.
        """
        request = requests.session_round(self._begin, feedback, pseudo)
        self._begin = None
        try:
            async with asyncio.timeout(self._timeout_s):
                if not self._call.done():
                    await self._call.write(request)
                response = await self._call.read()
            return _answered(None if response is grpc.aio.EOF else response)
        except TimeoutError:
            self._call.cancel()
            raise _late(self._timeout_s) from None
        except grpc.RpcError as error:
            raise error_from_call(self._ended or error, self._target) from None

    async def close(self) -> None:
        """End the session."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._call.done_writing()
                await self._call.code()
        except TimeoutError:
            self._call.cancel()

    def _keep_status(self, call: grpc.aio.Call) -> None:
        """Keep the status that the server ended the call with: a write that fails after it replaces it by INTERNAL."""
        self._ended = grpc.aio.AioRpcError(
            _at_once(call.code()),
            _at_once(call.initial_metadata()),
            _at_once(call.trailing_metadata()),
            _at_once(call.details()),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _answered(response: pb.SessionResponse | None) -> Reformulation:
    if response is None:
        raise RequestError("session", "got feedback after it was closed, expected none. Begin another")
    return codecs.reformulation_from_proto(response.answer)


def _late(timeout_s: float) -> DeadlineError:
    return DeadlineError(f"the round did not end within {timeout_s:g} s. Allow more time, or request less.")


def _at_once(known: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as end:
        return end.value
    known.close()
    raise RuntimeError("the coroutine waits for something.")
