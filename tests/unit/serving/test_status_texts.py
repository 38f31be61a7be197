"""Any text of a caller in an error: what goes into a status can be sent, and read by a client."""

from __future__ import annotations

import pytest
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.status import REFUSALS, reason_of, status_of
from twintower.errors import MissingError, ReleasePinError, RequestError, UnauthenticatedError

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
CLIENT_READS_BYTES = 8192
"""Of metadata, unless a client asks for more."""


@settings(deadline=None)
@given(ANY_TEXT, st.sampled_from([1, 10_000]))
def test_any_text_makes_a_status_that_fits_into_a_client(text, times):
    text = text * times
    for error in (
        RequestError(text, text), ReleasePinError(text, text), MissingError(text), UnauthenticatedError(text),
    ):  # fmt: skip
        status = rpc_status.to_status(status_of(error, "f" * 128))
        escaped = sum(1 if 32 <= byte < 127 else 3 for byte in status.details.encode())
        ((_, packed),) = status.trailing_metadata
        assert escaped + len(packed) * 4 / 3 < CLIENT_READS_BYTES - 500


def test_a_text_that_is_short_and_plain_stays_as_it_is():
    assert status_of(MissingError("no release 'ä'."), "").message == "no release 'ä'."


@pytest.mark.parametrize(
    ("text", "shown"), [("a\ud800", "a\\ud800"), ("x" * 2000, "x" * 1000 + "..."), ("ä" * 600, "ä" * 500 + "...")]
)
def test_a_text_is_escaped_and_cut_between_letters(text, shown):
    assert status_of(MissingError(text), "").message == shown


def test_the_reason_of_a_status_is_that_of_its_error_info():
    assert reason_of(status_of(UnauthenticatedError("no"), "")) in REFUSALS
