"""Judge recommenders on the same cases over the full catalogue, and show the outcome to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from recsys.data.prepare import parts_in_words
from recsys.documents import parse_json
from recsys.errors import ShapeError
from recsys.evaluation.cases import EvaluationCases
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.recommenders import Recommender, blocks_of
from recsys.evaluation.slices import ALL, DEFINITIONS, NEW_ITEMS, REPEATS, activity_slices, item_slices
from recsys.export.release import parts_of
from recsys.metrics.exposure import Exposure, measure_exposure
from recsys.metrics.ranking import Metric, find_hits, measure_hits, parse
from recsys.progress import track
from recsys.types import NO_ROW, Int32, Int64, RowSets
from twintower.errors import MissingError, SettingError, describe, unknown, verbatim

REPORT_FILE = "evaluation.json"
CASE_VALUES_FILE = "evaluation_cases.parquet"
DIGEST_KEY = b"cases_digest"
OURS = "two_tower"
"""What the trained model is called among the recommenders of a report."""
BLOCK_CASES = 128
"""Cases between two advances of the progress bar."""


@dataclass(frozen=True)
class Accuracy:
    """The mean of one metric over the cases of one slice.

    Attributes:
        recommender: whose rankings.
        slice: a name of `recsys.evaluation.slices.DEFINITIONS`.
        metric: in `ir-measures` spelling.
        cases: how many cases the slice has.
        value: mean over the cases, 0..1; None where the slice has no case.
        low: lower bound of the bootstrap interval, or None.
        high: upper bound, or None.
    """

    recommender: str
    slice: str
    metric: str
    cases: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Fit:
    """What a recommender was fitted on, and how its settings were chosen.

    Attributes:
        parts: of the split, whose rows it was fitted on.
        settings: by name.
        tried: combinations of settings that were tried on validation cases; 0 where nothing was to be chosen.
        candidates: combinations that there were to try.
    """

    parts: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tried: int = 0
    candidates: int = 0


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        cases: cases with at least one reachable item; the others are left out.
        items: rows of the catalogue, all of which were ranked.
        with_exclusions: whether items were taken out of the rankings (seen ones, the query item itself).
        history: in words, what the history of a query held, for every recommender alike; empty where queries have none.
        cases_digest: SHA-256 of the questions; only reports that share it can be compared.
        confidence: level of the intervals, 0..1.
        resamples: bootstrap resamples.
        accuracy: one entry for each recommender, slice and metric, in that order.
        exposure: by recommender: what its rankings show, one entry for each cutoff of the metrics.
        case_values: one row for each recommender, slice and case: `recommender`, `slice`, `case_id` (strings),
            `relevant_count` (int64, in the slice) and one float64 column a metric.
        fits: by recommender, as far as it is known: what it was fitted on.
        left_out: by baseline of the run that the data do not fit: the reason, a sentence.
        training: when the training of the model stopped, why, and which weights it has; empty where there was none.
        feedback: which reformulator is the default and why; empty where nothing decided.
    """

    cases: int
    items: int
    with_exclusions: bool
    history: str
    cases_digest: str
    confidence: float
    resamples: int
    accuracy: tuple[Accuracy, ...]
    exposure: Mapping[str, tuple[Exposure, ...]]
    case_values: pa.Table = field(repr=False, compare=False)
    fits: Mapping[str, Fit] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    training: str = ""
    feedback: str = ""

    @property
    def recommenders(self) -> list[str]:
        """The names of the recommenders, in the order in which they were given."""
        return list(self.exposure)

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order in which they were asked for."""
        return list(dict.fromkeys(entry.metric for entry in self.accuracy))

    def find(self, recommender: str, metric: str, slice: str = ALL) -> Accuracy:
        """Return one entry of `accuracy`.

        Raises:
            MissingError: nothing was measured under these names.
        """
        for entry in self.accuracy:
            if (entry.recommender, entry.metric, entry.slice) == (recommender, metric, slice):
                return entry
        known = [f"{entry.recommender} {entry.metric} {entry.slice}" for entry in self.accuracy]
        raise MissingError(unknown("measurement", f"{recommender} {metric} {slice}", known))

    def case_values_of(self, recommender: str) -> pa.Table:
        """Return the rows of `case_values` of one recommender, as `recsys.evaluation.comparison.compare` takes them.

        Raises:
            MissingError: the report has no such recommender.
        """
        if recommender not in self.exposure:
            raise MissingError(unknown("recommender in the report", recommender, self.recommenders))
        return self.case_values.filter(pc.equal(self.case_values["recommender"], recommender))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the case values as plain values for JSON."""
        shown = {name: [asdict(exposure) for exposure in entries] for name, entries in self.exposure.items()}
        plain = {
            name: getattr(self, name)
            for name in ("cases", "items", "with_exclusions", "history", "cases_digest", "confidence", "resamples")
        }
        return {
            **plain,
            "accuracy": [asdict(entry) for entry in self.accuracy],
            "exposure": shown,
            "fits": {name: asdict(fit) for name, fit in self.fits.items()},
            "left_out": dict(self.left_out),
            "training": self.training,
            "feedback": self.feedback,
        }

    def save(self, folder: Path) -> None:
        """Write the report as JSON and the case values as Parquet into an existing folder."""
        (folder / REPORT_FILE).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        pq.write_table(self.case_values, folder / CASE_VALUES_FILE)


