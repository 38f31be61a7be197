"""The ids that a release knows, with what a person would type to find them; read from its folder, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import ReleaseError
from recsys.export.release import Release
from recsys.export.run_file import read_served
from recsys.retrieval.plain_rows import plain_rows
from recsys.types import HISTORY, ITEM_ID, QUERY_ID, TRAINING_COUNT
from serving import display


@dataclass(frozen=True)
class Catalogue:
    """One side of a release.

    Attributes:
        table: one row for each id; other columns are shown.
        id_column: the name of the column of ids.
    """

    table: pa.Table
    id_column: str

    def __len__(self) -> int:
        return self.table.num_rows

    def __contains__(self, found_id: str) -> bool:
        return found_id in self._rows

    def find(self, typed: str, limit: int) -> list[str]:
        """Return ids whose id or columns hold every word that was typed, in any case.

        An equal id comes first, then ids that begin like it, then the items that are most frequent in training.

        Args:
            typed: words with spaces between them; none finds the most frequent.
            limit: how many at most.
        """
        typed = typed.strip()
        fits = np.ones(len(self), bool)
        for word in typed.lower().split():
            fits &= pc.match_substring(self._text, word).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(fits)
        ids = self._ids.take(pa.array(rows))
        begins = pc.starts_with(ids, typed, ignore_case=True).to_numpy(zero_copy_only=False)
        equal = pc.equal(ids, typed).to_numpy(zero_copy_only=False)
        best = np.lexsort((-self._counts[rows], ~begins, ~equal))[:limit]
        return ids.take(pa.array(best)).to_pylist()

    def row(self, known_id: str) -> dict[str, Any]:
        """Return all columns of an id; an empty dictionary where there is no such id."""
        row = self._rows.get(known_id)
        return {} if row is None else plain_rows(self.table.slice(row, 1))[0]

    def title(self, known_id: str) -> str:
        """Return what a person calls it."""
        return display.title(known_id, self.row(known_id))

    def any(self, random: np.random.Generator) -> str:
        """Return an id by chance."""
        return self._ids[int(random.integers(len(self)))].as_py()

    @cached_property
    def _ids(self) -> pa.Array:
        return self.table[self.id_column].combine_chunks()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {known_id: row for row, known_id in enumerate(self._ids.to_pylist())}

    @cached_property
    def _counts(self) -> np.ndarray:
        if TRAINING_COUNT not in self.table.column_names:
            return np.zeros(len(self), np.int64)
        return self.table[TRAINING_COUNT].to_numpy()

    @cached_property
    def _text(self) -> pa.Array:
        """What is searched: the id and every column of text or numbers, in small letters."""
        searched = [
            pc.fill_null(column.combine_chunks().cast(pa.string()), "")
            for name, column in zip(self.table.column_names, self.table.columns, strict=True)
            if name != TRAINING_COUNT and not pa.types.is_nested(column.type)
        ]
        return pc.utf8_lower(pc.binary_join_element_wise(*searched, " "))


@dataclass(frozen=True)
class Known:
    """Both sides of a release.

    Attributes:
        items: the catalogue, with its display columns.
        entities: the users that the release knows by id; None where it knows none, or where they are items.
    """

    items: Catalogue
    entities: Catalogue | None

    @classmethod
    def read(cls, release: Release) -> Known:
        """Read both sides of a release.

        Raises:
            ReleaseError: a part is not what this version writes.
        """
        folder = release.folder
        try:
            shown = read_served(folder).item.metadata
            names = pq.read_schema(folder / "items.parquet").names
            wanted = [name for name in names if not shown or name in (ITEM_ID, *shown, TRAINING_COUNT)]
            items = Catalogue(pq.read_table(folder / "items.parquet", columns=wanted), ITEM_ID)
            if release.facts.query_entity != "user":
                return cls(items, None)
            return cls(items, Catalogue(pq.read_table(folder / "queries.parquet"), QUERY_ID))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise ReleaseError(f"{folder}: its ids cannot be read ({error}).") from None

    def history(self, entity_id: str) -> list[str]:
        """Return the items that a user met last, the latest first; empty where the release keeps none."""
        met = (self.entities.row(entity_id).get(HISTORY) or []) if self.entities is not None else []
        return list(dict.fromkeys(each[ITEM_ID] for each in met))
