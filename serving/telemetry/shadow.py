"""The recall of live answers: a few are searched again exactly, beside the calls."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from typing import NamedTuple

from recsys.retrieval import Answer, Retriever
from serving.telemetry.calls import Call
from serving.telemetry.metrics import Metrics
from twintower.types import Origin, Query

MAX_WAITING = 64
BUSY_RATE = 0.05
"""Largest share of one core's time that goes into searching again, 0..1."""
TOLERANCE = 1e-5
"""Scores that differ by less are equal, unitless: of items with equal vectors either may be in an answer."""


class Sample(NamedTuple):
    """One query with its answer."""

    retriever: Retriever
    query: Query
    k: int
    answer: Answer


class ShadowSearch:
    """A thread that measures the recall of sampled answers and gives the calls as little notice as it can.

    Args:
        metrics: get each recall, and count samples that find the queue full.
        rate: share of queries that are sampled, 0..1.
    """

    def __init__(self, metrics: Metrics, rate: float) -> None:
        self._metrics, self._rate = metrics, rate
        self._waiting: queue.Queue[Sample | None] = queue.Queue(MAX_WAITING)
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="shadow-search", daemon=True).start()

    def observe(self, call: Call) -> None:
        """Take a sample of a call, or not."""
        searched = call.searched
        if searched is None or random.random() >= self._rate * len(searched.queries):
            return
        place = random.randrange(len(searched.queries))
        if searched.answers[place].origin is Origin.POPULARITY:
            return
        sample = Sample(searched.retriever, searched.queries[place], searched.k, searched.answers[place])
        try:
            self._waiting.put_nowait(sample)
        except queue.Full:
            self._metrics.recall_dropped()

    def close(self) -> None:
        """Search no more."""
        self._ended.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)  # wakes the thread where it waits

    def _work(self) -> None:
        while (sample := self._waiting.get()) is not None and not self._ended.is_set():
            started = time.perf_counter()
            try:
                self._metrics.recalled(sample.retriever.release, recall(sample))
            except Exception:  # of whatever kind: a measurement must not end a server
                self._metrics.recall_dropped()
            took_s = time.perf_counter() - started
            del sample  # a release that is not served any more is let go
            self._ended.wait(took_s * (1 - BUSY_RATE) / BUSY_RATE)


def recall(sample: Sample) -> float:
    """Return the share of the exact nearest items that an answer has, 0..1; 1 where there are none."""
    (exact,) = sample.retriever.nearest([sample.query], sample.k, exact=True)
    if not len(exact.scores):
        return 1.0
    last = float(exact.scores[-1])
    return float((sample.answer.scores >= last - TOLERANCE * max(1.0, abs(last))).sum() / len(exact.scores))
