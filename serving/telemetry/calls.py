"""What one call tells of itself on its way: one record, which log, metrics and samples read once it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from recsys.experiment.assignment import Assignment
from recsys.export.release import Release
from recsys.retrieval import Answer, Retriever
from twintower.types import Query


@dataclass(frozen=True)
class Lazy(Sequence[Any]):
    """Entries that are made when somebody looks at them.

    Attributes:
        size: how many there are.
        entry: makes the one of a place.
    """

    size: int
    entry: Callable[[int], Any]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: Any) -> Any:
        return self.entry(place)


class Searched(NamedTuple):
    """A search that may be repeated exactly to see what it missed.

    Attributes:
        retriever: that answered.
        queries: that it answered.
        k: places asked for.
        answers: one for each query.
    """

    retriever: Retriever
    queries: Sequence[Query]
    k: int
    answers: Sequence[Answer]


class Move(NamedTuple):
    """One query moved by feedback.

    Attributes:
        feedback_count: items of feedback that could count, pseudo feedback included.
        fell_back: the guard kept the original query.
    """

    feedback_count: int
    fell_back: bool


@dataclass(slots=True, eq=False)
class Call:
    """One call from its first moment to its end; those who work on it fill it in.

    Attributes:
        method: full name, such as `/twintower.v1.RecommendationService/NearestItems`.
        request_id: the caller's, or one made up.
        release: that answered.
        plan: how the items were searched; several plans in one call are `mixed`.
        query_count: queries of a call that brings several; 0 for other calls.
        searched: what may be searched again exactly.
        moves: one for each query, or round of a session, that feedback moved.
        assignments: experiments that the request was in.
        not_treated: it was in some, and no release could serve their arms.
        trace_id: 32 hex digits where the call is traced.
        caller: who called, by the name that the auth file gives; empty where everybody may.
        refusal: why the caller was not let in, in more detail than it was told.
        reason: why it failed, one of the reasons in `serving.status`; empty where it did not, or its caller has gone.
        code: name of its status, once it has ended.
        duration_s: how long it took, once it has ended.
    """

    method: str
    request_id: str
    release: Release | None = None
    plan: str = ""
    query_count: int = 0
    searched: Searched | None = None
    moves: list[Move] = field(default_factory=list)
    assignments: tuple[Assignment, ...] = ()
    not_treated: bool = False
    trace_id: str = ""
    caller: str = ""
    refusal: str = ""
    reason: str = ""
    code: str = ""
    duration_s: float = 0.0


Observer = Callable[[Call], None]
"""Is shown every call that has ended, on the thread that worked on it: must be quick and must not raise."""

_NAMES = {code: code.name for code in grpc.StatusCode}
_current: ContextVar[Call | None] = ContextVar("call", default=None)


def begin(call: Call) -> None:
    """Make a call the one being worked on in this context; gRPC gives each call a context of its own."""
    _current.set(call)


def current() -> Call:
    """Return the call being worked on; outside of calls one that nobody reads."""
    return _current.get() or Call("", "")


def code_of(context: grpc.ServicerContext) -> str:
    """Return the name of the status that a call ends with; CANCELLED where its caller has gone."""
    return _NAMES[context.code() or (grpc.StatusCode.OK if context.is_active() else grpc.StatusCode.CANCELLED)]
