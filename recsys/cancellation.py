"""Cancellation of long work: loops of the library ask at checkpoints whether somebody still waits for the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Check = Callable[[], None]
"""Raises when the work of its context is no longer wanted. Called every few milliseconds or more often."""
Entry = TypeVar("Entry")

_check: ContextVar[Check | None] = ContextVar("check", default=None)


def cancel_by(check: Check | None) -> None:
    """Let a check end the work of this context (of one call, as a server makes them); None lets nothing end it."""
    _check.set(check)


def checkpoint() -> None:
    """End the work of this context here if it is no longer wanted.

    Long work calls this at least every few milliseconds, where nothing is half done and no lock is held: a server may
    also let other work go first here.

    Raises:
        Exception: what the check of the context raises; nothing is raised in a context without a check.
    """
    check = _check.get()
    if check is not None:
        check()


def checked(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Return the entries, with a checkpoint before each."""
    for entry in entries:
        checkpoint()
        yield entry


@contextmanager
def shielded() -> Iterator[None]:
    """Let the block run to its end: its checkpoints do nothing. For changes that must not stay half done."""
    token = _check.set(None)
    try:
        yield
    finally:
        _check.reset(token)
