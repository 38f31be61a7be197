"""Reduce a log to one row a unit, a part of the units at a time, so that memory does not grow with the log.

Exposures are split by a hash of their unit into temporary files of a few million rows; so are events by their id, where
repeats are dropped. Each part of the exposures then meets all events. What grows with the log is disk, not memory: of
the result there is one short row for each unit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from pydantic import Field
from tea_tasting.aggr import Aggregates

from recsys.errors import DataError, StorageError
from recsys.experiment.log import Log
from recsys.experiment.plan import SKEW_TOLERANCE_S, Experiment, Metric
from recsys.files import storage
from recsys.progress import task
from recsys.registry import settings
from twintower.errors import MissingError, describe, unknown

ROWS_AT_ONCE = 2_000_000
"""Rows of a log that are held in memory together, more or less."""

MOST_DAYS = 36_500
"""Of a window: a century before the first moment that a log may hold is still a date."""

MAX_VALUE = 1e100
"""Of a number that is added up, either sign: sums and products of such numbers are still numbers."""

BEFORE = "_before"
"""Ends the name of a column that holds the same as another one, before the experiment."""


@settings()
class Window:
    """Which events belong to an exposure, and which past belongs to a unit.

    Attributes:
        attribution_h: hours after an exposure in which its events count; later ones are counted as late and left out.
        skew_tolerance_s: seconds that an event may precede its exposure, because clients have clocks of their own.
        before_days: days before the experiment whose exposures and events are CUPED's covariates; 0 turns this off.
    """

    attribution_h: float = Field(default=168.0, gt=0)
    skew_tolerance_s: float = Field(default=SKEW_TOLERANCE_S, ge=0)
    before_days: float = Field(default=14.0, ge=0, le=MOST_DAYS)


@dataclass(frozen=True)
class Health:
    """What became of every row of a log; nothing is left out without a count.

    Attributes:
        exposures: rows of exposures.
        duplicate_exposures: rows whose token came before; dropped.
        broken_exposures: rows without token or time, or in the experiment without a unit; dropped.
        overridden_exposures: distinct exposures of the experiment by override; left out.
        torn_segments: files that end in the middle of a batch, because their writer was killed.
        events: rows of events.
        duplicate_events: rows whose event id came before; the earliest one stays.
        broken_events: rows without id, token, kind or time, or with a value that is NaN or beyond +-1e100; dropped.
        dropped_exposures: lists that servers could not log.
        unknown_tokens: distinct events about a list that the log does not hold; dropped.
        foreign_items: distinct events on an item that their list did not show; dropped.
        before_exposure: distinct events earlier than their list, beyond the tolerance; dropped.
        skewed: distinct events earlier than their list, within the tolerance; kept.
        late: distinct events after the attribution window; dropped.
        crossed_units: units that were served by two arms of the experiment; left out.
    """

    exposures: int = 0
    duplicate_exposures: int = 0
    broken_exposures: int = 0
    overridden_exposures: int = 0
    torn_segments: int = 0
    events: int = 0
    duplicate_events: int = 0
    broken_events: int = 0
    dropped_exposures: int = 0
    unknown_tokens: int = 0
    foreign_items: int = 0
    before_exposure: int = 0
    skewed: int = 0
    late: int = 0
    crossed_units: int = 0


Moments = dict[tuple[str, str], Aggregates]
"""Size, means, variances and covariances of units, by arm and group."""


@dataclass(frozen=True)
class Units:
    """What a log says of one experiment.

    Attributes:
        experiment: its name.
        start: its start, or the first exposure where the plan names none.
        metrics: what was measured, by name.
        frame: one row a unit: `unit`, `arm`, `exposures`, one column a metric with its sum over the unit, and the same
            with `BEFORE` where a past was asked for.
        daily: sums over one unit and day, by arm and day since the start ("0", "1", ...).
        sliced: sums over one unit and slice of items (`shown` instead of `exposures`), by arm and slice.
        health: what became of every row.
    """

    experiment: str
    start: datetime
    metrics: Mapping[str, Metric]
    frame: pl.DataFrame
    daily: Moments
    sliced: Moments
    health: Health

    @staticmethod
    def of_table(frame: pl.DataFrame, metrics: Mapping[str, Metric], experiment: str = "table") -> Units:
        """Return units that somebody else has added up.

        Args:
            frame: one row a unit: `unit`, `arm`, one column of numbers for each metric, `exposures` where a metric is
                a ratio to them (else 1 is put in), and, for CUPED, the same columns with `BEFORE`.
            metrics: what the columns mean, by name.
            experiment: what to call it.

        Raises:
            DataError: a column is missing, empty somewhere or not a number, or exposures are below 0.
        """
        if "exposures" not in frame.columns:
            frame = frame.with_columns(exposures=pl.lit(1.0))
        past = [name + BEFORE for name in ("exposures", *metrics) if name + BEFORE in frame.columns]
        numbers = ["exposures", *metrics, *past]
        try:
            chosen = frame.select(
                pl.col("unit").cast(pl.String), pl.col("arm").cast(pl.String), pl.col(numbers).cast(pl.Float64)
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(f"table of units: {str(error).partition(chr(10))[0]}.") from None
        sound = chosen.select(pl.col(numbers).is_between(-MAX_VALUE, MAX_VALUE).fill_null(False).all())
        if unsound := [name for name in numbers if not sound[name].all()]:
            rule = f"numbers between {-MAX_VALUE:g} and {MAX_VALUE:g} in every row"
            raise DataError(describe("table of units", unsound, rule))
        if (chosen["exposures"] < 0).any():
            raise DataError(describe("table of units: exposures", chosen["exposures"].min(), "numbers >= 0"))
        moment = datetime.fromtimestamp(0, UTC)
        return Units(experiment, moment, dict(metrics), chosen, {}, {}, Health())


def experiments_of(log: Log) -> dict[str, int]:
    """Return the experiments that a log tells of, with how many rows each."""
    names = log.exposures.select(pl.col("assignments").explode().struct.field("experiment")).drop_nulls()
    counted = names.group_by("experiment").len().sort("experiment").collect(engine="streaming")
    return dict(counted.iter_rows())


def arms_of(log: Log, experiment: str) -> list[str]:
    """Return the arms of an experiment that a log tells of, overridden units left out, sorted."""
    mine = _assignment(experiment).struct
    rows = log.exposures.select(arm=mine.field("arm"), overridden=mine.field("overridden"))
    arms = rows.filter(pl.col("arm").is_not_null() & ~pl.col("overridden")).select(pl.col("arm").unique())
    return sorted(arms.collect(engine="streaming")["arm"])


def event_kinds(log: Log) -> list[str]:
    """Return the kinds of events that a log tells of, sorted."""
    kinds = log.events.select(pl.col("kind").drop_nulls().unique()).collect(engine="streaming")
    return sorted(kinds["kind"])


def read_units(
    log: Log,
    name: str,
    metrics: Mapping[str, Metric],
    *,
    experiment: Experiment | None = None,
    window: Window | None = None,
    slices: pl.DataFrame | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Units:
    """Join a log's exposures and events, and add both up for each unit of one experiment.

    Args:
        log: from `open_log`.
        name: of the experiment.
        metrics: what to measure, by name.
        experiment: its settings; without them the start is the first exposure.
        window: which events and which past count.
        slices: `item_id` and `slice`, each item once: also add up by slice of the items shown. Items that it does not
            name are in slice `other`.
        rows_at_once: rows of a log held in memory together; with slices a tenth of it.

    Raises:
        MissingError: the log tells of no such experiment.
        DataError: a file of the log is damaged.
        StorageError: no room for temporary files.
    """
    window = window or Window()
    unit_kind, start = _unit_and_start(log, name, experiment)
    reading = _Reading(name, unit_kind, start, metrics, window, slices)
    share = rows_at_once if slices is None else rows_at_once // 10
    parts = max(1, -(-log.exposure_rows // max(1, share)))
    with _scratch() as folder, task("read log", parts + 2, "parts") as running:
        events, event_counts = _distinct_events(log, folder, rows_at_once)
        running.advance()
        exposures = reading.exposures(log)
        _spill(exposures, pl.col("unit"), parts, folder / "exposures")
        running.advance()
        tally = _Tally(reading)
        for part in _parts(folder / "exposures"):
            tally.add(part, events)
            running.advance()
    counts = {**tally.counts, **event_counts}
    # Below 0 only where one token was given to two units.
    counts["unknown_tokens"] = max(0, counts.pop("distinct_events") - counts.pop("known_events"))
    health = Health(
        **counts,
        exposures=log.exposure_rows,
        events=log.event_rows,
        torn_segments=log.torn_segments,
        dropped_exposures=log.dropped_exposures,
    )
    frame = pl.concat(tally.frames) if tally.frames else reading.empty()
    return Units(name, start, dict(metrics), frame, tally.daily, tally.sliced, health)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Hold a folder for temporary files.

    Raises:
        StorageError: there is no room in it.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-experiment-") as scratch, storage(Path(scratch)):
        try:
            yield Path(scratch)
        except pl.exceptions.ComputeError as error:  # of temporary files: rows of the log are sound, see `open_log`
            told = str(error).partition("\n")[0]
            advice = "Make room, or let TMPDIR name a folder that has some."
            raise StorageError(f"{scratch}: cannot keep temporary files: {told}. {advice}") from error


def _unit_and_start(log: Log, name: str, experiment: Experiment | None) -> tuple[str, datetime]:
    rows = log.exposures.select("timestamp", _assignment(name)).filter(pl.col("mine").is_not_null())
    analysed = ~pl.col("mine").struct.field("overridden").fill_null(False)
    kind, first, first_of_all = (
        rows.select(
            pl.col("mine").struct.field("unit_kind").min(),
            pl.col("timestamp").filter(analysed).min(),
            pl.col("timestamp").min().alias("first_of_all"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    first = first or first_of_all
    if first is None:
        raise MissingError(f"{log.folder}: {unknown('experiment', name, experiments_of(log))}")
    if experiment is not None:
        return experiment.unit, experiment.start or first
    return kind or "user", first


def _assignment(name: str) -> pl.Expr:
    is_mine = pl.element().struct.field("experiment") == name
    return pl.col("assignments").list.filter(is_mine).list.first().alias("mine")


def _spill(rows: pl.LazyFrame, key: pl.Expr, parts: int, folder: Path) -> None:
    """Write rows into files by a hash of the key, without holding them."""
    folder.mkdir()
    keyed = rows.with_columns(part=key.hash(0) % parts)
    keyed.sink_parquet(pl.PartitionBy(folder, key="part", include_key=False), compression="lz4")


def _parts(folder: Path) -> Iterator[pl.LazyFrame]:
    for part in sorted(folder.iterdir()):
        yield pl.scan_parquet(part / "*.parquet", hive_partitioning=False)


def _distinct_events(log: Log, folder: Path, rows_at_once: int) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Drop broken and repeated events; return the rest, lazy, and how many were dropped."""
    present = pl.all_horizontal(pl.col("event_id", "token", "kind", "timestamp").is_not_null())
    sound = present & pl.col("value").is_between(-MAX_VALUE, MAX_VALUE).fill_null(True)
    needed = ("event_id", "token", "kind", "item_id", "value", "timestamp")
    parts = max(1, -(-log.event_rows // max(1, rows_at_once)))
    _spill(log.events.select(needed).filter(sound), pl.col("event_id"), parts, folder / "all_events")
    (folder / "events").mkdir()
    kept = repeated = 0
    for number, part in enumerate(_parts(folder / "all_events")):
        rows = part.collect().sort(needed[::-1])
        distinct = rows.unique("event_id", keep="first", maintain_order=True).drop("event_id")
        distinct.write_parquet(folder / "events" / f"{number}.parquet", compression="lz4")
        kept, repeated = kept + len(distinct), repeated + len(rows) - len(distinct)
    counts = {
        "distinct_events": kept,
        "duplicate_events": repeated,
        "broken_events": log.event_rows - kept - repeated,
    }
    if kept == 0:
        return pl.LazyFrame(schema=log.events.collect_schema()).drop("event_id"), counts
    return pl.scan_parquet(folder / "events" / "*.parquet"), counts


@dataclass(frozen=True)
class _Reading:
    """What is read, and the expressions that say so."""

    name: str
    unit_kind: str
    start: datetime
    metrics: Mapping[str, Metric]
    window: Window
    slices: pl.DataFrame | None

    @property
    def has_past(self) -> bool:
        return self.window.before_days > 0

    @property
    def during(self) -> pl.Expr:
        return pl.col("arm").is_not_null() & ~pl.col("overridden")

    @property
    def before(self) -> pl.Expr:
        first = self.start - timedelta(days=self.window.before_days)
        return pl.col("exposed_at").is_between(first, self.start, closed="left")

    @property
    def day(self) -> pl.Expr:
        return ((pl.col("exposed_at") - self.start).dt.total_seconds() // 86_400).cast(pl.Int64).cast(pl.String)

    def exposures(self, log: Log) -> pl.LazyFrame:
        """The columns that matter; `arm` is null outside of the experiment."""
        mine = pl.col("mine").struct
        return log.exposures.with_columns(_assignment(self.name)).select(
            "token",
            pl.col(f"{self.unit_kind}_id").alias("unit"),
            pl.col("timestamp").alias("exposed_at"),
            mine.field("arm"),
            mine.field("overridden").fill_null(False),
            "item_ids",
        )

    def totals(self, when: pl.Expr, suffix: str = "") -> list[pl.Expr]:
        """Sums of the metrics over a unit's events, for `group_by(...).agg(...)`."""
        return [
            self._total(metric, when).cast(pl.Float64).alias(name + suffix) for name, metric in self.metrics.items()
        ]

    def _total(self, metric: Metric, when: pl.Expr) -> pl.Expr:
        hit = (pl.col("kind") == metric.event) & when
        if metric.count == "value":
            return pl.col("value").filter(hit).sum()
        if metric.count == "exposures":
            return pl.col("token").filter(hit).n_unique()
        return hit.any() if metric.count == "any" else hit.sum()

    def empty(self) -> pl.DataFrame:
        """A frame of no units."""
        suffixes = ("", BEFORE) if self.has_past else ("",)
        sums = {name + suffix: pl.Float64 for suffix in suffixes for name in ("exposures", *self.metrics)}
        return pl.DataFrame(schema={"unit": pl.String, "arm": pl.String, **sums})


@dataclass
class _Tally:
    """What was found so far."""

    reading: _Reading
    frames: list[pl.DataFrame] = field(default_factory=list)
    daily: Moments = field(default_factory=dict)
    sliced: Moments = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, part: pl.LazyFrame, events: pl.LazyFrame) -> None:
        """Add all exposures of some units, and their events."""
        rows = part.drop("item_ids") if self.reading.slices is None else part
        shown = self._sound_exposures(rows.collect())
        joined = events.join(shown.lazy(), on="token", how="inner").collect(engine="streaming")
        joined = self._attributed(self._on_shown_items(joined, part))
        frame = self._units(shown, joined)
        during = self.reading.during
        shown, joined = (
            rows.filter(during).drop("arm").join(frame.select("unit", "arm"), on="unit") for rows in (shown, joined)
        )
        self.frames.append(frame)
        self._add_days(shown, joined)
        if self.reading.slices is not None:
            self._add_slices(shown, joined, self.reading.slices)

    def _count(self, **counts: int) -> None:
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def _sound_exposures(self, rows: pl.DataFrame) -> pl.DataFrame:
        placed = pl.col("arm").is_null() | pl.col("unit").is_not_null()
        sound = rows.filter(pl.all_horizontal(pl.col("token", "exposed_at").is_not_null()) & placed)
        distinct = sound.unique("token", keep="first", maintain_order=True)
        self._count(
            broken_exposures=len(rows) - len(sound),
            duplicate_exposures=len(sound) - len(distinct),
            overridden_exposures=distinct["overridden"].sum(),
        )
        return distinct

    def _on_shown_items(self, joined: pl.DataFrame, part: pl.LazyFrame) -> pl.DataFrame:
        """Drop events on items that their list did not show; only the items of lists with events are held."""
        tokens = joined.lazy().filter(pl.col("item_id").is_not_null()).select("token")
        lists = part.select("token", list="item_ids").join(tokens, on="token", how="semi").unique("token")
        rows = joined.join(lists.collect(engine="streaming"), on="token", how="left", maintain_order="left")
        # Null where the event is about the whole list, or where the log does not know its items.
        kept = rows.filter(pl.col("item_id").is_in("list").fill_null(True)).drop("list")
        self._count(known_events=len(joined), foreign_items=len(joined) - len(kept))
        return kept

    def _attributed(self, joined: pl.DataFrame) -> pl.DataFrame:
        delay_s = (pl.col("timestamp") - pl.col("exposed_at")).dt.total_microseconds() / 1e6
        window = self.reading.window
        early = joined.select((delay_s < 0).sum()).item()
        kept = joined.filter(delay_s >= -window.skew_tolerance_s)
        skewed = early - (len(joined) - len(kept))
        timely = kept.filter(delay_s <= window.attribution_h * 3600)
        self._count(
            before_exposure=len(joined) - len(kept),
            skewed=skewed,
            late=len(kept) - len(timely),
        )
        return timely

    def _units(self, shown: pl.DataFrame, joined: pl.DataFrame) -> pl.DataFrame:
        reading = self.reading
        counts = [reading.during.sum().cast(pl.Float64).alias("exposures")]
        totals = reading.totals(reading.during)
        if reading.has_past:
            counts.append(reading.before.sum().cast(pl.Float64).alias("exposures" + BEFORE))
            totals += reading.totals(reading.before, BEFORE)
        arm = pl.col("arm").filter(reading.during)
        units = shown.drop_nulls("unit").group_by("unit").agg(arm.min(), arm.max().alias("other"), *counts)
        units = units.filter(pl.col("exposures") > 0)
        straight = units.filter(pl.col("arm") == pl.col("other")).drop("other")
        self._count(crossed_units=len(units) - len(straight))
        sums = joined.group_by("unit").agg(*totals)
        together = straight.join(sums, on="unit", how="left").with_columns(pl.col(pl.Float64).fill_null(0.0))
        return together.select(reading.empty().columns)

    def _add_days(self, shown: pl.DataFrame, joined: pl.DataFrame) -> None:
        keys = ("unit", "arm", "group")
        day = self.reading.day.alias("group")
        counts = shown.with_columns(day).group_by(keys).agg(pl.len().cast(pl.Float64).alias("exposures"))
        sums = joined.with_columns(day).group_by(keys).agg(*self.reading.totals(pl.lit(True)))
        self._merge(self.daily, counts.join(sums, on=keys, how="left"), "exposures")

    def _add_slices(self, shown: pl.DataFrame, joined: pl.DataFrame, slices: pl.DataFrame) -> None:
        keys = ("unit", "arm", "group")
        group = slices.select("item_id", group="slice")
        items = shown.explode("item_ids").drop_nulls("item_ids").rename({"item_ids": "item_id"})
        parts = []
        for rows, sums in (
            (items, [pl.len().cast(pl.Float64).alias("shown")]),
            (joined.drop_nulls("item_id"), self.reading.totals(pl.lit(True))),
        ):
            sliced = rows.join(group, on="item_id", how="left").with_columns(pl.col("group").fill_null("other"))
            parts.append(sliced.group_by(keys).agg(*sums))
        self._merge(self.sliced, parts[0].join(parts[1], on=keys, how="left"), "shown")

    def _merge(self, into: Moments, sums: pl.DataFrame, size: str) -> None:
        for key, found in moments_of(sums.fill_null(0.0), (size, *self.reading.metrics), ("arm", "group")).items():
            into[key] = into[key] + found if key in into else found


def moments_of(
    frame: pl.DataFrame, columns: tuple[str, ...], keys: tuple[str, ...]
) -> dict[tuple[str, ...], Aggregates]:
    """Return what tea-tasting needs to know of groups of units.

    Args:
        frame: one row a unit, with keys and columns.
        columns: numbers whose means, variances and covariances are wanted.
        keys: columns that name the group.

    Returns:
        By the values of the keys; the variances of a group of one unit are 0.
    """
    pairs = [(left, right) for place, left in enumerate(columns) for right in columns[place + 1 :]]
    counted = frame.group_by(keys).agg(
        pl.len().alias("count"),
        *(pl.col(column).mean().alias(f"mean {column}") for column in columns),
        *(pl.col(column).var().fill_null(0.0).alias(f"var {column}") for column in columns),
        *(pl.cov(left, right).fill_nan(0.0).fill_null(0.0).alias(f"cov {left} {right}") for left, right in pairs),
    )
    return {
        tuple(row[key] for key in keys): Aggregates(
            row["count"],
            {column: row[f"mean {column}"] for column in columns},
            {column: row[f"var {column}"] for column in columns},
            {pair: row[f"cov {pair[0]} {pair[1]}"] for pair in pairs},
        )
        for row in counted.iter_rows(named=True)
    }
