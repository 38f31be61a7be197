"""The errors that only a network brings, beside those of `recsys.errors`."""

from __future__ import annotations

from recsys.errors import MissingError, RecsysError, RequestError


class ReleasePinError(MissingError):
    """The call asked for a release that is not the one served: drop the pin, or ask a server that has it.

    Attributes:
        pin: the release that was asked for.
    """

    def __init__(self, message: str, pin: str) -> None:
        super().__init__(message)
        self.pin = pin


class ReleaseRefusedError(RecsysError):
    """A running server did not take a release and goes on with its old one: read why, write the release again.

    Attributes:
        release: the name of the one that was refused.
    """

    def __init__(self, message: str, release: str) -> None:
        super().__init__(message)
        self.release = release


class CatalogueReadOnlyError(RecsysError):
    """The server takes no changes to its items: ask one that was started with `catalogue.folder`."""


class EventsNotKeptError(RecsysError):
    """The server keeps no log of what it shows and what came of it: ask one that was started with `log.folder`."""


class UnavailableError(RecsysError):
    """No server answers, or it is not ready yet: repeat the call a little later.

    Attributes:
        retry_after_s: seconds to wait first, as far as the server said so; 0 where it did not.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    """The server has more to do than it can: repeat the call a little later, or call less often."""


class AnswerTooLargeError(RequestError):
    """An answer is larger than the server sends: ask for fewer items or queries at once, or without metadata."""

    def __init__(self, reason: str) -> None:
        super().__init__("answer", reason)


class NoRequestError(RecsysError):
    """The call ended before it sent its request: send one."""


class UnknownMethodError(RecsysError):
    """The server has no such method: ask a server that has, or a newer one."""


class GoneError(RecsysError):
    """The caller has cancelled the call: there is nobody to answer."""


class DeadlineError(RecsysError, TimeoutError):
    """The time allowed for a call ran out: allow more, or ask for less."""


class LateRequestError(DeadlineError):
    """The call did not send its request in time: send it with the headers."""


class UnauthenticatedError(RecsysError):
    """The server does not know who calls: bring a token, or a newer one."""


class ForbiddenError(RecsysError):
    """The server knows who calls, and the caller's role does not reach: ask its operator for another role."""


class QuotaError(RecsysError):
    """The caller has used up its quota for now: call later, or less often.

    Attributes:
        retry_after_s: seconds until the next call is let through.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerError(RecsysError):
    """The server failed: report the request id that the message names to those who run it."""
