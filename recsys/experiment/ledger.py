"""The calibration ledger: what offline metrics promised and what came of it online, one line a finished comparison."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from recsys.errors import DataError, RefusedError
from recsys.files import storage, write_atomically
from twintower.errors import describe

VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """An online effect.

    Attributes:
        difference: arm minus control.
        low: lower bound of its interval.
        high: upper bound.
    """

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """One finished comparison of two arms.

    Attributes:
        experiment: its name.
        arm: the arm that was compared with the control.
        control: the control's name.
        ended: the day it ended, such as `2026-03-15`.
        offline: difference arm minus control of each offline metric, as measured before the experiment.
        online: effect on each online metric.
        version: of this form.
    """

    experiment: str
    arm: str
    control: str
    ended: str
    offline: dict[str, float] = field(default_factory=dict)
    online: dict[str, Outcome] = field(default_factory=dict)
    version: int = VERSION


@dataclass(frozen=True)
class Calibration:
    """How well an offline metric has predicted an online one.

    Attributes:
        offline: the offline metric.
        online: the online metric.
        comparisons: that have both.
        agreed: of those, how many have differences of the same sign; none at all agrees with nothing.
        agreement_rate: their share, 0..1.
        agreement_low: lower bound of Wilson's interval.
        agreement_high: upper bound.
        rank_correlation: Spearman's, -1..1; None below 3 comparisons and where one side never differs.
        correlation_low: lower bound; None below 4 comparisons.
        correlation_high: upper bound.
    """

    offline: str
    online: str
    comparisons: int
    agreed: int
    agreement_rate: float
    agreement_low: float
    agreement_high: float
    rank_correlation: float | None
    correlation_low: float | None
    correlation_high: float | None


def append(path: Path, entry: Entry) -> None:
    """Add a comparison: the whole line or nothing, one writer after another.

    Raises:
        RefusedError: the ledger has this arm of this experiment already.
        DataError: the ledger is damaged, or the entry holds a number that is not finite.
        StorageError: no room; the ledger stands as it was.
    """
    numbers = [*entry.offline.values(), *(value for one in entry.online.values() for value in dataclasses.astuple(one))]
    if not all(map(math.isfinite, numbers)):
        raise DataError(describe(f"{entry.experiment}/{entry.arm}", numbers, "finite differences and bounds"))
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries = read(path)
            if any((one.experiment, one.arm) == (entry.experiment, entry.arm) for one in entries):
                advice = "Entries are never replaced; give another experiment another name."
                where = f"{path}: {entry.experiment}/{entry.arm}"
                raise RefusedError(describe(where, "a second entry", "one", advice))
            lines = [json.dumps(dataclasses.asdict(one), allow_nan=False) for one in (*entries, entry)]
            write_atomically(path, "\n".join(lines) + "\n")


def read(path: Path) -> list[Entry]:
    """Return all entries, oldest first; a ledger that does not exist yet has none.

    Raises:
        DataError: a line is not an entry, or of a newer version.
    """
    if not path.is_file():
        return []
    return [_entry(f"{path}, line {number}", line) for number, line in enumerate(_lines(path), start=1)]


def calibrate(entries: Sequence[Entry], online: str, *, confidence: float = 0.95) -> list[Calibration]:
    """Return how well each offline metric has predicted one online metric, the best rank correlation first.

    Reference:
        Wilson 1927, JASA 22. The interval of Spearman's correlation r: Bonett and Wright 2000, Psychometrika 65: normal
        after Fisher's transformation, with variance `(1 + r^2 / 2) / (n - 3)`.

    Args:
        entries: from `read`.
        online: the online metric.
        confidence: level of the intervals, 0..1.
    """
    told = [entry for entry in entries if online in entry.online]
    metrics = sorted({metric for entry in told for metric in entry.offline})
    found = [_calibration(metric, online, told, confidence) for metric in metrics]
    return sorted(found, key=lambda one: 2.0 if one.rank_correlation is None else -one.rank_correlation)


def _calibration(metric: str, online: str, entries: Sequence[Entry], confidence: float) -> Calibration:
    pairs = [(one.offline[metric], one.online[online].difference) for one in entries if metric in one.offline]
    promised, came = np.array(pairs).T
    count = len(pairs)
    agreed = int((np.sign(promised) * np.sign(came) > 0).sum())
    wilson = stats.binomtest(agreed, count).proportion_ci(confidence, method="wilson")
    correlation, low, high = None, None, None
    if count >= 3 and np.ptp(promised) > 0 and np.ptp(came) > 0:
        correlation = float(stats.spearmanr(promised, came).statistic)
        if count >= 4:
            half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt((1 + correlation**2 / 2) / (count - 3))
            middle = math.atanh(min(max(correlation, -1 + 1e-12), 1 - 1e-12))
            low, high = math.tanh(middle - half), math.tanh(middle + half)
    rate, bounds = agreed / count, (float(wilson.low), float(wilson.high))
    return Calibration(metric, online, count, agreed, rate, *bounds, correlation, low, high)


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a ledger: {error}.") from None


def _entry(where: str, line: str) -> Entry:
    try:
        values = json.loads(line)
        version = values["version"]
        if version > VERSION:
            raise DataError(describe(f"{where}: version", version, f"at most {VERSION}", "A newer program wrote it."))
        online = {name: Outcome(**outcome) for name, outcome in values.pop("online").items()}
        return Entry(**values, online=online)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not an entry of the ledger: {error}. Mend or remove the line.") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process writes this ledger."""
    with open(path.with_name(f".{path.name}.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
