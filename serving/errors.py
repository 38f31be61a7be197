"""The errors that only the server raises, beside those of `twintower.errors`."""

from __future__ import annotations

from twintower.errors import DeadlineError, TwintowerError


class NoRequestError(TwintowerError):
    """The call ended before it sent its request: send one."""


class LateRequestError(DeadlineError):
    """The call did not send its request in time: send it with the headers."""


class UnknownMethodError(TwintowerError):
    """The server has no such method: call a newer server."""


class GoneError(TwintowerError):
    """The caller has cancelled the call: there is nobody to answer."""
