"""One training of an ablation, kept on disk under a name that follows from its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recsys import config, progress
from recsys.config import Run
from recsys.data.prepare import Prepared, parts_to_judge, prepare, refitted, training_version, version
from recsys.errors import DataError, InterruptedRun
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.recommenders import VectorRecommender
from recsys.files import save_array, storage, write_atomically
from recsys.metrics.ranking import parse
from recsys.stack import tf
from recsys.types import Int32, Int64, RowSets

CELLS_PER_WORKER = 24
"""Cells after which workers are replaced: TensorFlow keeps some memory of every model that it has met."""
DONE = "done.json"
RANKED = "item_rows.npy"
UNTRAINED = ("ablation", "index", "name", "reformulation")
"""Sections of a run that have no say in a cell's training and rankings."""
GRACE_S = 60.0
"""Time in which a worker that is told to end may finish its step and write a checkpoint."""


@dataclass(frozen=True)
class Case:
    """What all rows of one comparison share.

    Attributes:
        training_rate: share (0..1) of the training interactions that is kept.
        logq: the main task's correction, as in `objective.logq`; empty where the objective has none.
    """

    training_rate: float
    logq: str


@dataclass(frozen=True)
class Cell:
    """One training and its rankings.

    Attributes:
        case: the comparison.
        subject: the row.
        chosen: values of the searched settings, by path.
        seed: of the training; the split has the run's own.
        part: the cases ranked: `validation` or `test`.
        tables: the whole run.
    """

    case: Case
    subject: str
    chosen: Mapping[str, Any]
    seed: int
    part: str
    tables: Mapping[str, Any] = field(repr=False)

    @cached_property
    def run(self) -> Run:
        """The run that is trained, with the seed of its split."""
        return config.from_tables(self.tables)

    @cached_property
    def data_version(self) -> str:
        """The version of the data that it reads, as they were when it was first asked: that looks at all files."""
        return version(self.run)

    @cached_property
    def training_version(self) -> str:
        """The version of all that its training reads, likewise."""
        return training_version(self.run)

    @property
    def depth(self) -> int:
        """Places that are ranked for each case: as many as any metric asks for."""
        plan = self.run.ablation
        return max(parse(name).cutoff for name in (*plan.metrics, plan.tuning_metric))


