"""Reformulators side by side, depth by depth: numbers with paired intervals, tables and plots."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from recsys import plots
from recsys.data.mined import Mined
from recsys.errors import InstallationError
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.reformulation import Curve, curve
from recsys.files import write_atomically
from recsys.metrics.ranking import parse
from recsys.retrieval.reformulation import NamedReformulator
from recsys.types import Feedback, ItemRoles

CONFIDENCE, RESAMPLES = 0.95, 1000


@dataclass(frozen=True)
class Point:
    """One metric of one reformulator at one depth.

    Attributes:
        reformulator: its name.
        guarded: whether its guard was on.
        depth: items of feedback.
        metric: in ir-measures spelling.
        value: mean over cases, 0..1.
        low: lower bound of its bootstrap interval.
        high: upper bound.
        gain: mean difference to the original query.
        gain_low: lower bound of the paired interval of the gain.
        gain_high: upper bound.
        helped_rate: share of cases (0..1) with more of the metric than the original query.
        hurt_rate: share of cases with less.
        robustness_index: helped minus hurt, -1..1.
        worst_decile: mean gain of the tenth of the cases that is served worst.
        fallback_rate: share of cases where the guard kept the original query.
    """

    reformulator: str
    guarded: bool
    depth: int
    metric: str
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    helped_rate: float
    hurt_rate: float
    robustness_index: float
    worst_decile: float
    fallback_rate: float


@dataclass(frozen=True)
class ReformulationReport:
    """What an evaluation of reformulators found.

    Attributes:
        cases: how many.
        depths: numbers of items of feedback, ascending, 0 first.
        metrics: in ir-measures spelling.
        points: one a reformulator, guard, depth and metric.
        falling_rates: by reformulator and metric, share (0..1) of (case, k < k') pairs with less of the metric at k',
            guard off.
    """

    cases: int
    depths: tuple[int, ...]
    metrics: tuple[str, ...]
    points: tuple[Point, ...]
    falling_rates: Mapping[str, Mapping[str, float]]

    @property
    def reformulators(self) -> tuple[str, ...]:
        """The names, in the order in which they were judged."""
        return tuple(dict.fromkeys(point.reformulator for point in self.points))

    def find(self, reformulator: str, depth: int, metric: str, *, guarded: bool = False) -> Point:
        """Return one point."""
        asked = (reformulator, depth, metric, guarded)
        return next(p for p in self.points if (p.reformulator, p.depth, p.metric, p.guarded) == asked)

    def save(self, folder: Path) -> list[Path]:
        """Write `reformulation.json` and, where matplotlib is installed, a plot for each metric; return the files."""
        written = [folder / "reformulation.json"]
        write_atomically(written[0], json.dumps(asdict(self), indent=1) + "\n")
        with contextlib.suppress(InstallationError):
            written += [draw(self, metric, folder / f"reformulation-{metric}.png") for metric in self.metrics]
        return written


def judge(
    named: Sequence[NamedReformulator],
    mined: Mined,
    roles: ItemRoles,
    metrics: Sequence[str],
    depths: Sequence[int],
    *,
    seed: int,
    feedback: Feedback | None = None,
) -> ReformulationReport:
    """Measure reformulators on the same cases, each without and with its guard.

    Args:
        named: the reformulators.
        mined: the cases.
        roles: the vectors of the items.
        metrics: in ir-measures spelling.
        depths: numbers of items of feedback; 0 is added.
        seed: of the bootstrap.
        feedback: of the cases; None means pseudo feedback from the first results.
    """
    names = tuple(parse(name).name for name in metrics)
    points, falling = [], {}
    for one in named:
        free = curve(one, mined, roles, names, depths, feedback)
        falling[one.name] = {metric: free.falling_rate(metric) for metric in names}
        for guarded, found in ((False, free), (True, free.under(one.guard))):
            points.extend(_points(one.name, guarded, found, seed))
    return ReformulationReport(len(mined), free.depths, names, tuple(points), falling)


def render(report: ReformulationReport, console: Console) -> None:
    """Print one table a metric: value, gain with its interval, whom it hurts."""
    for metric in report.metrics:
        table = Table(
            title=f"{metric}, {report.cases:,} cases; original query "
            f"{report.find(report.reformulators[0], 0, metric).value:.4f}; gain with its paired 95 % interval",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        # On a narrow terminal names are broken, numbers are not.
        table.add_column("reformulator", overflow="fold")
        for name in ("depth", "value", "gain", "interval", "helped", "hurt", "guarded", "kept"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in report.reformulators:
            for depth in report.depths[1:]:
                free = report.find(name, depth, metric)
                under = report.find(name, depth, metric, guarded=True)
                table.add_row(
                    name if depth == report.depths[1] else "",
                    str(depth),
                    f"{free.value:.4f}",
                    f"{free.gain:+.4f}" + ("*" if free.gain_low > 0 or free.gain_high < 0 else " "),
                    f"[{free.gain_low:+.4f} {free.gain_high:+.4f}]",
                    f"{free.helped_rate:.0%}",
                    f"{free.hurt_rate:.0%}",
                    f"{under.value:.4f}",
                    f"{under.fallback_rate:.0%}",
                    end_section=depth == report.depths[-1],
                )
        console.print(table, "")
    console.print(
        "guarded: with the guard on, which kept the original query in that share of the cases", soft_wrap=True
    )
    for name in report.reformulators:
        rates = ", ".join(f"{metric} {rate:.1%}" for metric, rate in report.falling_rates[name].items())
        console.print(f"{name}: pairs of a case and two depths where more feedback is worse: {rates}", soft_wrap=True)


def draw(report: ReformulationReport, metric: str, path: Path) -> Path:
    """Draw a metric against the depth, one line a reformulator, and write the PNG.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    figure = plots.figure(7, 4.5)
    axes = figure.subplots()
    for name in report.reformulators:
        points = [report.find(name, depth, metric) for depth in report.depths]
        (line,) = axes.plot(report.depths, [point.value for point in points], marker="o", label=name)
        under = [report.find(name, depth, metric, guarded=True).value for depth in report.depths]
        axes.plot(report.depths, under, linestyle=":", color=line.get_color())
    axes.set(xlabel="items of feedback (dotted: guard on)", ylabel=metric, title=f"{report.cases:,} cases")
    axes.legend()
    figure.savefig(path, dpi=110)
    return path


def _points(name: str, guarded: bool, found: Curve, seed: int) -> Iterator[Point]:
    shares = found.fell_back.mean(axis=1)
    for metric, values in found.values.items():
        gains = found.gains(metric)
        columns = np.concatenate([values, gains]).T
        interval = bootstrap_means(columns, confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
        helped, hurt = found.helped_rate(metric), found.hurt_rate(metric)
        index, worst = found.robustness_index(metric), found.worst_decile(metric)
        for place, depth in enumerate(found.depths):
            of_gain = len(found.depths) + place
            yield Point(
                reformulator=name,
                guarded=guarded,
                depth=depth,
                metric=metric,
                value=float(values[place].mean()),
                low=float(interval.low[place]),
                high=float(interval.high[place]),
                gain=float(gains[place].mean()),
                gain_low=float(interval.low[of_gain]),
                gain_high=float(interval.high[of_gain]),
                helped_rate=float(helped[place]),
                hurt_rate=float(hurt[place]),
                robustness_index=float(index[place]),
                worst_decile=float(worst[place]),
                fallback_rate=float(shares[place]),
            )