def load(folder: Path) -> EvaluationReport:
    """Read what `EvaluationReport.save` wrote.

    Raises:
        MissingError: the folder holds no report.
        ReleaseError: it is not one that this version writes.
    """
    for name in (REPORT_FILE, CASE_VALUES_FILE):
        if not (folder / name).is_file():
            raise MissingError(
                describe(str(folder / name), verbatim("no file"), "an evaluation report", "Evaluate again.")
            )
    with parts_of(folder):
        plain = parse_json((folder / REPORT_FILE).read_bytes(), str(folder / REPORT_FILE))
        plain["accuracy"] = tuple(Accuracy(**entry) for entry in plain["accuracy"])
        plain["exposure"] = {
            name: tuple(Exposure(**entry) for entry in entries) for name, entries in plain["exposure"].items()
        }
        plain["fits"] = {
            name: Fit(**{**entry, "parts": tuple(entry["parts"])}) for name, entry in plain.get("fits", {}).items()
        }
        return EvaluationReport(**plain, case_values=pq.read_table(folder / CASE_VALUES_FILE))


def evaluate(
    recommenders: Mapping[str, Recommender],
    cases: EvaluationCases,
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    fits: Mapping[str, Fit] | None = None,
    left_out: Mapping[str, str] | None = None,
    training: str = "",
) -> EvaluationReport:
    """Measure every recommender on every case, over all items and slice by slice.

    A slice of items counts only relevant items of the slice as right and leaves out the cases that have none; the
    rankings stay as they are, but for `new_items`, whose rankings leave out what the case's entity met. Cases without a
    reachable item are left out of everything.

    Args:
        recommenders: by the name that the tables show.
        cases: the questions; at least one must have a reachable item.
        metrics: in `ir-measures` spelling, at least one.
        confidence: level of the bootstrap intervals, 0..1.
        resamples: bootstrap resamples, >= 1.
        seed: of the bootstrap.
        fits: what recommenders were fitted on, by name, for the report.
        left_out: baselines that are not measured, and why, for the report.
        training: a sentence on the training of the model, for the report.

    Raises:
        SettingError: no metric, or one that `recsys.metrics.parse` refuses.
        ShapeError: no case has a reachable item, or a recommender shows an item twice or one that is excluded.
    """
    if not metrics:
        raise SettingError(describe("evaluation.metrics", list(metrics), "at least one metric"))
    parsed = list(dict.fromkeys(parse(name) for name in metrics))
    slices = _slices(cases)
    if not len(slices[0].case_rows):
        raise ShapeError(describe("cases", verbatim("no case with a reachable item"), "at least one"))
    ranked = {name: _rank(name, recommender, cases, parsed) for name, recommender in recommenders.items()}
    ranked_new = {}
    if cases.known is not None:
        # What is new to an entity has a list of its own: repeats would take the first places of every list.
        ranked_new = {
            name: _rank(f"{name}, new items", each.without(cases.excluded_or_known), cases, parsed)
            for name, each in recommenders.items()
        }
    accuracy, tables = [], []
    for part in slices:
        rankings = ranked_new if part.name == NEW_ITEMS and ranked_new else ranked
        values = {name: part.measure(parsed, rankings[name]) for name in recommenders}
        accuracy += _accuracy(part, values, parsed, confidence, resamples, seed)
        tables += [_case_values(name, part, columns, parsed, cases) for name, columns in values.items()]
    order = {name: place for place, name in enumerate(recommenders)}
    cutoffs = sorted({metric.cutoff for metric in parsed})
    asked = slices[0].case_rows
    return EvaluationReport(
        cases=len(asked),
        items=len(cases.item_ids),
        with_exclusions=cases.excluded is not None,
        history=cases.history,
        cases_digest=cases.digest,
        confidence=confidence,
        resamples=resamples,
        accuracy=tuple(sorted(accuracy, key=lambda entry: order[entry.recommender])),
        exposure={
            name: tuple(measure_exposure(rankings[asked], cases.item_counts, cutoff) for cutoff in cutoffs)
            for name, rankings in ranked.items()
        },
        case_values=pa.concat_tables(tables).replace_schema_metadata({DIGEST_KEY: cases.digest}),
        fits=fits or {},
        left_out=left_out or {},
        training=training,
    )


