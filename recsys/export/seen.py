"""What each known query entity has met, whole: the part of a release that `exclude_seen` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys.errors import ReleaseError
from recsys.files import save_array
from recsys.types import Int32, RowSets

OFFSETS, ROWS = "offsets.npy", "rows.npy"


class SeenItems:
    """The items that each query entity of a release has met, in all parts of its data.

    The arrays are stored in the smallest unsigned type that holds them and are read through a memory map: 20 million
    pairs of a million entities take 84 MB, and 44 MB where the catalog has at most 65,536 items.

    Args:
        sets: distinct item rows of each query entity, ascending; owner = row in `queries.parquet`.
    """

    def __init__(self, sets: RowSets) -> None:
        self._sets = sets

    def __len__(self) -> int:
        return len(self._sets)

    def of(self, query_row: int) -> Int32:
        """Return the rows of the items that one entity has met, `[items]`, int32, ascending, distinct."""
        return self._sets[query_row].astype(np.int32)

    def count(self, query_row: int) -> int:
        """Return how many items one entity has met."""
        return int(self._sets.offsets[query_row + 1]) - int(self._sets.offsets[query_row])

    def pairs(self, query_row: int) -> slice:
        """Return where the items of one entity stand among the pairs of all."""
        return slice(int(self._sets.offsets[query_row]), int(self._sets.offsets[query_row + 1]))

    @property
    def pair_count(self) -> int:
        """How many items all entities have met together."""
        return len(self._sets.rows)

    def save(self, folder: Path) -> None:
        """Write the part into a release folder."""
        folder.mkdir()
        for name, values in ((OFFSETS, self._sets.offsets), (ROWS, self._sets.rows)):
            save_array(folder / name, values.astype(np.min_scalar_type(int(values.max(initial=0)))))

    @classmethod
    def load(cls, folder: Path, queries: int, items: int) -> SeenItems:
        """Open what `save` wrote.

        Args:
            folder: the part.
            queries: query entities of the release.
            items: rows of its catalog.

        Raises:
            ReleaseError: the part is missing, damaged, or of another release.
        """
        try:
            # Still mapped, without the time that slices of `np.memmap` take.
            offsets, rows = (np.asarray(np.load(folder / name, mmap_mode="r")) for name in (OFFSETS, ROWS))
            largest = int(np.load(folder / ROWS).max(initial=0))  # not through the map, whose pages would stay
            fits = len(offsets) == queries + 1 and int(offsets[-1]) == len(rows) and largest < items
            is_sound = offsets.dtype.kind == rows.dtype.kind == "u" and bool((offsets[1:] >= offsets[:-1]).all())
        except (OSError, ValueError, TypeError, IndexError) as error:
            raise ReleaseError(f"{folder}: not a part that this version wrote ({error}).") from None
        if not fits or not is_sound:
            raise ReleaseError(f"{folder}: not what {queries} entities have met of {items} items.")
        return cls(RowSets(offsets, rows))
