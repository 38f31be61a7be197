"""Team-draft interleaving: two arms in one list, and which of them its reader preferred."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.errors import DataError, RefusedError
from recsys.experiment.plan import INTERLEAVED, MIN_UNITS, SKEW_TOLERANCE_S
from twintower.errors import SettingError, describe

if TYPE_CHECKING:
    import polars as pl

    from recsys.experiment.log import Log

# Polars and SciPy are not imported at the top: a server that drafts needs neither.


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
        low: lower bound of its exact interval (Clopper and Pearson), for one look that was settled before.
        high: upper bound.
        p_value: of the sign test, two-sided, exact, for that look.
        always_low: lower bound of the interval that holds at every look, for all comparisons made together.
        always_high: upper bound.
        always_p_value: that holds at every look, for all comparisons made together.
        preferred: the arm that is preferred with the confidence asked for; empty where it is undecided.
        reason: why it is undecided; empty where an arm is preferred.
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
    always_low: float
    always_high: float
    always_p_value: float
    preferred: str
    reason: str


def credit(
    exposures: pl.LazyFrame,
    events: pl.LazyFrame,
    kind: str,
    *,
    experiment: str,
    unit: str = "user_id",
    attribution_h: float = 168.0,
    skew_tolerance_s: float = SKEW_TOLERANCE_S,
) -> pl.DataFrame:
    """Count, for each unit, the events on items that each arm added to the interleaved lists of an experiment.

    An item is credited once a list however often it was clicked, and not at all where both ids and teams of a list
    differ in length. Lists of units that the experiment file overrides do not count.

    Args:
        exposures: rows of the exposure log.
        events: rows of the event log.
        kind: of event that is credit, such as `click`.
        experiment: its name.
        unit: column of whom to count for; credit of one unit is not independent, that of different ones is.
        attribution_h: hours after a list in which its events count.
        skew_tolerance_s: seconds that an event may precede its list.

    Returns:
        `unit`, `arm`, `credit`; units that saw interleaved lists and gave no credit have a row without an arm.
    """
    import polars as pl

    each = pl.element().struct
    is_drafted = (each.field("experiment") == experiment) & (each.field("arm") == INTERLEAVED)
    counts = pl.col("assignments").list.eval(is_drafted & ~each.field("overridden")).list.any()
    whole = pl.col("teams").list.len() == pl.col("item_ids").list.len()
    drafted = exposures.filter(counts.fill_null(False) & whole.fill_null(False) & pl.col(unit).is_not_null()).select(
        "token", pl.col(unit).alias("unit"), item_id="item_ids", arm="teams", exposed_at="timestamp"
    )
    lists = drafted.unique("token")
    clicked = events.filter(pl.col("kind") == kind).select("token", "item_id", "timestamp").drop_nulls()
    delay_s = (pl.col("timestamp") - pl.col("exposed_at")).dt.total_microseconds() / 1e6
    credited = (
        lists.explode("item_id", "arm")
        .join(clicked, on=["token", "item_id"], how="inner")
        .filter(delay_s.is_between(-skew_tolerance_s, attribution_h * 3600))
        .unique(["token", "item_id"])
    )
    found = credited.group_by("unit", "arm").agg(credit=pl.len())
    return lists.select("unit").unique().join(found, on="unit", how="left").collect(engine="streaming")


def preferences(
    log: Log,
    experiment: str,
    kinds: Collection[str],
    *,
    control: str = "control",
    confidence: float = 0.95,
    planned_units: float | None = None,
    min_units: int = MIN_UNITS,
    final: bool = False,
    attribution_h: float = 168.0,
) -> Mapping[str, Preference]:
    """Test which of its two arms the units of an interleaved experiment prefer.

    Args:
        log: from `open_log`.
        experiment: its name.
        kinds: of events that are credit.
        control: the arm that is named first.
        confidence: level of the intervals, 0..1.
        planned_units: at which always-valid intervals tell the smallest preference from none, > 0, settled before
            looking; None suits any number.
        min_units: units that saw interleaved lists, needed before an arm is preferred, >= 2.
        final: this is the one look that was planned: the fixed test decides.
        attribution_h: hours after a list in which its events count.

    Returns:
        By kind of event.

    Raises:
        RefusedError: no unit saw an interleaved list, or no kind of event was named.
        DataError: the lists were not drafted by two arms, one of them the control.
    """
    import polars as pl

    if not kinds:
        raise RefusedError(describe("events", 0, "at least one kind of event", "Look whether RecordEvents was called."))
    is_mine = pl.element().struct.field("experiment") == experiment
    mine = pl.col("assignments").list.filter(is_mine).list.first()
    rows = log.exposures.filter(mine.is_not_null() & pl.col("teams").is_not_null())
    found = rows.select(pl.col("teams").explode(), kind=mine.struct.field("unit_kind").first())
    seen = found.unique().collect(engine="streaming")
    arms = sorted(seen["teams"].drop_nulls())
    if not arms:
        raise RefusedError(_no_lists())
    if len(arms) > 2 or (len(arms) == 2 and control not in arms):
        raise DataError(describe(f"teams in the log of {experiment}", arms, f"{control!r} and one other arm"))
    first = control if control in arms else arms[0]
    second = next((arm for arm in arms if arm != first), "")
    unit = f"{seen['kind'].drop_nulls().min() or 'user'}_id"
    return {
        kind: preference(
            credit(
                log.exposures, log.events, kind, experiment=experiment, unit=unit, attribution_h=attribution_h
            ),
            first,
            second,
            confidence=confidence,
            planned_units=planned_units,
            min_units=min_units,
            final=final,
            comparisons=len(kinds),
        )
        for kind in kinds
    }  # fmt: skip


def _no_lists() -> str:
    return describe("interleaved lists", 0, "at least one", "Look whether `teams` was logged.")


def preference(
    credits: pl.DataFrame,
    first: str,
    second: str,
    *,
    confidence: float = 0.95,
    planned_units: float | None = None,
    min_units: int = MIN_UNITS,
    final: bool = False,
    comparisons: int = 1,
) -> Preference:
    """Test whether units prefer one of two interleaved arms, for one look and for looks at any time.

    Reference:
        Chapelle, Joachims, Radlinski and Yue 2012, Large-scale validation and analysis of interleaved search
        evaluation, TOIS 30. Differs: a unit's lists are added up before it casts its one vote.

    At every look holds what holds for votes that stay: one that its unit's later lists may still turn around makes it
    an approximation, as in `sequential.always_valid_half_width`.

    Args:
        credits: from `credit`.
        first: name of one arm, as in the log's teams.
        second: name of the other.
        confidence: level of the intervals, 0..1.
        planned_units: at which the always-valid interval tells the smallest preference from none, > 0, settled before
            looking; a little later where many units prefer neither. None suits any number.
        min_units: units that saw interleaved lists, needed before an arm is preferred, >= 2.
        final: this is the one look that was planned: the fixed test decides.
        comparisons: made together; the always-valid results and the decision are Bonferroni's for them.

    Raises:
        RefusedError: no unit saw an interleaved list.
        SettingError: a number out of its range.
    """
    import polars as pl
    from scipy import stats

    from recsys.experiment.sequential import always_valid_rate, log_evidence

    if not 0 < confidence < 1:
        raise SettingError(describe("confidence", confidence, "a number between 0 and 1, both excluded"))
    if min_units < 2:
        raise SettingError(describe("min_units", min_units, "at least 2"))
    if credits.is_empty():
        raise RefusedError(_no_lists())
    balance = (
        pl.col("credit").filter(pl.col("arm") == second).sum().cast(pl.Int64)
        - pl.col("credit").filter(pl.col("arm") == first).sum().cast(pl.Int64)
    )  # fmt: skip
    signs = credits.group_by("unit").agg(balance.sign().alias("sign"))["sign"]
    first_wins, second_wins = int((signs < 0).sum()), int((signs > 0).sum())
    wins = first_wins + second_wins
    if wins == 0:
        reason = f"no unit of {len(signs):,} gave one arm more credit than the other"
        return Preference(first, second, 0, 0, len(signs), 0.5, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, "", reason)
    test = stats.binomtest(second_wins, wins)
    fixed = test.proportion_ci(confidence)
    alpha = (1 - confidence) / comparisons
    always = always_valid_rate(second_wins, first_wins, planned=planned_units, alpha=alpha)
    against_even = float(log_evidence(second_wins, first_wins, 0.5, planned=planned_units, alpha=alpha))
    always_p_value = min(1.0, comparisons * math.exp(-max(0.0, against_even)))
    deciding = comparisons * float(test.pvalue) if final else always_p_value
    preferred, reason = second if second_wins > first_wins else first, ""
    if len(signs) < min_units:
        preferred, reason = "", f"too few units: {len(signs):,}; a preference needs at least {min_units:,} (min_units)"
    elif deciding >= 1 - confidence:
        preferred, reason = "", f"{first} and {second} are not told apart"
    return Preference(
        first, second, first_wins, second_wins, len(signs) - wins,
        second_wins / wins, float(fixed.low), float(fixed.high), float(test.pvalue),
        *always, always_p_value, preferred, reason,
    )  # fmt: skip
