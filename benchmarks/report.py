"""The one shape of all benchmark results: rows with intervals, written as JSON and as a Markdown table.

```python
report = Report("index", distributions=("scann", "faiss-cpu"))
report.add({"data": "glove", "target": 0.95}, "scann", "query_us", [41.0, 43.5, 42.2])
report.note("faiss HNSW was faster: 38 us.")
report.write(Path("benchmarks/results"))
```
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from recsys.evaluation.intervals import Interval, bootstrap_means

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One number of one subject in one case.

    Attributes:
        case: what all subjects of a comparison share, such as data set and target; plain values.
        subject: who was measured, such as a library.
        metric: what was measured, with its unit in the name (`query_us`, `index_bytes`) or an ir-measures name.
        value: median over the runs, or the value itself where it was given with an interval.
        low: lower end of the interval; equal to `value` for one run.
        high: upper end of the interval; NaN, which JSON holds as null, where there is none.
        runs: measurements behind the value.
    """

    case: Mapping[str, Any]
    subject: str
    metric: str
    value: float
    low: float
    high: float
    runs: int


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return median, low and high: an interval for the median that assumes no distribution.

    The interval runs from the r-th smallest to the r-th largest sample, r the largest number with
    `2 P( Binomial(n, 1/2) < r ) <= 1 - confidence`. Fewer than six samples cannot reach 95 %: their smallest and
    largest stand in, which cover the median with probability `1 - 2^(1 - n)`.

    Reference:
        David and Nagaraja 2003, Order Statistics, 3rd ed., Sec. 7.1.

    Args:
        samples: at least one number, from independent runs.
        confidence: level of the interval, 0..1.
    """
    ordered = sorted(samples)
    count = len(ordered)
    rank, below, term = 0, 0.0, 0.5**count
    while rank < count // 2 and 2 * (below + term) <= 1 - confidence:
        below += term
        term *= (count - rank) / (rank + 1)
        rank += 1
    edge = max(rank - 1, 0)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return middle, ordered[edge], ordered[count - 1 - edge]


@dataclass
class Report:
    """The results of one benchmark.

    Attributes:
        benchmark: its name, which names its files.
        distributions: the distributions whose versions matter.
        rows: what was measured, in order.
        notes: sentences that a reader of the table must know: losses, what was skipped and why.
    """

    benchmark: str
    distributions: Sequence[str] = ()
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: Mapping[str, Any], subject: str, metric: str, samples: float | Sequence[float]) -> None:
        """Add a number, or the median of several runs with its interval.

        Args:
            case: what all subjects of a comparison share, plain values.
            subject: who was measured.
            metric: what was measured, with its unit in the name.
            samples: one number for each independent run, or a single number.
        """
        values = [float(samples)] if isinstance(samples, (int, float)) else [float(value) for value in samples]
        self.rows.append(Row(dict(case), subject, metric, *median_interval(values), len(values)))

    def add_interval(
        self, case: Mapping[str, Any], subject: str, metric: str, value: float, low: float, high: float, runs: int
    ) -> None:
        """Add a number whose interval was computed elsewhere, such as by bootstrap over evaluation cases."""
        self.rows.append(Row(dict(case), subject, metric, float(value), float(low), float(high), runs))

    def add_means(self, case: Mapping[str, Any], subject: str, columns: Mapping[str, np.ndarray], runs: int) -> None:
        """Add the mean of each metric over evaluation cases, with a bootstrap interval over those cases.

        Args:
            case: what all subjects of a comparison share, plain values.
            subject: who was measured.
            columns: by metric, `[cases]`, all of the same cases.
            runs: trainings behind each value.
        """
        interval = over_cases(np.column_stack(list(columns.values())))
        for place, (metric, values) in enumerate(columns.items()):
            self.add_interval(case, subject, metric, values.mean(), interval.low[place], interval.high[place], runs)

    def note(self, sentence: str) -> None:
        """Add a sentence below the table."""
        self.notes.append(sentence)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write `<benchmark>.json` and `<benchmark>.md`, each replaced at once.

        Args:
            folder: is made where it does not exist.

        Returns:
            The Markdown file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.benchmark,
            "command": command(),
            "commit": commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(self.distributions),
            "rows": [_plain(row) for row in self.rows],
            "notes": self.notes,
        }
        _replace(folder / f"{self.benchmark}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        return _replace(folder / f"{self.benchmark}.md", self._markdown(content))

    def _markdown(self, content: Mapping[str, Any]) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
        lines = [
            f"# {self.benchmark}",
            "",
            f"`{content['command']}`, commit {content['commit']}, {content['date']}, {content['machine']}. {versions}.",
            "Medians over the runs if no note says otherwise, intervals in brackets. Ratios travel between machines, "
            "absolute times do not.",
        ]
        cases: dict[str, list[Row]] = {}
        for row in self.rows:
            cases.setdefault(", ".join(f"{name} = {value}" for name, value in row.case.items()), []).append(row)
        for case, rows in cases.items():
            metrics = list(dict.fromkeys(row.metric for row in rows))
            cells = {(row.subject, row.metric): _cell(row) for row in rows}
            lines += ["", f"## {case or 'all'}", "", f"| subject | {' | '.join(metrics)} |"]
            lines.append("|---|" + "---:|" * len(metrics))
            for subject in dict.fromkeys(row.subject for row in rows):
                found = [cells.get((subject, metric), "") for metric in metrics]
                lines.append(f"| {subject} | {' | '.join(found)} |")
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines) + "\n"


def over_cases(columns: np.ndarray) -> Interval:
    """Return the 95 % bootstrap interval of each column's mean, `[cases, columns]`, the same draws for every call."""
    return bootstrap_means(columns, confidence=0.95, resamples=1000, seed=0)


def command() -> str:
    """Return the command line that runs this process again, without the places of files on this machine."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name] if spec else [Path(sys.argv[0]).name]
    arguments = [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]
    return shlex.join(["python", *program, *arguments])


def commit() -> str:
    """Return the short commit of the working tree, `-dirty` where files differ from it, `unknown` outside of git."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return asked.stdout.strip()


def machine() -> str:
    """Return processor, usable cores and memory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory_bytes / 2**30:.0f} GiB"


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of installed distributions; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(row: Row) -> dict[str, Any]:
    """Return a row for JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in dataclasses.asdict(row).items()}


def _cell(row: Row) -> str:
    if row.low == row.value == row.high:
        return _number(row.value)
    return f"{_number(row.value)} [{_number(row.low)}, {_number(row.high)}]"


def _number(value: float) -> str:
    if value != value:
        return "no bound"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _replace(file: Path, text: str) -> Path:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)
    return file
