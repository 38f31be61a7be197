"""Two rankings of one query side by side: what entered, what left, and how far the rest moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twintower.types import Ranking


@dataclass(frozen=True)
class Place:
    """One item of a list.

    Attributes:
        item_id: the item.
        rank: its place, 1 = best.
        other_rank: its place in the other list; None where it is not there.
        score: inner product with the list's query, or a share of popularity.
        columns: its display columns by name.
    """

    item_id: str
    rank: int
    other_rank: int | None
    score: float
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A list before and after feedback.

    Attributes:
        before: places of the original list, best first; `other_rank` is that in `after`.
        after: places of the list that feedback moved, best first; `other_rank` is that in `before`.
    """

    before: tuple[Place, ...]
    after: tuple[Place, ...]

    @property
    def entered(self) -> tuple[Place, ...]:
        """What only the later list has."""
        return tuple(place for place in self.after if place.other_rank is None)

    @property
    def left(self) -> tuple[Place, ...]:
        """What only the original list has."""
        return tuple(place for place in self.before if place.other_rank is None)

    @property
    def moved(self) -> tuple[Place, ...]:
        """What both have, at different places: as the later list has it."""
        return tuple(place for place in self.after if place.other_rank not in (None, place.rank))


def compare(before: Ranking, after: Ranking) -> Comparison:
    """Return both rankings with the place of each item in the other one.

    Args:
        before: of the original query, with metadata.
        after: of the query that feedback moved, with metadata.
    """
    return Comparison(_places(before, after), _places(after, before))


def _places(ranking: Ranking, other: Ranking) -> tuple[Place, ...]:
    other_ranks = {item_id: rank for rank, item_id in enumerate(other.item_ids, 1)}
    listed = zip(ranking.item_ids, ranking.scores, ranking.metadata, strict=True)
    return tuple(
        Place(item_id, rank, other_ranks.get(item_id), float(score), columns)
        for rank, (item_id, score, columns) in enumerate(listed, 1)
    )
