"""Calls in steps: where a call needs work that is cheaper for several at once, it yields what it needs and waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

Response = TypeVar("Response")


class Work(NamedTuple):
    """What a call needs before it goes on.

    Attributes:
        do: takes what several calls ask for and returns an answer for each.
        asked: what this one asks for.
        alike: works of equal `alike` may be done together, by the `do` of any of them; None: only alone.
    """

    do: Callable[[Sequence[Any]], Sequence[Any]]
    asked: Any
    alike: Hashable | None = None


Steps = Generator[Work, Any, Response]
"""Yields work, is sent its answer or thrown its error, and returns the response."""


def alone(steps: Steps[Response]) -> Response:
    """Take all steps here and now, each work by itself, and return the response."""
    try:
        work = next(steps)
        while True:
            try:
                (answer,) = work.do([work.asked])
            except Exception as error:
                work = steps.throw(error)
            else:
                work = steps.send(answer)
    except StopIteration as ended:
        return ended.value


def together(works: Sequence[Work]) -> list[Any]:
    """Return an answer or an error for each of several works that are alike.

    Where they cannot be done together each is done by itself, so that the mistake of one is not that of the others.
    """
    try:
        answers = list(works[0].do([work.asked for work in works]))
        if len(answers) != len(works):
            raise ValueError(f"got {len(answers)} answers, expected {len(works)}")
        return answers
    except Exception as error:
        if len(works) == 1:
            return [error]
    # Not within the block above, or the error of each would drag that of all with it.
    return [answer for work in works for answer in together([work])]
