"""Every error that a client can meet: one class for each reaction expected of the caller.

A message has one form: ``<argument, as the caller wrote it>: got <value>, expected <rule>. <what to do>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TwintowerError(Exception):
    """The parent of every error that this project raises on purpose."""


class SettingError(TwintowerError):
    """A setting is wrong: change the run file, the command line or the client's argument."""


class RequestError(TwintowerError, ValueError):
    """A request cannot be answered: change the request.

    Attributes:
        field: the path of the offending field in the request, such as ``vector`` or ``k``.
        reason: what is wrong with it, for the wire's field violation.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class AnswerTooLargeError(RequestError):
    """An answer is larger than the server sends: request fewer items or queries at once, or no metadata."""

    def __init__(self, reason: str) -> None:
        super().__init__("answer", reason)


class MissingError(TwintowerError):
    """A named thing (release, file, entity) does not exist: name another or make it first."""


class ReleasePinError(MissingError):
    """The server does not serve the release that the call pins: drop the pin, or call a server that has the release.

    Attributes:
        pin: the release that the call pins.
    """

    def __init__(self, message: str, pin: str) -> None:
        super().__init__(message)
        self.pin = pin


class ReleaseRefusedError(TwintowerError):
    """A running server refused a release and keeps its old one: read why, write the release again.

    Attributes:
        release: the name of the refused release.
    """

    def __init__(self, message: str, release: str) -> None:
        super().__init__(message)
        self.release = release


class CatalogReadOnlyError(TwintowerError):
    """The server takes no changes to its items: call one that was started with `catalogue.folder`."""


class EventsNotKeptError(TwintowerError):
    """The server keeps no log of lists and events: call one that was started with `log.folder`."""


class UnavailableError(TwintowerError):
    """No server answers, or the server is not ready yet: repeat the call later.

    Attributes:
        retry_after_s: seconds to wait first, as the server says; 0 where it does not say.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(UnavailableError):
    """The server is overloaded: repeat the call later, or call less often."""


class QuotaError(TwintowerError):
    """The caller has used up its quota: call later, or less often.

    Attributes:
        retry_after_s: seconds until the next call is let through.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(TwintowerError, TimeoutError):
    """The time allowed for a call ran out: allow more, or request less."""


class UnauthenticatedError(TwintowerError):
    """The server does not accept the caller's token: bring one, or a newer one."""


class ForbiddenError(TwintowerError):
    """The caller's role does not allow the call: request another role from the operator."""


class ServerError(TwintowerError):
    """The server failed: report the request id in the message to its operator."""


def describe(path: str, got: object, expected: str, advice: str = "") -> str:
    """Return a message of the project's one form.

    Args:
        path: the setting, argument, column or file as the user wrote it.
        got: the offending value; shown with `repr`, cut at 120 characters.
        expected: the rule that was broken, without a full stop.
        advice: what to do about it, a sentence; may be empty.
    """
    shown = got if isinstance(got, _Verbatim) else repr(got)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return f"{path}: got {shown}, expected {expected}.{' ' + advice if advice else ''}"


class _Verbatim(str):
    """Text that `describe` shows without quotes."""


def verbatim(text: str) -> str:
    """Return text that `describe` shows as it is, without quotes."""
    return _Verbatim(text)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that does not exist, with the nearest known one and the whole list.

    Args:
        what: the kind of thing, such as ``choice`` or ``setting``.
        name: the unknown name.
        known: every name that would have been right.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {what} named {name!r}.{hint} Known: {', '.join(known) or 'none'}."
