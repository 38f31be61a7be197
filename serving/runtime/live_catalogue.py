"""The items of one release with all changes that the log has."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recsys.cancellation import shielded
from recsys.export.release import Release
from recsys.indexes import UNUSABLE, first_unusable
from recsys.retrieval import Retriever
from recsys.retrieval.item_encoder import ItemEncoder
from recsys.retrieval.live_items import Change, LiveItems
from recsys.types import Float32
from serving.runtime.catalogue_log import CatalogueLog
from serving.runtime.catalogue_records import TOKEN_BYTES, Upserted, items_of, token_of
from twintower.errors import RequestError


@dataclass(frozen=True)
class Outcome:
    """What a change met.

    Attributes:
        sequence: its place in the log.
        known_ids: items of it that were there before.
    """

    sequence: int
    known_ids: frozenset[str]


@dataclass(frozen=True)
class State:
    """What was changed since a release was written.

    Attributes:
        sequence: the last change that counts.
        item_count: items that can be retrieved.
        upserted_count: items that were added or replaced.
        deleted_count: items of the release that were removed.
        refused_ids: items upserted by vector for another release.
        release: that they stand beside.
    """

    sequence: int
    item_count: int
    upserted_count: int
    deleted_count: int
    refused_ids: tuple[str, ...]
    release: Release


class LiveCatalogue:
    """What one release shows of the log. Safe for calls from several threads.

    Items upserted by features to another release are encoded by this one's tower; those upserted by vector are
    refused, and this release shows of them what it was written with.

    Args:
        retriever: over the release.
        log: of all changes.
        index_above: see `LiveItems`.
    """

    def __init__(self, retriever: Retriever, log: CatalogueLog, index_above: int) -> None:
        self.release = retriever.release
        self._refused_ids: Mapping[str, None] = {}
        self.sequence = 0
        self._log, self._position = log, -1
        self._items = LiveItems(retriever, index_above=index_above)
        self._applying = threading.Lock()
        self._awaited: dict[bytes, Outcome | None] = {}
        _ = self.encoder  # loaded before the first call, not in it
        self.retriever()

    @cached_property
    def encoder(self) -> ItemEncoder:
        """The release's item tower."""
        return ItemEncoder(self.release)

    @property
    def is_behind(self) -> bool:
        """Whether `retriever` has changes to read first, which may take a while."""
        return self._log.position != self._position

    def retriever(self) -> Retriever:
        """Return what answers a call that begins now: it knows all that was acknowledged before.

        Raises:
            DataError: the log is damaged.
        """
        if self.is_behind:
            self._catch_up()
        return self._items.retriever

    def check_metadata(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Compare the metadata of items to upsert with the release's columns.

        Raises:
            RequestError: no such column, or a value that it cannot hold.
        """
        self._items.check(metadata)

    def state(self) -> State:
        """Return what was changed, by a call that begins now."""
        self.retriever()
        with self._applying:
            return State(
                sequence=self.sequence,
                item_count=len(self._items),
                upserted_count=self._items.upserted_count,
                deleted_count=self._items.deleted_count,
                refused_ids=tuple(self._refused_ids),
                release=self.release,
            )

    def write(self, item_ids: Iterable[str], payload_of: Callable[[bytes], bytes]) -> Outcome:
        """Append a change to the log, and return what it met when it is on disk.

        Args:
            item_ids: that it changes.
            payload_of: makes the payload from a token.

        Raises:
            StorageError: writing failed; nothing was changed.
        """
        token = secrets.token_bytes(TOKEN_BYTES)
        known = frozenset(item_id for item_id in item_ids if item_id in self._items)
        self._awaited[token] = None
        try:
            sequence = self._log.append(payload_of(token))
            self.retriever()
            with self._applying:  # another thread may be at it
                met = self._awaited[token]
        finally:
            del self._awaited[token]
        # A compaction that came between folded it into others: what was there before the call is near enough.
        return met or Outcome(sequence, known)

    def _catch_up(self) -> None:
        # Whatever becomes of the call that found these changes: all others wait for them, too.
        with self._applying, shielded():
            last = self.sequence
            records, position = self._log.read(max(self._position, 0))
            written: list[Upserted] = []
            told: dict[bytes, Outcome] = {}
            met: dict[str, bool] = {}
            for record in records:
                if record.sequence <= self.sequence:  # of a snapshot that says what is known
                    continue
                items = items_of(record.payload)
                token = token_of(record.payload)
                if token in self._awaited:
                    known = frozenset(i.item_id for i in items if met.get(i.item_id, i.item_id in self._items))
                    told[token] = Outcome(record.sequence, known)
                met.update({item.item_id: not item.deleted for item in items})
                written += items
                last = record.sequence
            self._apply(list({item.item_id: item for item in written}.values()))
            self._awaited.update(told)
            self.sequence, self._position = last, position

    def _apply(self, items: Sequence[Upserted]) -> None:
        if not items:
            return
        foreign = [item for item in items if not item.deleted and item.fingerprint != self.release.fingerprint]
        vectors = self._encoded([item for item in foreign if item.features is not None])
        refused = {item.item_id: None for item in foreign if item.item_id not in vectors}
        changes = [
            Change(
                item.item_id,
                vectors.get(item.item_id, item.vector),
                item.metadata,
                item.features,
                forgotten=item.item_id in refused,
            )
            for item in items
        ]
        self._items.apply(changes)
        changed = {item.item_id for item in items}
        still = {item_id: None for item_id in self._refused_ids if item_id not in changed}
        self._refused_ids = still | refused

    def _encoded(self, items: Sequence[Upserted]) -> Mapping[str, Float32]:
        """Return the vectors of items of another release by id, as far as this one can encode them."""
        known = set(self.encoder.columns)
        features = [{name: v for name, v in (item.features or {}).items() if name in known} for item in items]
        ids = [item.item_id for item in items]
        if not ids:
            return {}
        try:
            return dict(zip(ids, self.encoder.encode(ids, features), strict=True))
        except RequestError:
            if len(ids) == 1:
                return {}
            half = len(ids) // 2
            return {**self._encoded(items[:half]), **self._encoded(items[half:])}

    def checked_vector(self, vector: Float32, where: str) -> Float32:
        """Return a vector of the release's space.

        Raises:
            RequestError: it has another shape, or its inner product with a query might not be finite.
        """
        dim = self.release.facts.dim
        if vector.shape != (dim,):
            raise RequestError(where, f"got shape {vector.shape}, expected ({dim},)")
        if first_unusable(vector[None]) is not None:
            raise RequestError(where, UNUSABLE)
        return vector
