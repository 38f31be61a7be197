"""Places for calls that stay open: how many there are, and how many one caller may hold."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.runtime.streams import Places
from twintower.errors import OverloadedError, QuotaError


def test_a_caller_that_holds_its_share_is_refused_and_others_are_not():
    places = Places("sessions", 3, 2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.held_by("shop"))
        with pytest.raises(QuotaError, match="2 sessions are open") as caught, places.held_by("shop"):
            pass
        assert caught.value.retry_after_s > 0
        held.enter_context(places.held_by("other"))
        with pytest.raises(OverloadedError, match="all 3 places for sessions") as full, places.held_by("third"):
            pass
        assert full.value.retry_after_s > 0
    with places.held_by("shop"):
        pass


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc")), st.integers(1, 4), st.integers(1, 4))
def test_no_more_are_held_than_there_are_and_all_are_free_again(callers, total, per_caller):
    places, counts = Places("sessions", total, per_caller), dict.fromkeys("abc", 0)
    with ExitStack() as held:
        for caller in callers:
            may = sum(counts.values()) < total and counts[caller] < per_caller
            if may:
                held.enter_context(places.held_by(caller))
                counts[caller] += 1
            else:
                with pytest.raises((OverloadedError, QuotaError)):
                    held.enter_context(places.held_by(caller))
    assert not places._held