def render(report: EvaluationReport, console: Console) -> None:
    """Print a report as tables that a person can read: all metrics, the first metric by slice, and what is shown."""
    left_out = "excluded items left out" if report.with_exclusions else "nothing excluded"
    title = f"Accuracy: {report.cases:,} cases, all {report.items:,} items ranked, {left_out}"
    overall = Table(title=title, caption=f"below each mean its {report.confidence:.0%} bootstrap interval over cases")
    overall.add_column("metric")
    for name in report.recommenders:
        overall.add_column(name, justify="right")
    for metric in report.metrics:
        overall.add_row(metric, *(_cell(report.find(name, metric)) for name in report.recommenders), end_section=True)

    metric = report.metrics[0]
    parts = Table(title=f"{metric} by slice: {report.cases:,} cases in all", caption=_definitions())
    parts.add_column("slice")
    parts.add_column("cases", justify="right")
    for name in report.recommenders:
        parts.add_column(name, justify="right")
    for slice in DEFINITIONS:
        entries = [report.find(name, metric, slice) for name in report.recommenders]
        parts.add_row(slice, f"{entries[0].cases:,}", *(_cell(entry) for entry in entries), end_section=True)

    shown = Table(
        title=f"What is shown: {report.cases:,} cases",
        caption="coverage: share of the catalog shown at least once\n"
        "gini: 0 = all items equally often, 1 = one item only\n"
        "popularity: mean percentile of training count, 0.5 = items drawn at random\n"
        "log count: mean of log(1 + training count)",
    )
    shown.add_column("recommender")
    for column in ("places", "coverage", "gini", "popularity", "log count"):
        shown.add_column(column, justify="right")
    for name, exposures in report.exposure.items():
        for entry in exposures:
            numbers = (entry.coverage, entry.gini, entry.popularity_percentile, entry.mean_log_count)
            shown.add_row(name, str(entry.cutoff), *(f"{number:.3f}" for number in numbers))

    if report.history:
        console.print(f"History of a query: {report.history}.", soft_wrap=True)
    if report.training:
        console.print(report.training, soft_wrap=True, markup=False)
    tables = [overall, parts, shown, *([_fits(report)] if report.fits else [])]
    for table in tables:
        table.title_justify = table.caption_justify = "left"
        console.print(table)
    for name, reason in report.left_out.items():
        console.print(f"{name} was left out: {reason}", markup=False, highlight=False, soft_wrap=True)


def _fits(report: EvaluationReport) -> Table:
    table = Table("recommender", "rows", "settings", "tried", title="What was fitted on which rows")
    table.caption = (
        "tried: combinations of settings, on validation cases; fewer than there are where evaluation.baseline_search_s "
        "was over"
    )
    for name, fit in report.fits.items():
        settings = ", ".join(f"{setting} {value}" for setting, value in fit.settings.items())
        tried = f"{fit.tried} of {fit.candidates}" if fit.tried else ""
        table.add_row(name, " + ".join(fit.parts), settings, tried)
    return table


def fitted_in_words(fits: Mapping[str, Fit]) -> str:
    """Return which recommender was fitted on which parts of the split, those with equal parts together."""
    by_parts: dict[tuple[str, ...], list[str]] = {}
    for name, fit in fits.items():
        by_parts.setdefault(fit.parts, []).append(name)
    return "; ".join(f"{', '.join(names)} on {parts_in_words(parts)} rows" for parts, names in by_parts.items())


