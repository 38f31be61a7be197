"""Ranked item rows in, numbers out: accuracy of each case, and what the whole set of rankings shows."""

from __future__ import annotations

from recsys.metrics.exposure import Exposure, measure_exposure, popularity_percentiles
from recsys.metrics.ranking import Metric, find_hits, measure, parse

__all__ = ["Exposure", "Metric", "find_hits", "measure", "measure_exposure", "parse", "popularity_percentiles"]
