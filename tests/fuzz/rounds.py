"""One round of fuzz: drawn messages and mangled bytes to one method."""

from __future__ import annotations

from collections import Counter

from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.messages import mangled, messages
from tests.fuzz.target import Target


def round_of(target: Target, method: MethodDescriptor, number: int, examples: int) -> Counter[str]:
    """Send drawn messages, then nearly messages, to a method.

    Args:
        target: where.
        method: to which method.
        number: the seed: the same one draws the same messages.
        examples: how many of either.

    Returns:
        How many answers had which code.

    Raises:
        AssertionError: an answer was wrong; the smallest request with such an answer is a note of it.
    """
    codes: Counter[str] = Counter()
    whole = messages(method.input_type, target.drawn).map(lambda message: message.SerializeToString())
    for contents in (whole, mangled(whole)):

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(contents, min_size=1, max_size=3 if method.client_streaming else 1))
        def send(requests: list[bytes]) -> None:
            codes[target.call(method, requests).name] += 1

        send()
    return codes
