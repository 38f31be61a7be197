"""All that one server tells of itself, opened and closed together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import grpc

from recsys.export.release import Release
from serving.logs import Logger
from serving.runtime.deadlines import Deadlines
from serving.settings import TelemetrySettings
from serving.telemetry.access_log import access_log
from serving.telemetry.calls import Call, Observer
from serving.telemetry.sampled import Sampled


class Observation:
    """Access log, and where they are switched on metrics, live recall and spans; what is off is not even imported.

    Args:
        settings: what is on.
        logger: gets a line a call.
        deadlines: end the windows in which lines are counted.

    Raises:
        SettingError: the address of the metrics is taken, or not one of this machine.

    Attributes:
        running: the calls being worked on.
        observers: are shown every call that has ended.
        sampled: limits the lines of refused calls.
        sampled_failures: limits the lines of what fails again and again while a disk is full: one in ten seconds.
        around: the block of a traced call; None where nothing is traced.
        metrics_address: host and port of `/metrics`; empty where there is none.
    """

    def __init__(self, settings: TelemetrySettings, logger: Logger, deadlines: Deadlines) -> None:
        self.running: set[Call] = set()
        self.sampled = Sampled(logger, deadlines)
        self.sampled_failures = Sampled(logger, deadlines, lines=1, window_s=10.0)
        self.observers: list[Observer] = [access_log(logger, settings.access_log_rate, self.sampled)]
        self.around: Callable[[str, grpc.ServicerContext], AbstractContextManager[None]] | None = None
        self.metrics_address = ""
        self._metrics: Any = None
        with ExitStack() as opened:
            if settings.metrics_port is not None or settings.metrics_folder is not None:
                self._measure(settings, opened)
            if settings.traces_endpoint:
                from serving.telemetry.tracing import Tracing

                tracing = Tracing(settings.traces_endpoint, settings.traces_rate, logger)
                opened.callback(tracing.close)
                self.around = tracing.around
            self._opened = opened.pop_all()

    def _measure(self, settings: TelemetrySettings, opened: ExitStack) -> None:
        from serving.telemetry.metrics import Metrics

        self._metrics = metrics = Metrics(settings.metrics_folder)
        opened.callback(metrics.close)
        metrics.watch(running=self.running)
        self.observers.append(metrics.observe)
        if settings.metrics_port is not None:
            from serving.telemetry.exposition import expose

            exposition = expose(metrics.registry, settings)
            opened.callback(exposition.close)
            self.metrics_address = exposition.address
        if settings.recall_rate:
            from serving.telemetry.shadow import ShadowSearch

            shadow = ShadowSearch(metrics, settings.recall_rate)
            opened.callback(shadow.close)
            self.observers.append(shadow.observe)

    def watch(self, **levels: Callable[[], Any]) -> None:
        """Say what is looked at once a second; see `Metrics.watch`."""
        if self._metrics is not None:
            self._metrics.watch(**levels)

    def together(self, count: int) -> None:
        """Count so many queries of several calls that were searched together."""
        if self._metrics is not None:
            self._metrics.together(count)

    def loaded(self, release: Release, load_s: float) -> None:
        """Say that a release is loaded, and how many seconds that took."""
        if self._metrics is not None:
            self._metrics.loaded(release, load_s)

    def retired(self, release: Release) -> None:
        """Say that a release is not loaded any more."""
        if self._metrics is not None:
            self._metrics.retired(release)

    def ready(self, service: str, is_ready: bool) -> None:
        """Say whether a service answers."""
        if self._metrics is not None:
            self._metrics.ready(service, is_ready)

    def plan_read(self, accepted: bool) -> None:
        """Count an experiment file that was read."""
        if self._metrics is not None:
            self._metrics.plan_read(accepted)

    def close(self) -> None:
        """End its threads and its port; spans that wait are sent."""
        self._opened.close()