@dataclass(frozen=True)
class _Slice:
    """The relevant items of one slice, one set a case; `case_rows` are the cases that have at least one."""

    name: str
    relevant: RowSets
    case_rows: Int64

    @property
    def relevant_counts(self) -> Int64:
        """How many relevant items each case of the slice has."""
        return self.relevant.sizes[self.case_rows]

    def measure(self, metrics: Sequence[Metric], ranked: Int32) -> np.ndarray:
        """Return `[cases of the slice, metrics]`, float64."""
        hits = find_hits(ranked[self.case_rows], self.relevant.take(self.case_rows))
        return np.column_stack(list(measure_hits(metrics, hits, self.relevant_counts).values()))


def _slices(cases: EvaluationCases) -> list[_Slice]:
    relevant = cases.reachable
    every_pair = np.ones(len(relevant.rows), bool)
    is_known = ~every_pair if cases.known is None else cases.known.contains(relevant.owners, relevant.rows)
    pairs = {ALL: every_pair, REPEATS: is_known, NEW_ITEMS: ~is_known & (cases.known is not None)}
    pairs |= {name: items[relevant.rows] for name, items in item_slices(cases.item_counts).items()}
    pairs |= {name: in_slice[relevant.owners] for name, in_slice in activity_slices(cases.activity).items()}
    slices = []
    for name in DEFINITIONS:
        of_slice = RowSets.from_pairs(relevant.owners[pairs[name]], relevant.rows[pairs[name]], len(cases))
        slices.append(_Slice(name, of_slice, np.flatnonzero(of_slice.sizes > 0)))
    return slices


def _rank(name: str, recommender: Recommender, cases: EvaluationCases, metrics: Sequence[Metric]) -> Int32:
    depth = max(metric.cutoff for metric in metrics)
    blocks = list(blocks_of(np.arange(len(cases)), BLOCK_CASES))
    shown = track(blocks, f"evaluate {name}", total=len(blocks), unit=f"blocks of {BLOCK_CASES} cases")
    ranked = np.concatenate([recommender.recommend(block, depth).item_rows for block in shown])
    ordered = np.sort(ranked, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ROW)).any():
        raise ShapeError(describe(f"ranking of {name}", verbatim("an item twice in one ranking"), "each item once"))
    if cases.excluded is not None and find_hits(ranked, cases.excluded).any():
        raise ShapeError(
            describe(f"ranking of {name}", verbatim("an excluded item"), "none of the case's excluded items")
        )
    return ranked


def _accuracy(
    part: _Slice,
    values: Mapping[str, np.ndarray],
    metrics: Sequence[Metric],
    confidence: float,
    resamples: int,
    seed: int,
) -> list[Accuracy]:
    count = len(part.case_rows)
    named = [(name, metric.name) for name in values for metric in metrics]
    if count == 0:
        return [Accuracy(name, part.name, metric, 0, None, None, None) for name, metric in named]
    columns = np.hstack(list(values.values()))
    interval = bootstrap_means(columns, confidence=confidence, resamples=resamples, seed=seed)
    numbers = zip(columns.mean(axis=0).tolist(), interval.low.tolist(), interval.high.tolist(), strict=True)
    return [
        Accuracy(name, part.name, metric, count, value, low, high)
        for (name, metric), (value, low, high) in zip(named, numbers, strict=True)
    ]


def _case_values(
    recommender: str, part: _Slice, columns: np.ndarray, metrics: Sequence[Metric], cases: EvaluationCases
) -> pa.Table:
    count = len(part.case_rows)
    ids = cases.case_ids.take(pa.array(part.case_rows))
    return pa.table(
        {
            "recommender": pa.repeat(recommender, count),
            "slice": pa.repeat(part.name, count),
            "case_id": ids.cast(pa.string()),
            "relevant_count": pa.array(part.relevant_counts, pa.int64()),
            **{metric.name: columns[:, place] for place, metric in enumerate(metrics)},
        }
    )


def _cell(entry: Accuracy) -> str:
    if entry.value is None:
        return "-"
    return f"{entry.value:.4f}\n[dim]{entry.low:.4f} {entry.high:.4f}[/dim]"


def _definitions() -> str:
    return "\n".join(f"{name}: {meaning}" for name, meaning in DEFINITIONS.items())
