"""Errors as `google.rpc.Status` (AIP-193): one ErrorInfo each, with the details that help the caller."""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from recsys.errors import ReleaseError, StorageError
from serving.errors import GoneError, LateRequestError, NoRequestError, UnknownMethodError
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
    UnauthenticatedError,
    UnavailableError,
)
from twintower.status import (
    ANSWER_TOO_LARGE,
    CATALOG_READ_ONLY,
    DOMAIN,
    EVENTS_NOT_KEPT,
    OVERLOADED,
    QUOTA_EXCEEDED,
    RELEASE_REFUSED,
)

UNAUTHENTICATED, ROLE_TOO_LOW = "UNAUTHENTICATED", "ROLE_TOO_LOW"
NO_REQUEST, UNKNOWN_METHOD = "NO_REQUEST", "UNKNOWN_METHOD"
REFUSALS = frozenset((OVERLOADED, QUOTA_EXCEEDED, UNAUTHENTICATED, ROLE_TOO_LOW, NO_REQUEST, UNKNOWN_METHOD))
"""Reasons of calls that no work was done for."""
UNWRITABLE_MESSAGE = "the server cannot write at the moment, such as on a full disk; nothing was changed."
UNWRITABLE_S = 1.0
MAX_MESSAGE_BYTES, MAX_NAME_BYTES, CUT = 1000, 256, "..."
"""Of texts in a status, some of which hold text of the caller. A client reads 8 KiB of metadata, and a message stands
in it up to three times, once with each byte that is not ASCII as three."""
INTERNAL_MESSAGE = "the server failed; the log has the reason under the request id."


def status_of(error: Exception, request_id: str) -> status_pb2.Status:
    """Return what the caller is told; of an error that is not deliberate nothing but the request id.

    Args:
        error: what was raised.
        request_id: of the call, as the server's log has it.
    """
    if isinstance(error, AnswerTooLargeError):  # no RetryInfo: the same call would meet the same end
        return _status(code_pb2.RESOURCE_EXHAUSTED, ANSWER_TOO_LARGE, str(error), request_id)
    if isinstance(error, RequestError):
        field, reason = shown(error.field, MAX_NAME_BYTES), shown(error.reason)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=reason)
        bad_request = error_details_pb2.BadRequest(field_violations=[violation])
        return _status(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", str(error), request_id, bad_request)
    if isinstance(error, ReleasePinError):
        return _unmet("RELEASE_NOT_SERVED", "RELEASE", error.pin, error, request_id)
    if isinstance(error, ReleaseRefusedError):
        return _unmet(RELEASE_REFUSED, "RELEASE", error.release, error, request_id)
    if isinstance(error, CatalogReadOnlyError):
        return _unmet(CATALOG_READ_ONLY, "CATALOG", "catalogue.folder", error, request_id)
    if isinstance(error, EventsNotKeptError):
        return _unmet(EVENTS_NOT_KEPT, "LOG", "log.folder", error, request_id)
    if isinstance(error, OverloadedError):
        retry = _retry(error.retry_after_s)
        return _status(code_pb2.RESOURCE_EXHAUSTED, OVERLOADED, str(error), request_id, retry)
    if isinstance(error, UnavailableError):
        return _status(code_pb2.UNAVAILABLE, "NOT_READY", str(error), request_id, _retry(error.retry_after_s))
    if isinstance(error, StorageError):  # its own message names folders of the server
        return _status(code_pb2.UNAVAILABLE, "UNWRITABLE", UNWRITABLE_MESSAGE, request_id, _retry(UNWRITABLE_S))
    if isinstance(error, UnauthenticatedError):
        return _status(code_pb2.UNAUTHENTICATED, UNAUTHENTICATED, str(error), request_id)
    if isinstance(error, ForbiddenError):
        return _status(code_pb2.PERMISSION_DENIED, ROLE_TOO_LOW, str(error), request_id)
    if isinstance(error, QuotaError):
        retry = _retry(error.retry_after_s)
        return _status(code_pb2.RESOURCE_EXHAUSTED, QUOTA_EXCEEDED, str(error), request_id, retry)
    if isinstance(error, NoRequestError):
        return _status(code_pb2.UNIMPLEMENTED, NO_REQUEST, str(error), request_id)
    if isinstance(error, LateRequestError):
        return _status(code_pb2.DEADLINE_EXCEEDED, NO_REQUEST, str(error), request_id)
    if isinstance(error, UnknownMethodError):
        return _status(code_pb2.UNIMPLEMENTED, UNKNOWN_METHOD, str(error), request_id)
    if isinstance(error, GoneError):
        return _status(code_pb2.CANCELLED, "CANCELLED", str(error), request_id)
    if isinstance(error, DeadlineError):
        return _status(code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", str(error), request_id)
    if isinstance(error, MissingError):
        return _status(code_pb2.NOT_FOUND, "NOT_FOUND", str(error), request_id)
    reason = "RELEASE_UNUSABLE" if isinstance(error, ReleaseError) else "INTERNAL"
    return _status(code_pb2.INTERNAL, reason, INTERNAL_MESSAGE, request_id)


def _unmet(reason: str, kind: str, subject: str, error: Exception, request_id: str) -> status_pb2.Status:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=kind, subject=shown(subject, MAX_NAME_BYTES), description=shown(str(error))
    )
    failure = error_details_pb2.PreconditionFailure(violations=[violation])
    return _status(code_pb2.FAILED_PRECONDITION, reason, str(error), request_id, failure)


def _status(code: int, reason: str, message: str, request_id: str, *details: Message) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id})
    packed = []
    for detail in (info, *details):
        packed.append(Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=shown(message), details=packed)


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason of the ErrorInfo in a status that `status_of` made; it is never text of the caller."""
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


def shown(text: str, max_bytes: int = MAX_MESSAGE_BYTES) -> str:
    """Return a text that any wire and log can carry: what is not Unicode is escaped, what is too long is cut."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) > max_bytes:
        encoded = encoded[:max_bytes].decode("utf-8", "ignore").encode() + CUT.encode()
    return encoded.decode()


def _retry(after_s: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(math.ceil(after_s * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)
