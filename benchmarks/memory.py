"""Memory of `recsys train` from reading to release, over the number of interactions: 20 million in under 4 GB.

Each size is one run of the command in a process of its own, one epoch over the `synthetic` source; the peak is what the
kernel reports for that process (resident set, the touched pages of memory-mapped files among it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import RESULTS, Report
from recsys import config
from recsys.cli import one_message
from recsys.config import Run

LIMIT_BYTES = 4e9
SIZES = (1_000_000, 5_000_000, 20_000_000)
QUICK_SIZES = (20_000, 60_000)
SUBJECT = "recsys train"
WORLD = {"users": 200_000, "items": 50_000}
QUICK_WORLD = {"users": 2_000, "items": 500}


def run_of(interactions: int, world: dict[str, int]) -> Run:
    """Return the run of one size: history, ids and features on both sides, logQ, all known positives masked."""
    return config.from_tables(
        {
            "name": "bench-memory",
            "source": {"kind": "synthetic", "interactions": interactions, **world},
            "query": {
                "features": {
                    "user": {"kind": "id", "width": 16},
                    "segment": {"kind": "categorical", "width": 8},
                    "recent": {
                        "kind": "history",
                        "length": 20,
                        "shared": True,
                        "pooling": "mean",
                        "dropout_rate": 0.0,
                    },
                }
            },
            "item": {
                "features": {
                    "item": {"kind": "id", "width": 32},
                    "category": {"kind": "categorical", "width": 8},
                    "price": {"kind": "numeric"},
                }
            },
            "tower": {"kind": "mlp", "hidden": [64], "dim": 32},
            "objective": {"kind": "sampled_softmax"},
            "training": {
                "epochs": 1,
                "batch_size": 1024,
                "optimizer": "adagrad",
                "learning_rate": 0.1,
                "validation_cases": 1000,
            },
            "evaluation": {"exclude_seen": False, "max_cases": 1000, "baselines": ["popularity"], "resamples": 100},
            "index": {"kind": "brute_force"},
        }
    )


def peak_of(run: Run, folder: Path) -> tuple[int, float]:
    """Run `recsys train` once.

    Args:
        run: the run.
        folder: for its files.

    Returns:
        Peak resident set in bytes; wall time in seconds.

    Raises:
        RuntimeError: the command failed.
    """
    (folder / "run.toml").write_text(config.dumps(run), encoding="utf-8")
    places = ["--work", folder / "work", "--releases", folder / "releases"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "recsys.cli", "train", folder / "run.toml", *places]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"recsys train ended with code {process.returncode}")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A few ten thousand interactions.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure the peak memory of training; write `<results>/memory.json` and `memory.md`."""
    report = Report("memory-quick" if quick else "memory", ("tensorflow", "numpy", "pyarrow", "scipy"))
    world, sizes = (QUICK_WORLD, QUICK_SIZES) if quick else (WORLD, SIZES)
    peaks = []
    for interactions in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            peak_bytes, seconds = peak_of(run_of(interactions, world), Path(scratch))
        case = {"data": "synthetic", **world}
        subject = f"{SUBJECT}, {interactions:,} interactions"
        report.add(case, subject, "peak_rss_bytes", peak_bytes)
        report.add(case, subject, "seconds", seconds)
        print(f"{subject}: {peak_bytes / 1e9:.2f} GB, {seconds:.0f} s", flush=True)
        peaks.append(peak_bytes)
    slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
    report.note(f"From the least to the most interactions the peak grows by {slope:.0f} bytes an interaction.")
    word = "met" if peaks[-1] < LIMIT_BYTES else "MISSED"
    report.note(f"Bar {word}: {sizes[-1]:,} interactions take {peaks[-1] / 1e9:.2f} GB, wanted less than 4 GB.")
    report.note(
        "One epoch with history, ids, logQ and masking of all known positives; evaluation of 1,000 cases over the full "
        "catalogue against popularity (item-kNN and ALS hold matrices of their own); exact index."
    )
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