class Cells:
    """All cells of an ablation, done and to do; as a context, it ends its worker processes.

    Args:
        home: the folder that holds them.
        jobs: worker processes; they start when they are needed and stay for the next round.
    """

    def __init__(self, home: Path, jobs: int) -> None:
        self._home, self._jobs = home, jobs
        self._pool: ProcessPoolExecutor | None = None
        self._left = 0

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_workers()

    def prepared(self, run: Run) -> Prepared:
        """Return the data of a run; runs that read the same share it."""
        return prepare(run, self._data_folder(version(run)))

    def train(self, cells: Sequence[Cell], description: str) -> float:
        """Train the cells that are not done yet, in worker processes; return the seconds that all of them took.

        Raises:
            DataError: a worker was killed, or the source's files changed.
        """
        folders = {self.folder(cell): cell for cell in cells}
        waiting = {folder: cell for folder, cell in folders.items() if _seconds(folder) is None}
        for run in {cell.data_version: cell.run for cell in waiting.values()}.values():
            self.prepared(run)
        with progress.task(description, len(folders), "trainings") as running:
            running.start_at(len(folders) - len(waiting))
            self._in_workers(list(waiting.items()), running)
        return sum(filter(None, map(_seconds, folders)))

    def ranked(self, cell: Cell) -> Int32:
        """Return what a cell ranked for each case that has a reachable item, `[cases, depth]`."""
        return np.load(self.folder(cell) / RANKED, mmap_mode="r")

    def folder(self, cell: Cell) -> Path:
        """Return where a cell's files are: a name for people, and a digest of all that decides them."""
        deciding = {name: table for name, table in cell.tables.items() if name not in UNTRAINED}
        settled = json.dumps([deciding, cell.seed, cell.part, cell.depth, cell.training_version], sort_keys=True)
        digest = hashlib.sha256(settled.encode()).hexdigest()[:16]
        case = "-".join(filter(None, (f"{cell.case.training_rate:g}", cell.case.logq)))
        return self._home / "cells" / case / f"{cell.subject}-{cell.part}-{digest}"

    def _data_folder(self, data_version: str) -> Path:
        return self._home / "prepared" / data_version[:16]

    def _in_workers(self, waiting: Sequence[tuple[Path, Cell]], running: progress.Task) -> None:
        while waiting:
            pool = self._workers()
            at_once, waiting = waiting[: self._left], waiting[self._left :]
            self._left -= len(at_once)
            try:
                with _deaf_children():
                    jobs = [
                        pool.submit(_work, cell, folder, self._data_folder(cell.data_version), cell.data_version)
                        for folder, cell in at_once
                    ]
                for job in as_completed(jobs):
                    running.advance(1, job.result())
            except BrokenProcessPool:
                raise DataError(
                    f"{self._home}: a worker process was killed, perhaps for want of memory. Finished cells are kept: "
                    "run the same command again, with fewer --jobs."
                ) from None

    def _workers(self) -> ProcessPoolExecutor:
        """Return the pool, or a new one where the workers have done their share."""
        # A pool's own `max_tasks_per_child` stops for ever once each worker has done its share (CPython 115634).
        if self._left == 0:
            self._end_workers()
            threads = max(1, len(os.sched_getaffinity(0)) // self._jobs)
            context, started = multiprocessing.get_context("spawn"), (threads, os.getpid())
            self._pool = ProcessPoolExecutor(self._jobs, context, _start_worker, started)
            self._left = CELLS_PER_WORKER * self._jobs
        return self._pool

    def _end_workers(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            _end(multiprocessing.active_children())
            self._pool, self._left = None, 0


def asked(part: HeldOut) -> tuple[Int64, RowSets]:
    """Return the cases of a part that have a reachable item, and those items."""
    rows = np.flatnonzero(part.cases.reachable.sizes > 0)
    return rows, part.cases.reachable.take(rows)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Have processes that start within the block never see SIGINT: Ctrl-C reaches their parent, which ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _seconds(folder: Path) -> float | None:
    """Return how long a finished cell took; None where it is not finished, or a file of it is missing or damaged."""
    try:
        np.load(folder / RANKED, mmap_mode="r")
        return float(json.loads((folder / DONE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _start_worker(threads: int, parent: int) -> None:
    progress.hide()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _end(workers: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """End workers: they take SIGTERM as an interruption, and write a checkpoint of their cell first."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + GRACE_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _work(cell: Cell, folder: Path, data: Path, data_version: str) -> str:
    """Train one cell and write its rankings; return what progress says of it."""
    try:
        return _trained(cell, folder, data, data_version)
    except InterruptedRun:
        # Not back to the pool: it has handed out further cells, and a worker that ended may hold its lock.
        os._exit(1)


def _trained(cell: Cell, folder: Path, data: Path, data_version: str) -> str:
    if version(cell.run) != data_version:
        raise DataError("source: its files changed while the ablation ran. Run the same command to begin anew.")
    from recsys.training.loop import fit  # brings TensorFlow, which the parent does without

    tf.keras.backend.clear_session()
    run, prepared = cell.run, prepare(cell.run, data)
    if cell.part == "test":
        prepared = refitted(run, prepared, *parts_to_judge(run, prepared))
    part = held_out(run, prepared, cell.part, run.evaluation.max_cases)
    started = time.monotonic()
    with storage(folder):
        model = fit(dataclasses.replace(run, seed=cell.seed), prepared, folder / "training", None).model
    rows, _ = asked(part)
    recommender = VectorRecommender(model.encode_queries(part.codes), model.encode_items(), part.cases.excluded)
    with storage(folder):
        save_array(folder / RANKED, recommender.recommend(rows, cell.depth).item_rows)
    settled = {"subject": cell.subject, "chosen": dict(cell.chosen), "seed": cell.seed, "part": cell.part}
    seconds = time.monotonic() - started
    write_atomically(folder / DONE, json.dumps({**settled, "seconds": seconds}, indent=1) + "\n")
    for checkpoints in ("checkpoints", "best"):
        shutil.rmtree(folder / "training" / checkpoints, ignore_errors=True)
    return f"{cell.subject} {seconds:.0f} s"
