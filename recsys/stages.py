"""The stages of an answer (encode, search, reformulate), for those who want to watch them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Returned = TypeVar("Returned")
Watcher = Callable[[str], AbstractContextManager[Any]]
"""Takes a stage's name and returns the block that the stage runs in."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def watch(watcher: Watcher | None) -> None:
    """Run every stage of this context (of one call, as a server makes them) within what the watcher returns."""
    _watcher.set(watcher)


def is_watched() -> bool:
    """Return whether anybody watches the stages of this context."""
    return _watcher.get() is not None


def stage(name: str) -> Callable[[Callable[Given, Returned]], Callable[Given, Returned]]:
    """Decorator: a function that is a stage of this name."""

    def named(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
        @functools.wraps(function)
        def run(*args: Given.args, **settings: Given.kwargs) -> Returned:
            watcher = _watcher.get()
            if watcher is None:
                return function(*args, **settings)
            with watcher(name):
                return function(*args, **settings)

        return run

    return named
