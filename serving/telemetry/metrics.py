"""Prometheus metrics of a server; no label holds anything that a caller chose."""

from __future__ import annotations

import os
import threading
from collections import Counter as Count
from collections.abc import Callable, Mapping
from pathlib import Path

from recsys.export.release import Release
from serving.telemetry.calls import Call

LATENCIES_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RECALLS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
FEEDBACK = (0, 1, 2, 5, 10, 20, 50, 100, 1000)
FINGERPRINT_DIGITS = 12
MAX_RELEASES = 16
"""Releases whose figures are kept: a server that swaps every night must not grow."""
LOOK_EVERY_S = 1.0


class Metrics:
    """The metrics of one server process. Safe for calls from several threads.

    A call costs one look into a dictionary and one observation; what has a level (calls in flight, queues) is looked at
    once a second.

    Args:
        folder: where the worker processes of one server put their figures together; None for a server of one process.
            To be chosen before the first metric of the process is made, and emptied before the first worker starts.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            ProcessCollector,
            disable_created_metrics,
        )

        disable_created_metrics()  # a second sample for every one, which says when it was first made

        own = CollectorRegistry()
        self.registry = own
        if folder is None:
            ProcessCollector(registry=own)
        else:
            from serving.telemetry.workers import registry_of

            self.registry = registry_of(folder)
        self._shared = folder is not None
        self._durations_s = Histogram(
            "recsys_rpc_duration_seconds",
            "Time from the first look at a call to its end.",
            ("rpc", "release", "plan", "code"),
            buckets=LATENCIES_S,
            registry=own,
        )
        self._errors = Counter(
            "recsys_rpc_errors",
            "Calls that failed, by the reason of their ErrorInfo; also those that were refused before any work.",
            ("rpc", "reason"),
            registry=own,
        )
        self._in_flight = Gauge(
            "recsys_rpcs_in_flight",
            "Calls that have begun and not ended.",
            ("rpc",),
            multiprocess_mode="livesum",
            registry=own,
        )
        self._queued = Gauge(
            "recsys_queue_depth_calls",
            "Calls that wait for a thread or for their turn.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self._batches = Histogram(
            "recsys_batch_queries",
            "Queries searched together.",
            buckets=BATCHES,
            registry=own,
        )
        self._recall = Histogram(
            "recsys_live_recall",
            "Share (0..1) of the exact nearest items that a sampled answer has.",
            ("release",),
            buckets=RECALLS,
            registry=own,
        )
        self._recall_dropped = Counter(
            "recsys_live_recall_dropped",
            "Samples that were not searched again, because the queue was full or the search failed.",
            registry=own,
        )
        self._feedback = Histogram(
            "recsys_feedback_items",
            "Items of feedback that could count, for each moved query.",
            buckets=FEEDBACK,
            registry=own,
        )
        self._fallbacks = Counter(
            "recsys_guard_fallbacks",
            "Moved queries whose guard kept the original.",
            ("release",),
            registry=own,
        )
        self._arms = Counter(
            "recsys_experiment_requests",
            "Requests that were in an experiment, by the arm that answered.",
            ("experiment", "arm"),
            registry=own,
        )
        self._not_treated = Counter(
            "recsys_experiment_requests_not_treated",
            "Requests that were answered as outside of experiments, because no release could serve their arms.",
            registry=own,
        )
        self._plans = Counter(
            "recsys_experiment_plans",
            "Experiment files that were read: accepted or refused.",
            ("result",),
            registry=own,
        )
        self._log_dropped = Counter(
            "recsys_log_lines_dropped",
            "Log lines that were not written, because the reader of the log is too slow or gone.",
            registry=own,
        )
        self._log_rows = Counter(
            "recsys_log_rows",
            "Rows for the log: exposures written or dropped; events recorded, known already, or rejected for a reason.",
            ("log", "outcome"),
            registry=own,
        )
        self._ready = Gauge(
            "recsys_ready",
            "1 where a service answers, else 0.",
            ("service",),
            multiprocess_mode="livemin",
            registry=own,
        )
        self._release = Gauge(
            "recsys_release_info",
            "1 for a release that is loaded, 0 for one that was.",
            ("release", "name", "index"),
            multiprocess_mode="livemax",
            registry=own,
        )
        self._load_s = Gauge(
            "recsys_release_load_seconds",
            "Time that the release took to check, load and warm.",
            ("release",),
            multiprocess_mode="max",
            registry=own,
        )
        self._items = Gauge(
            "recsys_release_items",
            "Items in the release's catalog.",
            ("release",),
            multiprocess_mode="max",
            registry=own,
        )
        self._certified = Gauge(
            "recsys_release_certified_recall",
            "Lower confidence bound (0..1) of the recall that the release's index was certified with.",
            ("release",),
            multiprocess_mode="max",
            registry=own,
        )
        self._of_release = (
            self._durations_s, self._recall, self._fallbacks, self._load_s, self._items, self._certified,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._observers: dict[tuple[str, str, str, str], Callable[[float], None]] = {}
        self._releases: list[str] = []
        self._running: set[Call] = set()
        self._queue: Callable[[], int] = lambda: 0
        self._drops: Callable[[], int] = lambda: 0
        self._drops_seen = 0
        self._rows: Callable[[], Mapping[tuple[str, str], int]] = dict
        self._rows_seen: Mapping[tuple[str, str], int] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._look, name="metrics", daemon=True).start()

    def observe(self, call: Call) -> None:
        """Count a call that has ended."""
        release = call.release.fingerprint if call.release is not None else ""
        key = (call.method, release, call.plan, call.code)
        (self._observers.get(key) or self._observer(key))(call.duration_s)
        if call.reason:
            self._errors.labels(call.method.rpartition("/")[2], call.reason).inc()
        if call.query_count:
            self._batches.observe(call.query_count)
        for move in call.moves:
            self._feedback.observe(move.feedback_count)
            if move.fell_back:
                self._fallbacks.labels(release[:FINGERPRINT_DIGITS]).inc()
        for assignment in call.assignments:
            self._arms.labels(assignment.experiment, assignment.arm).inc()
        if call.not_treated:
            self._not_treated.inc()

    def watch(
        self,
        *,
        running: set[Call] | None = None,
        queue: Callable[[], int] | None = None,
        log_drops: Callable[[], int] | None = None,
        rows: Callable[[], Mapping[tuple[str, str], int]] | None = None,
    ) -> None:
        """Say what is looked at once a second.

        Args:
            running: holds the calls being worked on.
            queue: returns how many calls wait.
            log_drops: returns how many log lines were dropped so far.
            rows: returns how many rows for the log of exposures and events had which outcome so far.
        """
        self._running = self._running if running is None else running
        self._queue = queue or self._queue
        self._drops = log_drops or self._drops
        self._rows = rows or self._rows

    def together(self, count: int) -> None:
        """Count queries of several calls that were searched together."""
        self._batches.observe(count)

    def loaded(self, release: Release, load_s: float) -> None:
        """Say that a release is loaded, and how many seconds that took."""
        label, facts = release.fingerprint[:FINGERPRINT_DIGITS], release.facts
        with self._lock:
            self._room_for(label)
        self._release.labels(label, release.name, facts.index).set(1)
        self._load_s.labels(label).set(load_s)
        self._items.labels(label).set(facts.item_count)
        self._certified.labels(label).set(facts.index_recall)

    def retired(self, release: Release) -> None:
        """Say that a release is not loaded any more."""
        self._release.labels(release.fingerprint[:FINGERPRINT_DIGITS], release.name, release.facts.index).set(0)

    def ready(self, service: str, is_ready: bool) -> None:
        """Say whether a service answers."""
        self._ready.labels(service).set(is_ready)

    def recalled(self, release: Release, recall: float) -> None:
        """Count what share (0..1) of the exact nearest items an answer had."""
        self._recall.labels(release.fingerprint[:FINGERPRINT_DIGITS]).observe(recall)

    def recall_dropped(self) -> None:
        """Count a sample that was not searched again."""
        self._recall_dropped.inc()

    def plan_read(self, accepted: bool) -> None:
        """Count an experiment file."""
        self._plans.labels("accepted" if accepted else "refused").inc()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _observer(self, key: tuple[str, str, str, str]) -> Callable[[float], None]:
        method, fingerprint, plan, code = key
        label = fingerprint[:FINGERPRINT_DIGITS]
        with self._lock:
            if label:
                self._room_for(label)
            rpc = method.rpartition("/")[2]
            self._observers[key] = self._durations_s.labels(rpc, label, plan, code).observe
            return self._observers[key]

    def _room_for(self, label: str) -> None:
        """Forget the release that was first seen longest ago where this one is one too many."""
        if label in self._releases:
            return
        self._releases.append(label)
        if len(self._releases) > MAX_RELEASES and not self._shared:  # files that several processes share only grow
            oldest = self._releases.pop(0)
            self._observers = {key: each for key, each in self._observers.items() if not key[1].startswith(oldest)}
            for metric in (*self._of_release, self._release):
                metric.remove_by_labels({"release": oldest})

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            in_flight = Count(call.method.rpartition("/")[2] for call in self._running.copy())
            for rpc in in_flight.keys() | self._rpcs:
                self._in_flight.labels(rpc).set(in_flight[rpc])
            self._queued.set(self._queue())
            dropped = self._drops()
            self._log_dropped.inc(dropped - self._drops_seen)
            self._drops_seen = dropped
            rows = self._rows()
            for key, count in rows.items():
                self._log_rows.labels(*key).inc(count - self._rows_seen.get(key, 0))
            self._rows_seen = rows

    @property
    def _rpcs(self) -> set[str]:
        return {key[0].rpartition("/")[2] for key in list(self._observers)}
