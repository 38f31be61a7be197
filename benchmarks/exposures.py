"""What the log of exposures costs: NearestItems with and without it, and how fast rows are written and compacted.

Two servers, of which one logs, take turns on one core; the load generator has another. Every round asks both, the order
turned round each time, so that what slows the machine down slows both.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks import load
from benchmarks.cores import on_cores
from benchmarks.report import RESULTS, Report, median_interval
from benchmarks.serving import RECALLS, START_S, WORK, Cores
from benchmarks.serving_world import SERVICE, World, nearest, release_at
from recsys import progress
from recsys.cli import one_message
from recsys.experiment import compaction
from recsys.experiment.assignment import Assignment
from recsys.experiment.log import LOGS, open_log
from recsys.export.release import open_release
from serving.exposures.exposure import Exposure
from serving.exposures.log import Log
from serving.logs import make_logger
from serving.process import Running, running
from serving.settings import LogSettings
from twintower.v1 import recommendation_service_pb2 as pb

K, CALLERS = 10, 32
BAR = 0.05
"""Share of the throughput that the log may take."""
WITHOUT, WITH = "without a log", "with a log"
ROWS, QUICK_ROWS = 300_000, 5_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def add_throughput(report: Report, world: World, rounds: int, block_s: float) -> None:
    """Measure both servers in turns."""
    (first, *_) = nearest(world.queries["vector"], K)
    request = pb.NearestItemsRequest.FromString(first)
    request.unit.user_id, request.unit.session_id = "user 12345", "session 1234567890"
    messages, cores = [request.SerializeToString()], Cores.split(1)
    rates: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    cpu_us: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    with ExitStack() as stack:
        stack.enter_context(on_cores(cores.generator))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for subject, settings in ((WITHOUT, []), (WITH, [f"log.folder={folder / 'log'}"])):
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with on_cores(cores.server):
                started = running(world.release.folder, scratch, start_s=START_S, settings=settings)
                servers[subject] = stack.enter_context(started)
        for done in progress.track(range(rounds), "throughput", rounds, "rounds"):
            for subject in (WITHOUT, WITH)[:: 1 if done % 2 else -1]:
                rate, spent_us = _block(servers[subject], messages, block_s)
                rates[subject].append(rate)
                cpu_us[subject].append(spent_us)
        time.sleep(2 * LogSettings().flush_s)
        log = open_log(folder / "log")
    case = {"part": "NearestItems by vector", "items": len(world.item_vectors), "k": K, "callers": CALLERS}
    for subject in rates:
        report.add(case, subject, "calls_per_s", rates[subject])
        report.add(case, subject, "cpu_us_per_call", cpu_us[subject])
    ratios = [1 - much / little for much, little in zip(rates[WITH], rates[WITHOUT], strict=True)]
    more_us = [much - little for much, little in zip(cpu_us[WITH], cpu_us[WITHOUT], strict=True)]
    report.add(case, "the log", "throughput_lost_rate", ratios)
    report.add(case, "the log", "cpu_us_per_call", more_us)
    report.add(case, "the log", "rows", log.exposure_rows)
    report.add(case, "the log", "dropped", log.dropped_exposures)
    lost, low, high = median_interval(ratios)
    met = lost < BAR and log.dropped_exposures == 0
    report.note(
        f"Bar {'met' if met else 'MISSED'}: the log takes {lost:.1%} [{low:.1%}, {high:.1%}] of the throughput, less "
        f"than {BAR:.0%} wanted; {log.dropped_exposures:,} lists were dropped, {log.exposure_rows:,} are in it."
    )


def _block(server: Running, messages: Sequence[bytes], block_s: float) -> tuple[float, float]:
    """Return calls a second, and microseconds of processor that the server took for each."""
    before_s = _cpu_s(server.pid)
    rate = load.calls_per_s(server.address, f"{SERVICE}NearestItems", messages, callers=CALLERS, seconds=block_s)
    calls = rate * block_s * (1 + load.WARM_UP_RATE)
    return rate, (_cpu_s(server.pid) - before_s) / calls * 1e6


def _cpu_s(pid: int) -> float:
    """Return seconds of processor, of user and system, that a process has taken."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_S


def add_writing(report: Report, rows: int, repeats: int) -> None:
    """Measure taking, writing and compacting rows in this process."""
    taken_us, written, compacted, sizes = [], [], [], {}
    for _ in progress.track(range(repeats), "writing", repeats, "repeats"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            log = Log(LogSettings(folder=folder, flush_s=60, max_waiting=rows), make_logger(io.BytesIO()))
            exposures = _exposures(rows)
            started = time.perf_counter()
            for exposure in exposures:
                log.exposures.record(exposure)
            taken_us.append((time.perf_counter() - started) / rows * 1e6)
            started = time.perf_counter()
            log.exposures.flush()
            written.append(rows / (time.perf_counter() - started))
            log.close()
            sizes["segment"] = _size_bytes(folder)
            started = time.perf_counter()
            compaction.compact(folder)
            compacted.append(rows / (time.perf_counter() - started))
            sizes["Parquet"] = _size_bytes(folder)
    case = {"part": "rows", "rows": rows, "items a list": K}
    report.add(case, "taken, by the thread that answers", "us_per_row", taken_us)
    report.add(case, "written", "rows_per_s", written)
    report.add(case, "compacted", "rows_per_s", compacted)
    for name, size in sizes.items():
        report.add(case, name, "bytes_per_row", size / rows)


def _exposures(rows: int) -> list[Exposure]:
    generator = np.random.default_rng(0)
    ids = [f"item {number}" for number in range(100_000)]
    assignments = tuple((Assignment("towers", arm, "user", False),) for arm in ("control", "new"))
    chosen = generator.integers(0, len(ids), (rows, K))
    scores = -np.sort(-generator.random((rows, K), np.float32))
    return [
        Exposure(
            f"{row:016x}", f"user {row % 10_007}", f"session {row // 5}", False, assignments[row % 2], "f" * 64, "",
            tuple(ids[place] for place in chosen[row]), scores[row],
        )
        for row in range(rows)
    ]  # fmt: skip


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for name in LOGS for path in (folder / name).glob("*"))


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tiny release, short blocks, few rows.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Blocks of each server; 21, or 2 with --quick.")] = None,
    block_s: Annotated[float | None, typer.Option(min=0.1, help="Seconds of a block; 3, or 0.3 with --quick.")] = None,
    release: Annotated[Path | None, typer.Option(help="Serve this release instead.")] = None,
    work: Annotated[Path, typer.Option(help="Where the releases are kept.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure the log; write `<results>/exposures.json` and `exposures.md`."""
    report = Report("exposures-quick" if quick else "exposures", ("grpcio", "pyarrow", "numpy"))
    world = World.open(open_release(release) if release else release_at(RECALLS[0], work, quick=quick))
    add_throughput(report, world, rounds or (2 if quick else 21), block_s or (0.3 if quick else 3.0))
    add_writing(report, QUICK_ROWS if quick else ROWS, repeats=2 if quick else 5)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
