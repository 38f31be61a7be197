"""Read the metrics of a running server, and what happened between two readings."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from twintower.errors import SettingError, UnavailableError, describe

Labels = frozenset[tuple[str, str]]
READ_S = 5.0


@dataclass(frozen=True)
class Reading:
    """What a server's `/metrics` said at one moment.

    Attributes:
        at_s: when, in seconds of a clock that only goes forward.
        values: by sample name and labels.
    """

    at_s: float
    values: dict[str, dict[Labels, float]]

    def total(self, sample: str, /, **labels: str) -> float:
        """Return the sum of a sample over all that have these labels; 0 where there are none."""
        return sum(value for has, value in self.values.get(sample, {}).items() if labels.items() <= dict(has).items())

    def labels(self, sample: str, name: str) -> list[str]:
        """Return the values of a label, sorted."""
        return sorted({dict(has).get(name, "") for has in self.values.get(sample, {})})


def read(address: str) -> Reading:
    """Return what the metrics say now.

    Args:
        address: host:port of the metrics, or a whole URL.

    Raises:
        SettingError: nothing that is named so can be asked, or what answers are no metrics of a server.
        UnavailableError: nobody answers.
    """
    url = address if "://" in address else f"http://{address}/metrics"
    advice = "Name where the metrics of a server listen: `telemetry.metrics_port`, in its log as `metrics`."
    try:
        with urllib.request.urlopen(url, timeout=READ_S) as response:
            text = response.read().decode()
        values: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name][frozenset(sample.labels.items())] = sample.value
    except urllib.error.HTTPError as error:
        raise SettingError(describe("ADDRESS", address, f"metrics, not HTTP status {error.code}", advice)) from None
    except OSError as error:
        raise UnavailableError(f"{address}: nobody answers ({getattr(error, 'reason', error)}). {advice}") from None
    except (ValueError, http.client.HTTPException):
        raise SettingError(describe("ADDRESS", address, "the address of a server's metrics", advice)) from None
    if "recsys_ready" not in values:
        raise SettingError(describe("ADDRESS", address, "the metrics of a server of this project", advice))
    return Reading(time.monotonic(), dict(values))


@dataclass(frozen=True)
class Change:
    """What happened between two readings of one server.

    Attributes:
        before: the earlier one.
        after: the later one.
    """

    before: Reading
    after: Reading

    def count(self, sample: str, /, **labels: str) -> float:
        """Return how much a sample grew; where it shrank the server began anew, and all of it counts."""
        after = self.after.total(sample, **labels)
        grown = after - self.before.total(sample, **labels)
        return after if grown < 0 else grown

    def per_s(self, sample: str, /, **labels: str) -> float:
        """Return how much a sample grew a second."""
        return self.count(sample, **labels) / max(self.after.at_s - self.before.at_s, 1e-9)

    def mean(self, histogram: str, /, **labels: str) -> float:
        """Return the mean of what a histogram observed; NaN where it observed nothing."""
        count = self.count(f"{histogram}_count", **labels)
        return self.count(f"{histogram}_sum", **labels) / count if count else math.nan

    def quantile(self, histogram: str, rate: float, /, **labels: str) -> float:
        """Return a quantile of what a histogram observed, interpolated in its bucket; NaN where it observed nothing.

        Args:
            histogram: its name.
            rate: 0..1; 0.5 is the median.
            labels: which of its samples.
        """
        counts = {
            float(bound): self.count(f"{histogram}_bucket", le=bound, **labels)
            for bound in self.after.labels(f"{histogram}_bucket", "le")
        }
        rank = rate * counts.get(math.inf, 0.0)
        if not rank:
            return math.nan
        lower, below = 0.0, 0.0
        for bound in sorted(counts):
            if counts[bound] >= rank:
                # What lies above the last bound is said to lie at it, as Prometheus does.
                share = (rank - below) / (counts[bound] - below)
                return lower if math.isinf(bound) else lower + (bound - lower) * share
            lower, below = bound, counts[bound]
        return lower
