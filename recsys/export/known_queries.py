"""The vectors of the query entities that a release knows: a query by id needs no query tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.errors import ReleaseError
from recsys.files import save_array
from recsys.types import Float32
from twintower.errors import describe, verbatim

FOLDER = "known_queries"
VECTORS, LENGTHS = "vectors.npy", "lengths.npy"


@dataclass(frozen=True)
class KnownQueries:
    """What the query tower makes of each known query entity with all that it has met.

    Attributes:
        vectors: `[entities, dim]`, float32: of unit length, or zeros where a tower that only reads a history has none.
        lengths: `[entities]`, float32, > 0: as `QuerySide.lengths`.
    """

    vectors: Float32
    lengths: Float32

    def save(self, folder: Path) -> None:
        """Write the part.

        Args:
            folder: does not exist yet.
        """
        folder.mkdir()
        save_array(folder / VECTORS, self.vectors)
        save_array(folder / LENGTHS, self.lengths)

    @classmethod
    def load(cls, folder: Path, entities: int, dim: int) -> KnownQueries:
        """Open what `save` wrote; the vectors stay on disk, mapped.

        Args:
            folder: the part.
            entities: rows of the release's queries.
            dim: length of the release's vectors.

        Raises:
            ReleaseError: the part is missing, damaged, or of another release.
        """
        try:
            # Still mapped, without the time that slices of `np.memmap` take.
            vectors = np.asarray(np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False))
            lengths = np.load(folder / LENGTHS, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ReleaseError(f"{folder}: not a part that this version wrote ({error}).") from None
        found = [(str(each.dtype), each.shape) for each in (vectors, lengths)]
        expected = [("float32", (entities, dim)), ("float32", (entities,))]
        if found != expected:
            raise ReleaseError(describe(str(folder), verbatim(found), str(expected)))
        return cls(vectors, lengths)
