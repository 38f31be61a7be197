"""What a log folder holds, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from recsys.experiment.log import LOGS, Log, is_written, segments_in
from recsys.experiment.units import event_kinds


@dataclass(frozen=True)
class Summary:
    """What a log folder holds.

    Attributes:
        exposures: rows of exposures, repeats counted.
        events: rows of events, repeats counted.
        first: when the first list was shown.
        last: when the last one was.
        releases: exposures by fingerprint of the release, most first.
        arms: exposures by experiment and arm, sorted.
        kinds: kinds of events, sorted.
        dropped_exposures: lists that servers could not log.
        torn_segments: segments that ended in the middle of a batch.
        living_segments: segments that a server writes to.
        ended_segments: segments that `compact` would move.
        parquet_files: files that were compacted, or written by others.
        size_bytes: of all of them.
    """

    exposures: int
    events: int
    first: datetime | None
    last: datetime | None
    releases: dict[str, int]
    arms: dict[tuple[str, str], int]
    kinds: list[str]
    dropped_exposures: int
    torn_segments: int
    living_segments: int
    ended_segments: int
    parquet_files: int
    size_bytes: int


def summarise(log: Log) -> Summary:
    """Return what a log holds; every row is read once or twice, a part at a time."""
    moment = pl.col("timestamp")
    first, last = (
        log.exposures.select(moment.min().alias("first"), moment.max().alias("last")).collect(engine="streaming").row(0)
    )
    releases = log.exposures.group_by("release").len().sort("len", "release", descending=[True, False])
    assigned = log.exposures.select(pl.col("assignments").explode().struct.unnest()).drop_nulls("experiment")
    arms = assigned.group_by("experiment", "arm").len().sort("experiment", "arm").collect(engine="streaming")
    segments = [path for name in LOGS for path in segments_in(log.folder / name)]
    files = [path for name in LOGS for path in (log.folder / name).glob("[!.]*.parquet")]
    living = sum(is_written(path) for path in segments)
    return Summary(
        exposures=log.exposure_rows,
        events=log.event_rows,
        first=first,
        last=last,
        releases=dict(releases.collect(engine="streaming").iter_rows()),
        arms={(experiment, arm): count for experiment, arm, count in arms.iter_rows()},
        kinds=event_kinds(log),
        dropped_exposures=log.dropped_exposures,
        torn_segments=log.torn_segments,
        living_segments=living,
        ended_segments=len(segments) - living,
        parquet_files=len(files),
        size_bytes=sum(path.stat().st_size for path in (*segments, *files)),
    )
