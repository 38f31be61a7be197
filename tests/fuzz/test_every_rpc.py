"""Whatever is sent to any method: the server answers with a documented code, tells nothing of itself, and goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.rounds import round_of
from tests.fuzz.target import METHODS, Target


@pytest.fixture(scope="module")
def target(block_release) -> Iterator[Target]:
    up = Target(block_release.folder)
    yield up
    up.close()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_request_makes_the_server_fail_or_talk(target, method):
    codes = round_of(target, method, number=1, examples=30)
    assert codes.total() >= 30
    assert target.failures() == []
