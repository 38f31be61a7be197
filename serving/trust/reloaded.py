"""What files say, read again when they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from twintower.errors import SettingError, describe

Value = TypeVar("Value")
Read = Callable[[str, Path], bytes]
"""Returns a file's content; takes the setting that names it, and its path. Raises SettingError."""


class Reloaded(Generic[Value]):
    """A value made from files; while they are broken the last good one stays. Safe for calls from several threads.

    Args:
        make: makes the value, from files that it reads with the function that it is given.
        what: the value's name in the log.
        logger: is told of changes and of broken files, once each.
        every_s: seconds between two looks at the files; 0 looks each time.

    Raises:
        SettingError: a file is missing, or what it says is wrong.
    """

    def __init__(self, make: Callable[[Read], Value], what: str, logger: Any, *, every_s: float = 0.0) -> None:
        self._make, self._what, self._logger, self._every_s = make, what, logger, every_s
        self._lock = threading.Lock()
        self._seen: dict[Path, bytes | None] = {}
        self._value = self._made()
        self._look_at = time.monotonic() + every_s

    def current(self) -> Value:
        """Return the value; whoever comes when it is time to look at the files does so, and nobody waits for that."""
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._refresh()
                self._look_at = time.monotonic() + self._every_s
            finally:
                self._lock.release()
        return self._value

    def _refresh(self) -> None:
        if all(_content(path) == content for path, content in self._seen.items()):
            return
        try:
            self._value = self._made()
        except SettingError as error:
            self._logger.error("files are broken, the old ones count", what=self._what, reason=str(error))
        else:
            self._logger.info("read again", what=self._what)

    def _made(self) -> Value:
        self._seen = {}

        def read(where: str, path: Path) -> bytes:
            content = self._seen[path] = _content(path)
            if content is None:
                raise SettingError(describe(where, str(path), "a file that this process may read"))
            return content

        return self._make(read)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
