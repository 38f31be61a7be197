"""Repeat consumption is recognized by the share of interactions that come back to an item later."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.repeats import is_repeat_consumption, repeat_rate
from recsys.types import Interactions


def met(items, times=None):
    queries = np.zeros(len(items), np.int32)
    return Interactions(queries, np.array(items, np.int32), None if times is None else np.array(times))


def test_only_a_later_meeting_with_the_same_item_is_a_repeat():
    # 5 twice in the basket of day 1 and again on day 2: one repeat of four.
    assert repeat_rate(met([5, 5, 6, 5], [1, 1, 1, 2])) == pytest.approx(1 / 4)
    assert repeat_rate(met([5, 5, 6, 5])) == pytest.approx(2 / 4)
    assert repeat_rate(met([])) == 0


def test_other_entities_repeat_nothing():
    both = Interactions(np.array([0, 1], np.int32), np.array([5, 5], np.int32), np.array([1, 2]))
    assert repeat_rate(both) == 0


def test_a_tenth_of_repeats_is_repeat_consumption():
    assert is_repeat_consumption(met([*range(9), 0], range(10)))
    assert not is_repeat_consumption(met([*range(10), 0], range(11)))
