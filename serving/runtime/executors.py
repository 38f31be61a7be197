"""What works on the calls of a server: threads by the kind of call, and the bounds of what may wait for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from serving.runtime.admission import Admission
from serving.runtime.call_threads import MAX_LONG, Arrivals, CallThreads, StreamThreads, TurnThreads
from serving.runtime.deadlines import Deadlines
from serving.runtime.lane import Lane
from serving.runtime.streams import Places, Streams
from serving.runtime.turns import Turns
from serving.settings import ServerSettings
from serving.trust.rules import CHECK, NEAREST_ITEMS, REFLECTION, REFORMULATE, SESSION, WATCH

IN_STEPS = frozenset((NEAREST_ITEMS, REFORMULATE))
"""Methods whose behaviour is a generator (`serving.runtime.steps`)."""
MIN_TURNS = 2
"""Long calls that work at the same time, however few cores there are: of a single one others would await each step."""
MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER = 16, 4


class Executors:
    """Everything that works on calls.

    Calls that stay open, and health checks, have threads of their own: they hold up no others, and no others them.

    Args:
        settings: of the server.
        arrivals: waits for requests.
        deadlines: ends what takes too long.
        told: is told how many works were done at once.

    Attributes:
        admission: the queue of all calls but health checks and those that stay open.
        turns: of calls that have threads.
        threads: work on calls, one each.
        lane: works on calls in steps.
        streams: bounds of calls that stay open, by the method's full name.
        by_method: what works on calls of a method, where it is not `threads`.
    """

    def __init__(
        self, settings: ServerSettings, arrivals: Arrivals, deadlines: Deadlines, told: Callable[[int], None]
    ) -> None:
        self.admission = Admission(settings.queue.max_waiting)
        self.turns = Turns(min(settings.worker_threads, max(len(os.sched_getaffinity(0)), MIN_TURNS)), MAX_LONG)
        self.threads = TurnThreads(
            self.turns, settings.worker_threads, arrivals, self.admission, thread_name_prefix="call"
        )
        self.lane = Lane(self.threads, told)
        waiting = Admission(settings.queue.max_waiting)
        checks = CallThreads(1, arrivals, waiting, thread_name_prefix="check")

        def streams(threads: type[CallThreads], what: str, total: int, per_caller: int) -> Streams:
            places = Places(what, total, min(per_caller, total))
            # One thread more than places, so that there is always one to refuse what comes too much.
            pool = threads(total + 1, arrivals, Admission(total + 1), thread_name_prefix=what)
            return Streams(pool, places, settings.idle_s, settings.max_session_s, deadlines)

        self.streams = {
            SESSION: streams(StreamThreads, "sessions", settings.max_sessions, settings.max_sessions_per_caller),
            REFLECTION: streams(StreamThreads, "reflections", MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER),
            WATCH: streams(CallThreads, "watches", settings.max_watches, settings.max_watches_per_caller),
        }
        self.by_method: dict[str, ThreadPoolExecutor] = {
            CHECK: checks,
            **{method: bounds.threads for method, bounds in self.streams.items()},
            **dict.fromkeys(IN_STEPS, self.lane),
        }
