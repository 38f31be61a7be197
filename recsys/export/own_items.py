"""The items that a query entity has met itself, and what each adds to the score that its vectors give.

Where people come back to the same items, no inner product of a few hundred numbers holds who comes back to what. So an
entity's own items are a sparse query of their own, over item rows, that is added to the dense one:

`score(i) = <query, item i> + weight * own(i)`

where `own(i)` says how often and how lately the entity met the item i, or only how lately, where those who met an item
often come back to it no more than others. What counts, by which half-life, and the weight are chosen on validation
cases (`Fusion`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from recsys.documents import read_json
from recsys.errors import ReleaseError
from recsys.features._history_encoder import entries_of
from recsys.files import save_array, write_atomically
from recsys.types import Float32, Int32

OWN = "own"
"""The part of a release that holds them."""
SETTINGS, WEIGHTS = "fusion.json", "weights.npy"


@dataclass(frozen=True)
class Fusion:
    """How an entity's own items are added to the dense list.

    Attributes:
        weight: what one meeting of age 0 adds, in units of an inner product, > 0.
        half_life_days: days after which a meeting counts half; 0 means that its age does not matter.
        weights: how several meetings with an item count together: `count`, `log_count`, or `none`, by which only the
            newest counts; see `recsys.features.history.History`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    weight: Annotated[float, Field(gt=0)]
    half_life_days: Annotated[float, Field(ge=0)]
    weights: Literal["count", "log_count", "none"] = "count"

    @property
    def merges_repeats(self) -> bool:
        """All meetings with one item count together."""
        return True

    def own_items(self, item_row: Int32, age_days: Float32) -> OwnItems:
        """Return what one entity's meetings add to the scores of their items.

        Args:
            item_row: `[meetings]`, int32, newest first.
            age_days: `[meetings]`, float32, >= 0, or `UNKNOWN_AGE`.
        """
        found = entries_of(self, np.zeros(len(item_row), np.int64), item_row, age_days)
        order = np.argsort(found.value)
        return OwnItems(found.value[order], found.weight[order] * np.float32(self.weight))


@dataclass(frozen=True)
class OwnItems:
    """The items of one entity.

    Attributes:
        rows: `[items]`, int32, ascending, distinct.
        scores: `[items]`, float32, > 0: what each adds to the inner product.
    """

    rows: Int32
    scores: Float32

    def of(self, rows: Int32) -> Float32:
        """Return what is added to the scores of some rows, of their shape; 0 for items that are not the entity's."""
        if len(self.rows) == 0:
            return np.zeros(rows.shape, np.float32)
        places = self.rows.searchsorted(rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[places] == rows, self.scores[places], np.float32(0))

    def where(self, kept: np.ndarray) -> OwnItems:
        """Return those for which a mask, `[items]`, is true."""
        return OwnItems(self.rows[kept], self.scores[kept])


class OwnWeights:
    """The weights of the items that each known entity has met, beside `SeenItems` and in its order.

    Args:
        fusion: how they are added.
        weights: `[pairs]`, float32, > 0: what the meetings of each pair of entity and item count together.
    """

    def __init__(self, fusion: Fusion, weights: Float32) -> None:
        self.fusion, self._weights = fusion, weights

    def of(self, pairs: slice, rows: Int32) -> OwnItems:
        """Return the own items of one entity.

        Args:
            pairs: where the entity's pairs stand.
            rows: their items.
        """
        return OwnItems(rows, self._weights[pairs] * np.float32(self.fusion.weight))

    def save(self, folder: Path) -> None:
        """Write the part into a release folder."""
        folder.mkdir()
        write_atomically(folder / SETTINGS, json.dumps(asdict(self.fusion), indent=1) + "\n")
        save_array(folder / WEIGHTS, self._weights)

    @classmethod
    def load(cls, folder: Path, pairs: int) -> OwnWeights:
        """Open what `save` wrote.

        Args:
            folder: the part.
            pairs: pairs of entities and items of the release.

        Raises:
            ReleaseError: the part is damaged, or of another release.
        """
        fusion = read_json(folder / SETTINGS, Fusion, "Use the version that wrote it.")
        try:
            weights = np.asarray(np.load(folder / WEIGHTS, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ReleaseError(f"{folder}: not a part that this version wrote ({error}).") from None
        if weights.dtype != np.float32 or weights.shape != (pairs,):
            raise ReleaseError(f"{folder}: not the weights of {pairs} pairs of entities and items.")
        return cls(fusion, weights)
