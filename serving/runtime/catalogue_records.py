"""Changes to the catalogue as payloads of its log, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from recsys.types import Float32
from serving import codecs
from twintower import wire
from twintower.v1 import catalog_service_pb2 as pb

TOKEN_BYTES, FINGERPRINT_BYTES = 8, 32
NO_TOKEN = bytes(TOKEN_BYTES)
UPSERT, DELETE = b"U", b"D"
AT_ONCE = 1000


@dataclass(frozen=True)
class Upserted:
    """An item as it was upserted.

    Attributes:
        item_id: its id.
        vector: `[dim]`, float32, in the space of the release that it was upserted to.
        features: what the vector was made from; None where it was given.
        metadata: its columns.
        fingerprint: of the release; empty for a deleted item.
    """

    item_id: str
    vector: Float32 | None
    features: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def deleted(self) -> bool:
        """Whether it was removed."""
        return self.vector is None


def upsert_payload(items: Sequence[pb.UpsertItem], vectors: Float32, fingerprint: str, token: bytes) -> bytes:
    """Return upserted items as a payload.

    Args:
        items: as received.
        vectors: `[len(items), dim]`, float32, in the space of the release.
        fingerprint: of the release.
        token: by which the writer knows it again.
    """
    request = pb.UpsertItemsRequest(items=items)
    for item in request.items:
        if item.WhichOneof("source") == "vector":
            item.vector.Clear()  # it stands among the vectors
            item.vector.SetInParent()
    message = request.SerializeToString()
    head = UPSERT + token + bytes.fromhex(fingerprint) + len(message).to_bytes(4, "little")
    return head + message + np.ascontiguousarray(vectors, wire.LITTLE_ENDIAN).tobytes()


def delete_payload(item_ids: Iterable[str], token: bytes) -> bytes:
    """Return removed items as a payload."""
    return DELETE + token + pb.DeleteItemsRequest(item_ids=item_ids).SerializeToString()


def token_of(payload: bytes) -> bytes:
    """Return the token that a payload was written with."""
    return payload[1 : 1 + TOKEN_BYTES]


def items_of(payload: bytes) -> list[Upserted]:
    """Return what a payload did, one entry an item."""
    body = 1 + TOKEN_BYTES
    if payload[:1] == DELETE:
        return [Upserted(item_id, None) for item_id in pb.DeleteItemsRequest.FromString(payload[body:]).item_ids]
    items, vectors, fingerprint = _upserts(payload)
    return [
        Upserted(
            item.item_id,
            vector,
            codecs.item_features_from_proto(item) if item.WhichOneof("source") == "features" else None,
            wire.columns_from_proto(item.metadata, "metadata"),
            fingerprint,
        )
        for item, vector in zip(items, vectors, strict=True)
    ]


def folded(payloads: Iterable[bytes]) -> Iterator[bytes]:
    """Return payloads that leave each item as those given leave it; later ones count over earlier ones."""
    last: dict[str, tuple[str, pb.UpsertItem | None, Float32 | None]] = {}
    for payload in payloads:
        if payload[:1] == DELETE:
            request = pb.DeleteItemsRequest.FromString(payload[1 + TOKEN_BYTES :])
            last.update(dict.fromkeys(request.item_ids, ("", None, None)))
        else:
            items, vectors, fingerprint = _upserts(payload)
            last.update({item.item_id: (fingerprint, item, v) for item, v in zip(items, vectors, strict=True)})
    ordered = sorted(last.items(), key=lambda each: each[1][0])
    for fingerprint, group in groupby(ordered, key=lambda each: each[1][0]):
        members = list(group)
        for start in range(0, len(members), AT_ONCE):
            part = members[start : start + AT_ONCE]
            if fingerprint:
                vectors = np.array([vector for _, (_, _, vector) in part], np.float32)
                yield upsert_payload([item for _, (_, item, _) in part], vectors, fingerprint, NO_TOKEN)
            else:
                yield delete_payload([item_id for item_id, _ in part], NO_TOKEN)


def _upserts(payload: bytes) -> tuple[Sequence[pb.UpsertItem], Float32, str]:
    body = 1 + TOKEN_BYTES
    fingerprint = payload[body : body + FINGERPRINT_BYTES].hex()
    start = body + FINGERPRINT_BYTES + 4
    length = int.from_bytes(payload[start - 4 : start], "little")
    items = pb.UpsertItemsRequest.FromString(payload[start : start + length]).items
    vectors = np.frombuffer(payload, wire.LITTLE_ENDIAN, offset=start + length)
    return items, vectors.reshape(len(items), -1).astype(np.float32, copy=False), fingerprint
