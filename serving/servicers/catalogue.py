"""`twintower.v1.CatalogService`: add, replace and remove items of a running server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import structlog

from recsys.cancellation import checked, checkpoint
from recsys.errors import StorageError
from recsys.types import Float32
from serving import codecs
from serving.runtime.catalogue_log import CatalogueLog
from serving.runtime.catalogue_records import delete_payload, folded, upsert_payload
from serving.runtime.live_catalogue import LiveCatalogue
from serving.runtime.releases import Releases
from serving.settings import CatalogueSettings
from serving.telemetry.sampled import Sampled
from twintower import wire
from twintower.errors import CatalogReadOnlyError, RequestError
from twintower.v1 import catalog_service_pb2 as pb
from twintower.v1 import catalog_service_pb2_grpc as pb_grpc


class CatalogServicer(pb_grpc.CatalogServiceServicer):
    """Writes changes to the log that all processes of the server read.

    Args:
        releases: those that answer.
        log: of the changes; None where there are none.
        settings: the limits.
        logger: gets a line for each compaction.
        sampled: limits the lines of those that failed.
    """

    def __init__(
        self,
        releases: Releases,
        log: CatalogueLog | None,
        settings: CatalogueSettings,
        logger: Any,
        sampled: Sampled,
    ) -> None:
        self._releases, self._log, self._settings = releases, log, settings
        self._logger, self._sampled = logger, sampled
        self._compacting = threading.Lock()

    def UpsertItems(self, request: pb.UpsertItemsRequest, context: grpc.ServicerContext) -> pb.UpsertItemsResponse:
        """Add items, or replace those that there are."""
        live = self._live(request.release_pin)
        _check_count("items", len(request.items), self._settings.max_upserts)
        _check_ids(request.items, self._settings.max_id_bytes)
        metadata = [
            wire.columns_from_proto(item.metadata, f"items[{place}].metadata")
            for place, item in enumerate(checked(request.items))
        ]
        live.check_metadata(metadata)
        vectors = _vectors(request.items, live)
        ids = [item.item_id for item in request.items]
        fingerprint = live.release.fingerprint
        checkpoint()  # the last one: what is written is acknowledged
        outcome = live.write(ids, lambda token: upsert_payload(request.items, vectors, fingerprint, token))
        self._compact_if_long()
        return pb.UpsertItemsResponse(
            sequence=outcome.sequence,
            added_count=len(request.items) - len(outcome.known_ids),
            replaced_count=len(outcome.known_ids),
            release=codecs.release_id_to_proto(live.release),
        )

    def DeleteItems(self, request: pb.DeleteItemsRequest, context: grpc.ServicerContext) -> pb.DeleteItemsResponse:
        """Remove items."""
        live = self._live()
        _check_count("item_ids", len(request.item_ids), self._settings.max_deletes)
        outcome = live.write(request.item_ids, lambda token: delete_payload(request.item_ids, token))
        self._compact_if_long()
        missing = [item_id for item_id in dict.fromkeys(request.item_ids) if item_id not in outcome.known_ids]
        return pb.DeleteItemsResponse(sequence=outcome.sequence, missing_ids=missing)

    def GetCatalog(self, request: pb.GetCatalogRequest, context: grpc.ServicerContext) -> pb.Catalog:
        """Return what has been changed since the release was written."""
        state = self._live().state()
        return pb.Catalog(
            sequence=state.sequence,
            item_count=state.item_count,
            upserted_count=state.upserted_count,
            deleted_count=state.deleted_count,
            refused_ids=state.refused_ids,
            release=codecs.release_id_to_proto(state.release),
        )

    def _live(self, pin: str = "") -> LiveCatalogue:
        held = self._releases.held(pin)
        if held.live is None:
            raise CatalogReadOnlyError("this server takes no changes to its items: it has no catalogue.folder.")
        structlog.contextvars.bind_contextvars(release=held.name)
        return held.live

    def _compact_if_long(self) -> None:
        log = self._log
        if log is None or log.size_bytes < max(self._settings.compact_bytes, 2 * log.compacted_bytes):
            return
        if self._compacting.acquire(blocking=False):
            threading.Thread(target=self._compact, args=(log,), name="compact-catalogue", daemon=True).start()

    def _compact(self, log: CatalogueLog) -> None:
        try:
            before = log.size_bytes
            log.compact(folded)
            self._logger.info("catalogue compacted", bytes_before=before, bytes_after=log.size_bytes)
        except StorageError as error:
            if self._sampled.takes("catalogue not compacted"):
                self._logger.error("catalogue not compacted", reason=str(error))
        finally:
            self._compacting.release()


def _vectors(items: Sequence[pb.UpsertItem], live: LiveCatalogue) -> Float32:
    """Return the vectors of items to upsert, `[len(items), dim]`, float32.

    Raises:
        RequestError: neither features nor a vector, an unknown feature, or a vector of another space.
    """
    vectors = np.zeros((len(items), live.release.facts.dim), np.float32)
    to_encode = []
    for place, item in enumerate(checked(items)):
        source = item.WhichOneof("source")
        if source == "vector":
            path = f"items[{place}]"
            vectors[place] = live.checked_vector(wire.vector_from_proto(item.vector, path), f"{path}.vector")
        elif source == "features":
            to_encode.append(place)
        else:
            raise RequestError(f"items[{place}]", "got no source, expected one of: features, vector")
    if to_encode:
        vectors[to_encode] = live.encoder.encode(
            [items[place].item_id for place in to_encode],
            [codecs.item_features_from_proto(items[place]) for place in checked(to_encode)],
            [f"items[{place}]" for place in to_encode],
        )
    return vectors


def _check_count(where: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise RequestError(where, f"got {count}, expected 1 to {most}")


def _check_ids(items: Sequence[pb.UpsertItem], most_bytes: int) -> None:
    first: dict[str, int] = {}
    for place, item_id in enumerate(item.item_id for item in items):
        if not item_id:
            raise RequestError(f"items[{place}].item_id", "got none, expected an id")
        if (size := len(item_id.encode())) > most_bytes:
            raise RequestError(f"items[{place}].item_id", f"got {size} bytes, expected at most {most_bytes}")
        if item_id in first:
            raise RequestError(f"items[{place}].item_id", f"got the id of items[{first[item_id]}], expected another")
        first[item_id] = place
