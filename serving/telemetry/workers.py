"""Memory, time and open files of all worker processes of one server together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector


def registry_of(folder: Path) -> CollectorRegistry:
    """Return what the worker processes that share a folder have put together there.

    Args:
        folder: of prometheus_client's multiprocess mode, existing.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    registry.register(WorkersCollector(folder))
    return registry


class WorkersCollector(Collector):
    """What `ProcessCollector` says of one process, summed over all that share a folder; the start is the earliest one.

    Resident memory that the workers share (a mapped release) counts once for each of them.

    Args:
        folder: of prometheus_client's multiprocess mode, whose files end in the process ids.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the processes that live."""
        pids = {file.stem.rpartition("_")[2] for file in self._folder.glob("*.db")}
        summed: dict[str, Metric] = {}
        for pid in sorted(pids):
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():
                known = summed.setdefault(metric.name, metric)
                if known is not metric:
                    put_together = min if metric.name == "process_start_time_seconds" else sum
                    values = [known.samples[0].value, metric.samples[0].value]
                    known.samples[0] = known.samples[0]._replace(value=put_together(values))
        return summed.values()
