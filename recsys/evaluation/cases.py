"""The questions of an evaluation: who asks, and which items of the catalogue would have been right."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import ShapeError
from recsys.types import Int64, RowSets
from twintower.errors import describe, verbatim


@dataclass(frozen=True, eq=False)
class EvaluationCases:
    """One query a case, with the items that it met after the cut.

    Attributes:
        case_ids: `[cases]`, strings, unique: what the data calls the query entity.
        relevant: the items that would have been right, one set a case.
        item_ids: `[items]`, strings, the whole catalogue in the order of its rows.
        item_counts: `[items]`, int64, training interactions of each item.
        activity: `[cases]`, int64, training interactions of each case's query entity.
        excluded: items that no recommender may show, one set a case (seen ones, the query item itself); None where
            every item may be shown.
        known: items that each case's query entity met before, one set a case, where they may be shown: repeats and new
            items are then judged apart; None where repeats do not count.
        history: in words, what the history of a query holds; empty where queries have none.

    Raises:
        ShapeError: lengths differ, or a case id stands twice.
    """

    case_ids: pa.Array | pa.ChunkedArray
    relevant: RowSets
    item_ids: pa.Array | pa.ChunkedArray
    item_counts: Int64
    activity: Int64
    excluded: RowSets | None = None
    known: RowSets | None = None
    history: str = ""

    def __post_init__(self) -> None:
        cases = len(self.case_ids)
        for name in ("relevant", "activity", "excluded", "known"):
            value = getattr(self, name)
            if value is not None and len(value) != cases:
                raise ShapeError(describe(name, len(value), f"{cases} cases, as many as case_ids"))
        if len(self.item_counts) != len(self.item_ids):
            raise ShapeError(describe("item_counts", len(self.item_counts), f"{len(self.item_ids)} items"))
        if pc.count_distinct(self.case_ids).as_py() != cases:
            raise ShapeError(
                describe("case_ids", verbatim(f"{cases} ids, some of them equal"), "a different id for each case")
            )

    def __len__(self) -> int:
        return len(self.case_ids)

    @cached_property
    def reachable(self) -> RowSets:
        """The relevant items that may be shown; an item that no recommender may show is asked of none."""
        return self.relevant if self.excluded is None else self.relevant.without(self.excluded)

    @cached_property
    def excluded_or_known(self) -> RowSets | None:
        """The excluded items and those that the entities met before: what a ranking of new items may not show."""
        if self.excluded is None or self.known is None:
            return self.known if self.excluded is None else self.excluded
        return self.known.union(self.excluded)

    @cached_property
    def of_new_items(self) -> EvaluationCases:
        """The same cases without what their entities have met; the cases as they are where that leaves no question."""
        if self.known is None:
            return self
        others = replace(self, excluded=self.excluded_or_known, known=None)
        return others if others.reachable.sizes.any() else self

    @cached_property
    def digest(self) -> str:
        """SHA-256 over case ids, reachable items and whether items are excluded; the order of cases does not matter."""
        owners = self.case_ids.take(pa.array(self.reachable.owners)).to_pylist()
        items = self.item_ids.take(pa.array(self.reachable.rows)).to_pylist()
        questions = {"excluded": self.excluded is not None, "pairs": sorted(zip(owners, items, strict=True))}
        return hashlib.sha256(json.dumps(questions).encode()).hexdigest()
