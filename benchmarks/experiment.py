"""Can the analysis of experiments be trusted, and what does it cost: false alarms, coverage, narrowing, memory, time.

A/A: thousands of experiments without an effect, each test counted where it cries wolf; the same with a planted effect,
each interval counted where it holds the truth. Logs of millions of rows are read by the command in a process of its
own; the peak is what the kernel reports for that process.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from scipy import stats
from tea_tasting.aggr import Aggregates

from benchmarks.report import RESULTS, Report
from recsys.cli import one_message
from recsys.experiment.assignment import draws
from recsys.experiment.effects import difference, ratio_metric, sample_ratio
from recsys.experiment.log import EVENTS, EXPOSURES
from recsys.experiment.quantiles import quantile_difference
from recsys.experiment.sequential import always_valid_half_width
from recsys.progress import track

EXPERIMENTS, COVERED, UNITS, DAYS = 10_000, 4_000, 1_000, 14
QUICK_EXPERIMENTS, QUICK_COVERED = 60, 40
SIZES, QUICK_SIZES = (1_000_000, 3_000_000, 10_000_000), (20_000, 60_000)
USERS, QUICK_USERS = 300_000, 2_000
ITEMS, K, FILE_ROWS = 10_000, 5, 500_000
CLICK_RATE, EFFECT = 0.1, 0.2
SAMPLE_RATIO_UNITS, SAMPLE_RATIO_ALPHA = 100_000, 0.001
COLUMNS = ("clicks", "exposures", "clicks_before", "exposures_before")
MEASURED = {
    "mean": ratio_metric("clicks", None),
    "ratio": ratio_metric("clicks", "exposures"),
    "mean, CUPED": ratio_metric("clicks", None, suffix="_before"),
    "ratio, CUPED": ratio_metric("clicks", "exposures", suffix="_before"),
}
QUANTILE_UNITS = {"quantile 0.9": UNITS, "quantile 0.9, 10,000 units": 10 * UNITS}
"""The bootstrap of quantiles is wide at small sizes: how wide, and whether that goes away."""
START_US = 1_772_323_200_000_000
PLAN = """
[metrics.clicks]
event = "click"
role = "primary"
[metrics.ctr]
event = "click"
count = "exposures"
per = "exposure"
[experiments.bench]
start = 2026-03-01T00:00:00Z
arms = { control = { share = 0.5 }, new = { share = 0.5 } }
"""


def arms_of(generator: np.random.Generator, units: int, effect: float) -> Iterator[np.ndarray]:
    """Yield the `COLUMNS` of a control arm and of another one whose click rate is higher by `effect`."""
    for rate in (CLICK_RATE, CLICK_RATE * (1 + effect)):
        activity = generator.gamma(2.0, 0.5, units)
        exposures, before = generator.poisson(10 * activity) + 1, generator.poisson(10 * activity) + 1
        clicks, clicks_before = generator.binomial(exposures, rate), generator.binomial(before, CLICK_RATE)
        yield np.stack([clicks, exposures, clicks_before, before]).astype(float)


def moments(columns: np.ndarray) -> Aggregates:
    """Return what tea-tasting reads, of `[columns, units]`."""
    means, covariances = columns.mean(axis=1), np.cov(columns)
    places = range(len(COLUMNS))
    return Aggregates(
        columns.shape[1],
        {COLUMNS[i]: means[i] for i in places},
        {COLUMNS[i]: covariances[i, i] for i in places},
        {(COLUMNS[i], COLUMNS[j]): covariances[i, j] for i in places for j in places if i < j},
    )


def rate(report: Report, case: dict, subject: str, metric: str, hits: int, runs: int) -> None:
    """Add a share with its exact 99.9 % interval."""
    interval = stats.binomtest(hits, runs).proportion_ci(0.999)
    report.add_interval(case, subject, metric, hits / runs, interval.low, interval.high, runs)


def false_alarms(report: Report, experiments: int) -> None:
    """A/A: how often each test finds what is not there."""
    counts = dict.fromkeys([*MEASURED, *QUANTILE_UNITS, "sample ratio"], 0)
    for seed in track(range(experiments), "A/A", experiments, "experiments"):
        generator = np.random.default_rng([1, seed])
        control, new = arms_of(generator, UNITS // 2, 0.0)
        found = moments(control), moments(new)
        for name, measured in MEASURED.items():
            counts[name] += difference("clicks", "new", *found, measured).p_value < 0.05
        for name, units in QUANTILE_UNITS.items():
            values = generator.lognormal(size=(2, units // 2))
            quantile = quantile_difference(*values, 0.9, resamples=2_000, seed=seed)
            counts[name] += not quantile.low <= 0 <= quantile.high
        split = int(generator.binomial(SAMPLE_RATIO_UNITS, 0.5))
        both = {"control": split, "new": SAMPLE_RATIO_UNITS - split}
        counts["sample ratio"] += sample_ratio(both, {"control": 0.5, "new": 0.5}, "control") < 0.05
    low, high = (value / experiments for value in stats.binom.ppf([0.0005, 0.9995], experiments, 0.05))
    case = {"what": "A/A", "units": UNITS}
    for name, count in counts.items():
        rate(report, case, name, "false_alarm_rate", count, experiments)
    if experiments < EXPERIMENTS:
        return
    outside = [name for name, count in counts.items() if not low <= count / experiments <= high]
    told = f"outside: {', '.join(f'{name} at {counts[name] / experiments:.2%}' for name in outside)}"
    told = told if outside else "all inside"
    report.note(f"A/A: the 99.9 % binomial band around 5 % is {low:.2%} to {high:.2%}; {told}.")


def peeking(report: Report, experiments: int) -> None:
    """A/A, looked at every day: how often any interval of an experiment excludes 0."""
    daily, alarms, fixed = 100, 0, 0
    looks = np.arange(1, DAYS + 1) * daily
    for seed in track(range(experiments), "peeking", experiments, "experiments"):
        generator = np.random.default_rng([2, seed])
        values = generator.binomial(1, 0.2, (2, DAYS * daily)).astype(float)
        means = np.cumsum(values, axis=1)[:, looks - 1] / looks
        variances = means * (1 - means) * looks / (looks - 1)
        errors = np.sqrt((variances / looks).sum(axis=0))
        apart = np.abs(means[1] - means[0])
        half = [
            always_valid_half_width(error, 2 * look, planned_units=2 * DAYS * daily, alpha=0.05)
            for error, look in zip(errors.tolist(), looks.tolist(), strict=True)
        ]
        alarms += bool((apart > half).any())
        fixed += bool((apart > stats.norm.ppf(0.975) * errors).any())
    case = {"what": f"A/A, looked at on {DAYS} days", "units": 2 * DAYS * daily}
    rate(report, case, "always-valid intervals", "false_alarm_rate", alarms, experiments)
    rate(report, case, "fixed intervals", "false_alarm_rate", fixed, experiments)
    if experiments < EXPERIMENTS:
        return
    word = "met" if alarms / experiments < 0.05 else "MISSED"
    report.note(f"Bar {word}: with {DAYS} looks always-valid intervals cry wolf in {alarms / experiments:.2%}, < 5 %.")


def coverage(report: Report, experiments: int) -> None:
    """A planted effect: how often each interval holds it."""
    exposures = 11.0
    truth = {name: CLICK_RATE * EFFECT * (exposures if name.startswith("mean") else 1) for name in MEASURED}
    held = dict.fromkeys(MEASURED, 0)
    for seed in track(range(experiments), "coverage", experiments, "experiments"):
        control, new = arms_of(np.random.default_rng([3, seed]), UNITS // 2, EFFECT)
        found = moments(control), moments(new)
        for name, measured in MEASURED.items():
            effect = difference("clicks", "new", *found, measured)
            held[name] += effect.low <= truth[name] <= effect.high
    for name, count in held.items():
        rate(report, {"what": "planted effect", "units": UNITS}, name, "coverage_rate", count, experiments)
    if experiments < COVERED:
        return
    shares = [count / experiments for count in held.values()]
    word = "met" if all(0.93 <= share <= 0.97 for share in shares) else "MISSED"
    report.note(
        f"Bar {word}: 95 % intervals hold the planted effect in {min(shares):.1%} to {max(shares):.1%}, 93 to 97 %."
    )


def narrowing(report: Report, units: int) -> None:
    """CUPED against theory, at one large size."""
    control, new = arms_of(np.random.default_rng(4), units // 2, 0.0)
    found = moments(control), moments(new)
    plain, adjusted = (difference("clicks", "new", *found, MEASURED[name]) for name in ("mean", "mean, CUPED"))
    rho = np.corrcoef(np.concatenate([control, new], axis=1)[[0, 2]])[0, 1]
    case = {"what": "CUPED", "units": units}
    report.add(case, "measured", "interval_ratio", adjusted.standard_error / plain.standard_error)
    report.add(case, "theory, sqrt(1 - rho^2)", "interval_ratio", math.sqrt(1 - rho**2))


def broken_ratio(report: Report, experiments: int) -> None:
    """51:49 among 100,000 units: how often the gate shuts."""
    shares, caught = {"control": 0.5, "new": 0.5}, 0
    for split in np.random.default_rng(5).binomial(SAMPLE_RATIO_UNITS, 0.51, experiments).tolist():
        counts = {"control": split, "new": SAMPLE_RATIO_UNITS - split}
        caught += sample_ratio(counts, shares, "control") < SAMPLE_RATIO_ALPHA
    rate(report, {"what": "51:49", "units": SAMPLE_RATIO_UNITS}, "sample ratio", "caught_rate", caught, experiments)


def write_log(folder: Path, rows: int, users: int) -> None:
    """Write a log of `rows` lists over 14 days, a tenth of them clicked; every fiftieth click twice."""
    generator = np.random.default_rng(6)
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - first)
        user = generator.integers(0, users, count)
        names = pl.Series(user).cast(pl.String).rename("user").to_frame().select("u" + pl.col("user")).to_series()
        new = draws("bench", b"arm", names) < 0.5
        token = pl.Series(np.arange(first, first + count)).cast(pl.String).str.zfill(22).to_arrow().cast(pa.string())
        shown_us = START_US + np.sort(generator.integers(0, DAYS * 86_400_000_000, count))
        _write_exposures(folder / "exposures" / f"{number:04}.parquet", generator, names, new, token, shown_us)
        clicked = np.flatnonzero(generator.random(count) < CLICK_RATE * (1 + 0.1 * new))
        again = np.concatenate([clicked, clicked[::50]])
        columns = {
            "event_id": pa.array([f"e{first + place}" for place in again.tolist()]),
            "token": token.take(pa.array(again)),
            "kind": pa.array(["click"] * len(again)),
            "item_id": pa.nulls(len(again), pa.string()),
            "value": pa.nulls(len(again), pa.float64()),
            "timestamp": pa.array(shown_us[again] + 60_000_000).cast(EVENTS.field("timestamp").type),
        }
        (folder / "events").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns, EVENTS), folder / "events" / f"{number:04}.parquet")


def _write_exposures(
    path: Path, generator: np.random.Generator, names: pl.Series, new: np.ndarray, token: pa.Array, shown_us: np.ndarray
) -> None:
    count = len(names)
    offsets = pa.array(np.arange(count + 1) * K, pa.int32())
    items = pl.Series(generator.integers(0, ITEMS, count * K)).cast(pl.String).to_arrow().cast(pa.string())
    assignment = EXPOSURES.field("assignments").type
    one = pa.StructArray.from_arrays(
        [
            pa.array(["bench"] * count),
            pa.array(np.where(new, "new", "control")),
            pa.array(["user"] * count),
            pa.array(np.zeros(count, bool)),
        ],
        fields=list(assignment.value_type),
    )
    columns = {name: pa.nulls(count, EXPOSURES.field(name).type) for name in EXPOSURES.names} | {
        "timestamp": pa.array(shown_us).cast(EXPOSURES.field("timestamp").type),
        "request_id": token,
        "token": token,
        "user_id": names.to_arrow().cast(pa.string()),
        "assignments": pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), one, type=assignment),
        "release": pa.array(["r"] * count),
        "item_ids": pa.ListArray.from_arrays(offsets, items),
        "positions": pa.ListArray.from_arrays(offsets, pa.array(np.tile(np.arange(K, dtype=np.int32), count))),
        "scores": pa.ListArray.from_arrays(offsets, pa.array(generator.random(count * K, np.float32))),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, EXPOSURES), path)


def cost(report: Report, sizes: tuple[int, ...], users: int) -> None:
    """Peak memory and time of `recsys experiment analyze` over the number of rows."""
    peaks = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_log(folder, rows, users)
            (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
            peak_bytes, seconds = _analysed(folder)
        case = {"what": "log", "users": users, "items a list": K}
        report.add(case, f"{rows:,} lists", "peak_rss_bytes", peak_bytes)
        report.add(case, f"{rows:,} lists", "seconds", seconds)
        print(f"{rows:,} lists: {peak_bytes / 1e9:.2f} GB, {seconds:.0f} s", flush=True)
        peaks.append(peak_bytes)
    slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
    report.note(
        f"From {sizes[0]:,} to {sizes[-1]:,} lists of {users:,} users the peak grows by {slope:.0f} bytes a list: "
        f"at that rate 100 million take {(peaks[-1] + slope * (1e8 - sizes[-1])) / 1e9:.1f} GB."
    )


def _analysed(folder: Path) -> tuple[int, float]:
    words = ["experiment", "analyze", folder, "--plan", folder / "plan.toml", "--json"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "recsys.cli", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"recsys experiment analyze ended with code {process.returncode}")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few dozen experiments, logs of some ten thousand rows.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Try the analysis of experiments; write `<results>/experiment.json` and `experiment.md`."""
    versions = ("tea-tasting", "numpy", "scipy", "polars", "pyarrow")
    report = Report("experiment-quick" if quick else "experiment", versions)
    experiments = QUICK_EXPERIMENTS if quick else EXPERIMENTS
    cost(report, *((QUICK_SIZES, QUICK_USERS) if quick else (SIZES, USERS)))
    narrowing(report, 20_000 if quick else 400_000)
    broken_ratio(report, experiments)
    peeking(report, experiments)
    coverage(report, QUICK_COVERED if quick else COVERED)
    false_alarms(report, experiments)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
