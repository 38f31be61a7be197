"""Errors of calls: the `google.rpc.Status` of a failed call as an exception (AIP-193)."""

from __future__ import annotations

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from twintower.errors import (
    AnswerTooLargeError,
    CatalogReadOnlyError,
    DeadlineError,
    EventsNotKeptError,
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

DOMAIN = "twintower"
"""Of every ErrorInfo."""
ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
CATALOG_READ_ONLY, EVENTS_NOT_KEPT, RELEASE_REFUSED = "CATALOG_READ_ONLY", "EVENTS_NOT_KEPT", "RELEASE_REFUSED"
OVERLOADED, QUOTA_EXCEEDED = "OVERLOADED", "QUOTA_EXCEEDED"


def error_from_call(call: grpc.RpcError, target: str) -> TwintowerError:
    """Return the error that a failed call means to the caller of the client.

    Args:
        call: what gRPC raised; sync and asyncio calls alike.
        target: `host:port` of the server.
    """
    code, message = call.code(), call.details() or ""
    details = _details(call)
    if bad_request := details.get(error_details_pb2.BadRequest):
        violation = bad_request.field_violations[0]
        return RequestError(violation.field, violation.description)
    if failure := details.get(error_details_pb2.PreconditionFailure):
        reason, subject = details[error_details_pb2.ErrorInfo].reason, failure.violations[0].subject
        if reason == CATALOG_READ_ONLY:
            return CatalogReadOnlyError(message)
        if reason == EVENTS_NOT_KEPT:
            return EventsNotKeptError(message)
        return (ReleaseRefusedError if reason == RELEASE_REFUSED else ReleasePinError)(message, subject)
    info, retry = details.get(error_details_pb2.ErrorInfo), details.get(error_details_pb2.RetryInfo)
    retry_after_s = retry.retry_delay.ToMilliseconds() / 1000 if retry else 0.0
    if code is grpc.StatusCode.UNAVAILABLE and info is None and "Connection refused" in message:
        return UnavailableError(f"no server at {target}; start one with: recsys serve RELEASES")
    if code is grpc.StatusCode.UNAVAILABLE and info is None:
        return UnavailableError(f"no connection to the server at {target} ({message})")
    if code is grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(message, retry_after_s)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return UnauthenticatedError(message)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return ForbiddenError(message)
    if code is grpc.StatusCode.CANCELLED:
        # gRPC reports this where a call meets a stopping server; a call that its own client cancels never gets here.
        return UnavailableError(f"the server closed the call ({message}).")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"the call did not end in time ({message}). Allow more time, or request less.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and info and info.reason == QUOTA_EXCEEDED:
        return QuotaError(message, retry_after_s)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and info and info.reason == OVERLOADED:
        return OverloadedError(message, retry_after_s)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and info and info.reason == ANSWER_TOO_LARGE:
        return AnswerTooLargeError(message.removeprefix("answer: "))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return RequestError("request", f"{message}; send less at once, or raise the limit")
    if code is grpc.StatusCode.NOT_FOUND:
        return MissingError(message)
    request_id = f" Request id: {info.metadata['request_id']}." if info else ""
    return ServerError(f"{code.name}: {message}{request_id}")


def _details(call: grpc.RpcError) -> dict[type[Message], Message]:
    found: dict[type[Message], Message] = {}
    status = rpc_status.from_call(call) if isinstance(call, grpc.Call) else _from_trailing(call)
    for packed in status.details if status else ():
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.PreconditionFailure,
            error_details_pb2.RetryInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    return found


def _from_trailing(call: grpc.RpcError) -> status_pb2.Status | None:
    """Return the status that an asyncio error carries in its trailing metadata."""
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return None
