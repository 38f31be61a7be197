"""Work can be ended at its checkpoints, in one context at a time, and not where it must not stay half done."""

from __future__ import annotations

import contextvars

import pytest

from recsys.cancellation import cancel_by, checked, checkpoint, shielded


class Unwanted(Exception):
    """Nobody waits any more."""


def refuse() -> None:
    raise Unwanted


def test_a_check_ends_the_work_of_its_own_context_only():
    checkpoint()
    cancelled = contextvars.copy_context()
    cancelled.run(cancel_by, refuse)
    with pytest.raises(Unwanted):
        cancelled.run(checkpoint)
    checkpoint()


def test_a_loop_over_checked_entries_ends_before_the_entry_at_which_it_is_no_longer_wanted():
    seen: list[int] = []

    def work() -> None:
        cancel_by(lambda: refuse() if len(seen) == 2 else None)
        seen.extend(checked(range(5)))

    with pytest.raises(Unwanted):
        contextvars.copy_context().run(work)
    assert seen == [0, 1]


def test_shielded_work_goes_on_to_its_end_and_what_follows_does_not():
    done: list[str] = []

    def work() -> None:
        cancel_by(refuse)
        with shielded():
            checkpoint()
            done.append("shielded")
        checkpoint()

    with pytest.raises(Unwanted):
        contextvars.copy_context().run(work)
    assert done == ["shielded"]
