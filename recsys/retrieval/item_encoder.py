"""Encode items by their features with the item tower of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.data import encoders
from recsys.errors import ReleaseError
from recsys.export.release import Release, parts_of
from recsys.export.saved_model import ITEM_TOWER, load_tower
from recsys.retrieval.coding import coded
from recsys.types import ITEM_ID, Float32
from twintower.errors import RequestError, describe, unknown


class ItemEncoder:
    """The item side of a release: raw values in, vectors out. Safe for calls from several threads.

    Args:
        release: an opened release.

    Raises:
        ReleaseError: its item tower or its item features are not what this version writes.
    """

    def __init__(self, release: Release) -> None:
        with parts_of(release.folder):
            self._encoders = encoders.load(release.folder / "encoders" / "item")
            self._tower = load_tower(release.folder, ITEM_TOWER)
            self._columns = {
                name: encoders.raw_column(encoder.settings, name, "item") for name, encoder in self._encoders.items()
            }
            blank, shape = self.encode([""], [{}]), (1, release.facts.dim)
            if blank.shape != shape or not np.isfinite(blank).all():
                raise ReleaseError(describe(f"{release.folder}: item tower", blank, f"finite vectors of shape {shape}"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that an item's features may have, sorted; its id is not one of them."""
        return tuple(sorted(set(self._columns.values()) - {ITEM_ID}))

    def encode(
        self, item_ids: Sequence[str], features: Sequence[Mapping[str, Any]], paths: Sequence[str] | None = None
    ) -> Float32:
        """Return the items' vectors, `[len(item_ids), dim]`, float32.

        Args:
            item_ids: of at least one item; one that the release was trained with keeps what was learned of it.
            features: of each item, raw values by name; missing ones count as unknown.
            paths: where each item stands in the request, for messages.

        Raises:
            RequestError: an unknown feature, or a value of the wrong type.
        """
        paths = [f"items[{place}]" for place in range(len(item_ids))] if paths is None else paths
        for path, values in zip(paths, features, strict=True):
            for name in values:
                if name not in self.columns:
                    raise RequestError(f"{path}.features.{name}", unknown("item feature", name, self.columns))
        codes = {}
        for name, encoder in self._encoders.items():
            column = self._columns[name]
            values = item_ids if column == ITEM_ID else [each.get(column) for each in features]
            codes[name] = coded(encoder, values, [f"{path}.features.{column}" for path in paths])
        return self._tower(codes)
