"""How often each caller may ask."""

from __future__ import annotations

import pytest

from serving.trust.quotas import MOST_BUCKETS, Quota, Quotas
from twintower.errors import QuotaError


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(quotas: Quotas, name: str, quota: Quota, count: int = 1) -> float:
    with pytest.raises(QuotaError) as caught:
        quotas.charge(name, quota, count)
    return caught.value.retry_after_s


def test_a_burst_is_let_in_and_then_as_many_as_the_rate(clock):
    quotas, quota = Quotas(clock), Quota(queries_per_s=2, burst=3)
    for _ in range(3):
        quotas.charge("ann", quota, 1)
    # nothing is left, and one query takes 1 / 2 s to come
    assert refused(quotas, "ann", quota) == pytest.approx(0.5)
    clock.now += 0.25
    assert refused(quotas, "ann", quota) == pytest.approx(0.25)
    clock.now += 0.25
    quotas.charge("ann", quota, 1)
    # after a long rest there are 3 and not more
    clock.now += 1000
    for _ in range(3):
        quotas.charge("ann", quota, 1)
    refused(quotas, "ann", quota)


def test_a_batch_larger_than_the_burst_is_let_in_and_waited_for_afterwards(clock):
    quotas, quota = Quotas(clock), Quota(queries_per_s=10, burst=5)
    quotas.charge("ann", quota, 25)
    # 5 - 25 = -20 are left; at 10 a second 1 is there after 2.1 s
    assert refused(quotas, "ann", quota) == pytest.approx(2.1)
    clock.now += 2.1 + 1e-6
    quotas.charge("ann", quota, 1)


def test_what_one_caller_uses_another_has(clock):
    quotas, quota = Quotas(clock), Quota(queries_per_s=1, burst=1)
    quotas.charge("ann", quota, 1)
    refused(quotas, "ann", quota)
    quotas.charge("bob", quota, 1)


def test_callers_that_rest_are_forgotten_and_those_in_debt_are_not(clock):
    quotas, quota = Quotas(clock), Quota(queries_per_s=1, burst=1)
    quotas.charge("ann", quota, 1_000_000)
    for number in range(3 * MOST_BUCKETS):
        clock.now += 0.01
        quotas.charge(f"guest {number}", quota, 1)
    # each guest is at rest again after 1 s, which is 100 guests later
    assert len(quotas._buckets) <= MOST_BUCKETS + 1
    refused(quotas, "ann", quota)


def test_a_check_takes_nothing_and_refuses_only_where_more_than_the_debt_allowed_is_left_to_wait():
    now = [0.0]
    quotas, quota = Quotas(lambda: now[0]), Quota(queries_per_s=2.0, burst=1)
    for _ in range(3):
        quotas.check("ann", quota)
    quotas.charge("ann", quota, 3)
    # 1 - 3 = -2 are left, and 1 is needed: 3 / 2 = 1.5 s
    with pytest.raises(QuotaError) as caught:
        quotas.check("ann", quota, 1.0)
    assert caught.value.retry_after_s == pytest.approx(1.5)
    quotas.check("ann", quota, 1.5)
    now[0] = 1.5
    quotas.check("ann", quota)
