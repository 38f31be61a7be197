"""The stages of an answer can be watched, in one context at a time."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.stages import stage, watch


def test_a_stage_runs_within_what_its_watcher_returns_and_only_in_its_context():
    events: list[str] = []

    @contextmanager
    def watcher(name: str) -> Iterator[None]:
        events.append(f"begin {name}")
        yield
        events.append(f"end {name}")

    @stage("double")
    def double(number: int) -> int:
        events.append("work")
        return 2 * number

    watched = contextvars.copy_context()
    watched.run(watch, watcher)
    assert watched.run(double, 3) == 6
    assert events == ["begin double", "work", "end double"]
    assert double(4) == 8
    assert events[3:] == ["work"]
