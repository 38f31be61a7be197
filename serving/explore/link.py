"""The server that the pages ask: one answer for each question, and another connection where the server is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from recsys.errors import RefusedError
from recsys.export.release import Release
from serving.explore.comparison import Comparison, compare
from serving.explore.trail import Question
from twintower.client import Client
from twintower.errors import TwintowerError, UnavailableError, describe
from twintower.types import Reformulation, ServedRelease

READY_S = 5.0
PATIENCE = 3
"""Checks in a row that may fail before a connection is given up."""


@dataclass(frozen=True)
class Answer:
    """What the server says to one question.

    Attributes:
        question: what was asked.
        comparison: the original list, and the one that the marks moved.
        moved: all that is known of the move.
    """

    question: Question
    comparison: Comparison
    moved: Reformulation


class Link:
    """A connection to a server that is made anew where the server is gone; use it as a context manager.

    Threads may ask at the same time; one of them checks.

    Args:
        release: whose answers are wanted; those of any other are refused.
        name: what a person calls the server.
        connect: starts or reaches the server; leaving its context ends what was begun.

    Raises:
        TwintowerError: on entering: there is no server, or it serves something else.
    """

    def __init__(self, release: Release, name: str, connect: Callable[[], AbstractContextManager[Client]]) -> None:
        self.release, self.name = release, name
        self.problem = ""
        self.facts: ServedRelease
        self._connect = connect
        self._client: Client | None = None
        self._opened = ExitStack()
        self._swapping = threading.Lock()
        self._left = False
        self._failed_checks = 0

    def ask(self, question: Question) -> Answer:
        """Return the original list and the one that the marks moved.

        Args:
            question: with a subject.

        Raises:
            TwintowerError: as the calls of the client.
        """
        client = self._client
        if client is None:
            raise UnavailableError(f"{self.name} is not there.")
        query, pin = question.subject.query, self.release.fingerprint
        before = client.nearest_items(query, question.k, release_pin=pin, include_metadata=True)
        moved = client.reformulate(
            query,
            question.k,
            question.marks,
            depth=question.depth,
            reformulator=question.reformulator,
            guarded=question.guarded,
            release_pin=pin,
            include_metadata=True,
            include_explanation=True,
            include_feedback_items=question.include_marked,
        )
        return Answer(question, compare(before, moved.ranking), moved)

    def check(self) -> None:
        """See whether the server is there, and say so in `problem`; after some checks in vain connect anew."""
        if self._client is not None and self._client.is_serving():
            self.problem, self._failed_checks = "", 0
            return
        self._failed_checks += 1
        self.problem = f"{self.name} does not answer. Trying again."
        if self._failed_checks >= PATIENCE:
            self._close()
            try:
                self._open()
            except TwintowerError as error:
                self.problem = f"{self.name} does not answer: {error} Trying again."
            else:
                self.problem, self._failed_checks = "", 0

    def _open(self) -> None:
        with ExitStack() as opening:
            client = opening.enter_context(self._connect())
            client.wait_until_ready(READY_S)
            facts = client.release()
            if facts.fingerprint != self.release.fingerprint:
                advice = "Explore the release that is served, or serve this one."
                raise RefusedError(describe(self.name, facts.name, f"one that serves {self.release.name}", advice))
            with self._swapping:
                if not self._left:  # else what was begun just now ends with this block
                    self.facts, self._client, self._opened = facts, client, opening.pop_all()

    def _close(self) -> None:
        with self._swapping:
            self._client, opened, self._opened = None, self._opened, ExitStack()
        opened.close()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._close()
