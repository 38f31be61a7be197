"""Team-draft interleaving: two arms in one list, and which of them its reader preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.errors import RefusedError, describe


def draft(first: Sequence[str], second: Sequence[str], k: int, generator: np.random.Generator) -> list[tuple[str, int]]:
    """Return one list made from two.

    In turns, a coin deciding who begins a round, each arm adds its best item that the list does not have yet.

    Reference:
        Radlinski, Kurup and Joachims 2008, How does clickthrough data reflect retrieval quality?, CIKM, Sec. 3.2.

    Args:
        first: item ids of one arm, best first, distinct.
        second: item ids of the other.
        k: length of the list, >= 0; it is shorter where both arms run out.
        generator: the coin.

    Returns:
        Item ids with the arm, 0 or 1, that added each.
    """
    lists, places, sizes = (first, second), [0, 0], [0, 0]
    chosen: list[tuple[str, int]] = []
    taken: set[str] = set()
    while len(chosen) < k:
        for arm in (0, 1):
            while places[arm] < len(lists[arm]) and lists[arm][places[arm]] in taken:
                places[arm] += 1
        left = [arm for arm in (0, 1) if places[arm] < len(lists[arm])]
        if not left:
            break
        if len(left) == 2:
            turn = int(generator.integers(2)) if sizes[0] == sizes[1] else int(sizes[0] > sizes[1])
        else:
            turn = left[0]
        item = lists[turn][places[turn]]
        taken.add(item)
        sizes[turn] += 1
        chosen.append((item, turn))
    return chosen


@dataclass(frozen=True)
class Preference:
    """Which of two interleaved arms was preferred.

    Attributes:
        first: name of one arm.
        second: name of the other.
        first_wins: units with more credit for the first.
        second_wins: units with more credit for the second.
        ties: units with equal credit, none included.
        win_rate: share of the wins that are the second's, 0..1; 0.5 where there are none.
        low: lower bound of its exact interval (Clopper and Pearson).
        high: upper bound.
        p_value: of the sign test, two-sided, exact.
    """

    first: str
    second: str
    first_wins: int
    second_wins: int
    ties: int
    win_rate: float
    low: float
    high: float
    p_value: float


def credit(exposures: pl.LazyFrame, events: pl.LazyFrame, kind: str, unit: str = "user_id") -> pl.DataFrame:
    """Count, for each unit, the events on items that each arm added to interleaved lists.

    An item is credited once a list however often it was clicked, and not at all where both ids and teams of a list
    differ in length.

    Args:
        exposures: rows of the exposure log.
        events: rows of the event log.
        kind: of event that is credit, such as `click`.
        unit: column of whom to count for; credit of one unit is not independent, that of different ones is.

    Returns:
        `unit`, `arm`, `credit`; units that saw interleaved lists and gave no credit have a row without an arm.
    """
    drafted = exposures.filter(
        pl.col("teams").is_not_null() & (pl.col("teams").list.len() == pl.col("item_ids").list.len())
    ).select("token", pl.col(unit).alias("unit"), item_id="item_ids", arm="teams")
    clicked = events.filter(pl.col("kind") == kind).select("token", "item_id").drop_nulls().unique()
    lists = drafted.unique("token")
    credited = lists.explode("item_id", "arm").join(clicked, on=["token", "item_id"], how="inner")
    counts = credited.group_by("unit", "arm").agg(credit=pl.len())
    return lists.select("unit").unique().join(counts, on="unit", how="left").collect(engine="streaming")


def preference(credits: pl.DataFrame, first: str, second: str, *, confidence: float = 0.95) -> Preference:
    """Test whether units prefer one of two interleaved arms.

    Reference:
        Chapelle, Joachims, Radlinski and Yue 2012, Large-scale validation and analysis of interleaved search
        evaluation, TOIS 30. Differs: a unit's lists are added up before it casts its one vote.

    Args:
        credits: from `credit`.
        first: name of one arm, as in the log's teams.
        second: name of the other.
        confidence: level of the interval, 0..1.

    Raises:
        RefusedError: no unit saw an interleaved list.
    """
    from scipy import stats  # not at the top: a server that drafts has no SciPy

    if credits.is_empty():
        raise RefusedError(describe("interleaved lists", 0, "at least one", "Look whether `teams` was logged."))
    balance = (
        pl.col("credit").filter(pl.col("arm") == second).sum().cast(pl.Int64)
        - pl.col("credit").filter(pl.col("arm") == first).sum().cast(pl.Int64)
    )  # fmt: skip
    signs = credits.group_by("unit").agg(balance.sign().alias("sign"))["sign"]
    first_wins, second_wins = int((signs < 0).sum()), int((signs > 0).sum())
    wins = first_wins + second_wins
    if wins == 0:
        return Preference(first, second, 0, 0, len(signs), 0.5, 0.0, 1.0, 1.0)
    test = stats.binomtest(second_wins, wins)
    interval = test.proportion_ci(confidence)
    return Preference(
        first, second, first_wins, second_wins, len(signs) - wins,
        second_wins / wins, float(interval.low), float(interval.high), float(test.pvalue),
    )  # fmt: skip
