"""Single queries of several threads as one batch: queries that arrive during a call share the next one."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from twintower import codecs, requests
from twintower.client import Client
from twintower.errors import DeadlineError, TwintowerError, UnavailableError
from twintower.requests import FilterArgument
from twintower.types import Diversity, ExperimentUnit, Query, Ranking
from twintower.v1 import recommendation_service_pb2 as pb

MAX_TOGETHER = 64
"""Queries in one batch."""
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Entry(Generic[Asked, Answer]):
    """A query that waits.

    Attributes:
        asked: the query.
        deadline_s: on the monotonic clock.
        turn: held until there is something for its thread to do.
        answer: None until somebody else's call has brought it.
        error: of somebody else's call, that its own would meet, too.
        leads: its thread is to call, for itself and for those that wait.
    """

    asked: Asked
    deadline_s: float
    turn: threading.Lock = field(default_factory=threading.Lock)
    answer: Answer | None = None
    error: TwintowerError | None = None
    leads: bool = False

    def __post_init__(self) -> None:
        self.turn.acquire()

    @property
    def left_s(self) -> float:
        """The seconds that are left; a call with 0 s left fails at once."""
        return max(self.deadline_s - time.monotonic(), 0.0)


class Coalescer(Generic[Asked, Answer]):
    """Lets threads that ask at the same time ask together. Safe for calls from several threads.

    There is one call under way for all queries of a kind. Who comes first calls at once and alone; who comes meanwhile
    waits, and goes with all others that wait in the next call, which the first of them makes. So nobody waits for
    company, and the more threads ask, the more queries share a call. Where a call for several fails, each of them calls
    for itself, so that nobody gets another's error; but a server that has too much to do, or cannot be reached, is not
    asked again.

    Args:
        alone: calls for one query, given the seconds that it may take.
        together: calls for several; returns their answers in the same order.
    """

    def __init__(
        self, alone: Callable[[Asked, float], Answer], together: Callable[[Sequence[Asked], float], Sequence[Answer]]
    ) -> None:
        self._alone, self._together = alone, together
        self._lock = threading.Lock()
        # Who waits, by kind; a kind is here while a call for it is under way.
        self._waiting: dict[Hashable, deque[_Entry[Asked, Answer]]] = {}

    def ask(self, kind: Hashable, asked: Asked, timeout_s: float) -> Answer:
        """Return the answer to a query.

        Args:
            kind: only queries of the same kind go together.
            asked: the query.
            timeout_s: time allowed, seconds.

        Raises:
            DeadlineError: it did not get its turn in time.
            TwintowerError: whatever a call raises.
        """
        entry = _Entry[Asked, Answer](asked, time.monotonic() + timeout_s)
        try:
            with self._lock:
                waiting = self._waiting.get(kind)
                if waiting is None:
                    self._waiting[kind], entry.leads = deque(), True
                else:
                    waiting.append(entry)
            if not entry.leads and not entry.turn.acquire(timeout=timeout_s):
                raise DeadlineError(f"did not get its turn within {timeout_s:g} s. Allow more time, or request less.")
        except BaseException:  # an interrupt, too: nobody else would ever lead
            self._give_up(kind, entry)
            raise
        if entry.leads:
            return self._lead(kind, entry)
        return self._outcome(entry)

    def _lead(self, kind: Hashable, entry: _Entry[Asked, Answer]) -> Answer:
        """Call for an entry and for those that wait; then the next one leads."""
        others: list[_Entry[Asked, Answer]] = []
        try:
            with self._lock:
                waiting = self._waiting[kind]
                others += [waiting.popleft() for _ in range(min(len(waiting), MAX_TOGETHER - 1))]
            if others:
                self._share((entry, *others))
            return self._outcome(entry)
        finally:
            self._pass_on(kind)
            for each in others:
                each.turn.release()

    def _share(self, group: Sequence[_Entry[Asked, Answer]]) -> None:
        """Call for several, and give each its answer; where it fails, none has one, and perhaps an error instead."""
        try:
            # The first one came first: no other has less time left.
            answers = self._together([each.asked for each in group], group[0].left_s)
        except UnavailableError as error:
            for each in group:
                each.error = copy.copy(error)
        except TwintowerError:
            pass
        else:
            for each, answer in zip(group, answers, strict=True):
                each.answer = answer

    def _outcome(self, entry: _Entry[Asked, Answer]) -> Answer:
        """Return what another call has brought, and otherwise that of its own."""
        if entry.error is not None:
            raise entry.error
        return self._alone(entry.asked, entry.left_s) if entry.answer is None else entry.answer

    def _pass_on(self, kind: Hashable) -> None:
        with self._lock:
            if waiting := self._waiting[kind]:
                following = waiting.popleft()
                following.leads = True
                following.turn.release()
            else:
                del self._waiting[kind]

    def _give_up(self, kind: Hashable, entry: _Entry[Asked, Answer]) -> None:
        """Leave the line; who was to lead at this very moment lets the next one."""
        with self._lock:
            if not entry.leads and entry in (waiting := self._waiting.get(kind, ())):
                waiting.remove(entry)
        if entry.leads:
            self._pass_on(kind)


class CoalescingClient(Client):
    """A client whose `nearest_items` calls from several threads go to the server together, as one batch.

    The server answers 1.8 times as many queries of 16 threads and 2.5 times as many of 32, and as many of one. Not for
    servers that log what they show: in a batch nothing is logged and there is no `attribution_token`, and which calls
    share a batch is chance. Queries with a unit or with diversity go alone.

    Args:
        target: `host:port` of the server.
        settings: see `Client`.
    """

    def __init__(self, target: str = "127.0.0.1:50051", **settings: Any) -> None:
        super().__init__(target, **settings)
        self._coalescer = Coalescer(self._alone, self._together)

    def nearest_items(
        self,
        query: Query,
        k: int = 10,
        *,
        filter: FilterArgument | None = None,
        exclude_seen: bool = False,
        diversity: Diversity | None = None,
        unit: ExperimentUnit | None = None,
        include_metadata: bool = False,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> Ranking:
        """Return the nearest items of one query, as `Client.nearest_items`."""
        request = requests.nearest_items(
            query,
            k,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            unit=unit,
            include_metadata=include_metadata,
            release_pin=release_pin,
            release_label=release_label,
        )
        if unit is not None or diversity is not None:
            return self._alone(request, self._transport.timeout_s)
        kind = k, release_pin, release_label, include_metadata
        return self._coalescer.ask(kind, request, self._transport.timeout_s)

    def _alone(self, request: pb.NearestItemsRequest, timeout_s: float) -> Ranking:
        method = self._transport.recommendation.NearestItems
        return codecs.ranking_from_proto(self._transport.read(method, request, timeout_s))

    def _together(self, given: Sequence[pb.NearestItemsRequest], timeout_s: float) -> list[Ranking]:
        first = given[0]
        batch = pb.BatchNearestItemsRequest(
            queries=[request.query for request in given],
            k=first.k,
            release_pin=first.release_pin,
            release_label=first.release_label,
            include_metadata=first.include_metadata,
        )
        method = self._transport.recommendation.BatchNearestItems
        return codecs.rankings_from_proto(self._transport.read(method, batch, timeout_s))
