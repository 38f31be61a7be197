"""Items that users have met since the release was written, as the events of a log report them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from recsys.experiment.log import EVENTS, segments_in
from serving.exposures.tokens import NO_USER, Tokens
from serving.settings import LogSettings


class ReportedItems:
    """The items of the last events, by user: those of this process at once, those of others with `follow`.

    A process remembers the last `log.max_reported_items` items. At its start it reads those of the log's segments that
    are not compacted yet. Safe for calls from several threads; one at a time calls `follow`.

    Args:
        tokens: knows the tokens of this log.
        settings: folder, number of items, and kinds of events.
    """

    def __init__(self, tokens: Tokens, settings: LogSettings) -> None:
        self._tokens, self._max_items = tokens, settings.max_reported_items
        self._kinds = frozenset(settings.reported_kinds)
        self._tail = _Tail(settings.folder / "events")
        self._items: dict[bytes, dict[str, None]] = {}
        self._order: deque[tuple[bytes, str]] = deque()
        self._lock = threading.Lock()

    def of(self, user_id: str) -> tuple[str, ...]:
        """Return the items of a user; none for an empty id."""
        with self._lock:
            return tuple(self._items.get(self._tokens.user(user_id), ()))

    def add(self, events: Iterable[tuple[str, str, str | None]]) -> None:
        """Remember events.

        Args:
            events: token, kind and item id of each; those without an item, of other kinds or of nobody are passed over.
        """
        for token, kind, item_id in events:
            if not item_id or (self._kinds and kind not in self._kinds):
                continue
            attribution = self._tokens.read(token)
            if attribution is not None and attribution.user != NO_USER:
                self._remember(attribution.user, item_id)

    def follow(self) -> None:
        """Remember the events that were appended to the log since the last call, by whichever process."""
        for batch in self._tail.read(self._max_items):
            self.add(zip(*(batch[name].to_pylist() for name in ("token", "kind", "item_id")), strict=True))

    def _remember(self, user: bytes, item_id: str) -> None:
        with self._lock:
            items = self._items.setdefault(user, {})
            if item_id not in items:
                items[item_id] = None
                self._order.append((user, item_id))
            while len(self._order) > self._max_items:
                old_user, old_item = self._order.popleft()
                del self._items[old_user][old_item]
                if not self._items[old_user]:
                    del self._items[old_user]


class _Tail:
    """Reads what is appended to the segments of a folder, each whole batch once.

    Args:
        folder: of the segments.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_bytes: dict[str, int] = {}
        self._is_new = True

    def read(self, max_rows: int) -> list[pa.RecordBatch]:
        """Return the batches that were appended since the last call, by segment.

        Args:
            max_rows: the first call reads the newest segments that hold so many rows, and passes the older ones over.
        """
        if not max_rows:
            return []
        of_segment: list[list[pa.RecordBatch]] = []
        before, self._read_bytes = self._read_bytes, {}
        rows = 0
        for path in reversed(segments_in(self._folder)):
            try:
                size_bytes, start = path.stat().st_size, before.get(path.name, 0)
                if size_bytes > start and not (self._is_new and rows >= max_rows):
                    batches, start = _appended(path, start)
                    of_segment.append(batches)
                    rows += sum(batch.num_rows for batch in batches)
                elif self._is_new:
                    start = size_bytes
            except OSError:
                continue  # compacted and removed in this moment
            self._read_bytes[path.name] = start
        self._is_new = False
        return [batch for batches in reversed(of_segment) for batch in batches]


def _appended(path: Path, start: int) -> tuple[list[pa.RecordBatch], int]:
    """Return the whole batches of a segment from a byte on, and the byte after the last one.

    What is no batch yet is read with the next call; so is damage, which is for the readers of the log to report.
    """
    with open(path, "rb") as file:
        file.seek(start)
        content = pa.BufferReader(file.read())
    batches: list[pa.RecordBatch] = []
    whole = 0
    try:
        while True:
            message = pa.ipc.read_message(content)
            if message.type == "record batch":
                batches.append(pa.ipc.read_record_batch(message, EVENTS))
            whole = content.tell()
    except (pa.ArrowException, EOFError, OSError, ValueError):
        return batches, start + whole
