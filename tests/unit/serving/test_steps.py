"""Calls in steps: each work is answered, by itself or with others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from serving.runtime.steps import Steps, Work, alone, together


def doubled(numbers: Sequence[int]) -> list[int]:
    if 0 in numbers:
        raise ValueError("no zeros")
    return [2 * number for number in numbers]


def summed(*numbers: int) -> Steps[int]:
    total = 0
    for number in numbers:
        total += yield Work(doubled, number, "doubled")
    return total


def test_steps_alone_end_in_their_response():
    assert alone(summed()) == 0
    assert alone(summed(1, 2)) == 2 + 4


def test_the_error_of_a_work_is_raised_where_it_was_asked_for():
    with pytest.raises(ValueError, match="no zeros"):
        alone(summed(1, 0))

    def forgiving() -> Steps[int]:
        try:
            return (yield Work(doubled, 0))
        except ValueError:
            return (yield Work(doubled, 5))

    assert alone(forgiving()) == 10


def test_works_that_are_alike_are_done_at_once():
    asked = []

    def do(numbers: Sequence[int]) -> list[int]:
        asked.append(list(numbers))
        return doubled(numbers)

    assert together([Work(do, number) for number in (1, 2, 3)]) == [2, 4, 6]
    assert asked == [[1, 2, 3]]


def test_one_that_fails_leaves_the_others_as_they_were():
    first, wrong, last = together([Work(doubled, number) for number in (1, 0, 3)])
    assert (first, last) == (2, 6)
    assert isinstance(wrong, ValueError)


def test_works_that_get_too_few_answers_are_done_one_by_one():
    first, lost, last = together([Work(lambda asked: [n for n in asked if n], number) for number in (1, 0, 3)])
    assert (first, last) == (1, 3)
    assert isinstance(lost, ValueError)
