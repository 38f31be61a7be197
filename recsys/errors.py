"""The errors of the library and its jobs, beside those of `twintower.errors` that clients meet, too.

One class for each reaction expected of the caller.
"""

from __future__ import annotations

from twintower.errors import TwintowerError


class DataError(TwintowerError):
    """The data is wrong: mend the file that the message names."""


class ShapeError(TwintowerError, ValueError):
    """An array has the wrong shape, type or content: mend the calling code."""


class ReleaseError(TwintowerError):
    """A release is damaged, mixed or of another format: do not use it; write it again."""


class RefusedError(TwintowerError):
    """A gate said no (a promotion, a publication over an existing release): read why, or force it."""


class InstallationError(TwintowerError, ImportError):
    """The environment is broken: run the line that the message gives."""


class StorageError(TwintowerError, OSError):
    """Writing failed (disk full, no permission): nothing half-written was left; make room and run again."""


class InterruptedRun(TwintowerError):
    """The work was interrupted after a checkpoint: run the same command to go on from there."""


def install_line(extra: str) -> str:
    """Return the command that installs an extra, from an index as well as in a clone."""
    return f"python -m pip install 'twintower-recsys[{extra}]'"
