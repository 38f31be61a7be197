"""Every deliberate error: one class for each reaction expected of the caller.

A message has one form: ``<where, as the user wrote it>: got <value>, expected <rule>. <what to do>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecsysError(Exception):
    """The parent of every error that this project raises on purpose."""


class SettingError(RecsysError):
    """A setting is wrong: change the run file or the command line."""


class DataError(RecsysError):
    """The data is wrong: mend the file that the message names."""


class ShapeError(RecsysError, ValueError):
    """An array has the wrong shape, type or content: mend the calling code."""


class RequestError(RecsysError, ValueError):
    """A query cannot be answered as asked: change the request.

    Attributes:
        field: the path of the offending field in the request, such as ``vector`` or ``k``.
        reason: what is wrong with it, for the wire's field violation.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MissingError(RecsysError):
    """A named thing (release, file, entity) does not exist: name another or make it first."""


class ReleaseError(RecsysError):
    """A release is damaged, mixed or of another format: do not use it; write it again."""


class RefusedError(RecsysError):
    """A gate said no (a promotion, a publication over an existing release): read why, or force it."""


class InstallationError(RecsysError, ImportError):
    """The environment is broken: run the line that the message gives."""


class StorageError(RecsysError, OSError):
    """Writing failed (disk full, no permission): nothing half-written was left; make room and run again."""


class InterruptedRun(RecsysError):
    """The work was interrupted after a checkpoint: run the same command to go on from there."""


def describe(where: str, got: object, expected: str, advice: str = "") -> str:
    """Return a message of the project's one form.

    Args:
        where: the setting, column or file as the user wrote it.
        got: the offending value; shown with `repr`, cut at 120 characters.
        expected: the rule that was broken, without a full stop.
        advice: what to do about it, a sentence; may be empty.
    """
    shown = got if isinstance(got, _Verbatim) else repr(got)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return f"{where}: got {shown}, expected {expected}.{' ' + advice if advice else ''}"


class _Verbatim(str):
    """Text that `describe` shows without quotes."""


def verbatim(text: str) -> str:
    """Return text that `describe` will show as it is, without quotes."""
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
