"""Actions at a later moment: in their order, once, and not where they were called off."""

from __future__ import annotations

import threading

import pytest

from serving.runtime.deadlines import Deadlines


@pytest.fixture
def deadlines():
    made = Deadlines()
    yield made
    made.close()


def test_actions_run_in_the_order_of_their_times_whatever_the_order_of_their_coming(deadlines):
    done, last = [], threading.Event()
    deadlines.after(0.2, lambda: (done.append("late"), last.set()))
    deadlines.after(0.05, lambda: done.append("soon"))
    deadlines.after(0.0, lambda: done.append("now"))
    assert last.wait(20)
    assert done == ["now", "soon", "late"]


def test_an_action_that_was_called_off_does_not_run(deadlines):
    done, last = [], threading.Event()
    deadlines.call_off(deadlines.after(0.05, lambda: done.append("called off")))
    with deadlines.within(0.05, lambda: done.append("ended in time")):
        pass
    deadlines.after(0.1, last.set)
    assert last.wait(20)
    assert done == []


def test_an_action_runs_while_its_block_goes_on(deadlines):
    done = threading.Event()
    with deadlines.within(0.01, done.set):
        assert done.wait(20)


def test_nothing_runs_after_the_close(deadlines):
    done = threading.Event()
    deadlines.after(0.05, done.set)
    deadlines.close()
    assert not done.wait(0.3)
