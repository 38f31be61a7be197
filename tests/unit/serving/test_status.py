"""Errors on their way to the caller and back."""

from __future__ import annotations

import re

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from recsys import errors
from recsys.errors import StorageError
from serving.errors import GoneError
from serving.status import status_of
from twintower.errors import (
    AnswerTooLargeError,
    DeadlineError,
    ForbiddenError,
    MissingError,
    OverloadedError,
    QuotaError,
    ReleasePinError,
    ReleaseRefusedError,
    RequestError,
    ServerError,
    TwintowerError,
    UnauthenticatedError,
    UnavailableError,
)
from twintower.status import error_from_call

EXAMPLES = [
    RequestError("k", "too small"),
    ReleasePinError("another is served", "v7"),
    UnavailableError("loading", 2.5),
    DeadlineError("too late"),
    UnauthenticatedError("who is it"),
    ForbiddenError("not you"),
    QuotaError("not now", 1.5),
    OverloadedError("too many", 0.5),
    AnswerTooLargeError("too many bytes"),
    GoneError("nobody there"),
    ServerError("broken"),
    ZeroDivisionError("nobody foresaw this"),
    *(
        kind("no such thing")
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TwintowerError) and kind is not RequestError
    ),
]


class FailedCall(grpc.RpcError, grpc.Call):
    """A call that ended with a status, as a stub raises it."""

    def __init__(self, answer: status_pb2.Status) -> None:
        self._status = rpc_status.to_status(answer)

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._status.trailing_metadata

    initial_metadata = is_active = time_remaining = cancel = add_callback = None


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_has_exactly_one_error_info_with_a_reason_in_capitals(error):
    answer = status_of(error, "r1")
    infos = [
        error_details_pb2.ErrorInfo() for packed in answer.details if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    ]
    assert len(infos) == 1
    next(packed for packed in answer.details if packed.Unpack(infos[0]))
    assert re.fullmatch(r"[A-Z][A-Z_]+", infos[0].reason)
    assert (infos[0].domain, infos[0].metadata["request_id"]) == ("twintower", "r1")
    assert answer.message


@pytest.mark.parametrize(
    "error",
    [
        RequestError("query.vector", "ü"),
        ReleasePinError("other", "v7"),
        MissingError("gone"),
        DeadlineError("late"),
        UnauthenticatedError("who is it"),
        ForbiddenError("not you"),
        QuotaError("not now", 1.5),
        OverloadedError("too many", 0.5),
        AnswerTooLargeError("too many bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_the_caller_can_mend_comes_back_as_it_was_raised(error):
    back = error_from_call(FailedCall(status_of(error, "r1")), "server:1")
    assert type(back) is type(error)
    assert str(error) in str(back)
    assert {**vars(back)} == {**vars(error)}


def test_the_time_to_wait_comes_back_in_seconds():
    back = error_from_call(FailedCall(status_of(UnavailableError("loading", 2.5), "r1")), "server:1")
    assert isinstance(back, UnavailableError)
    assert back.retry_after_s == 2.5


def test_the_request_id_of_a_server_failure_reaches_the_caller_and_nothing_else_does():
    back = error_from_call(FailedCall(status_of(OSError("/srv/secret"), "r1")), "server:1")
    assert isinstance(back, ServerError)
    assert "r1" in str(back)
    assert "secret" not in str(back)


def test_a_full_disk_may_be_tried_again_and_its_folder_is_not_told():
    back = error_from_call(FailedCall(status_of(StorageError("/srv/secret: no space left"), "r1")), "server:1")
    assert isinstance(back, UnavailableError)
    assert back.retry_after_s > 0
    assert "secret" not in str(back)


def test_a_release_that_was_refused_is_told_from_one_that_is_not_served():
    back = error_from_call(
        FailedCall(status_of(ReleaseRefusedError("blocks-1 was refused: damaged", "blocks-1"), "r1")),
        "server:1",
    )
    assert isinstance(back, ReleaseRefusedError)
    assert (back.release, str(back)) == ("blocks-1", "blocks-1 was refused: damaged")
