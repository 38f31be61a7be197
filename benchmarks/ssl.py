"""Self-supervised item towers on public data: the paper's Tables 2 to 5, our variants, and peers on the same cases.

`recsys ablate` does the work; what it finds on each data set becomes `results/ssl-<data>.json`, a table and plots.
Everything is kept below the work folder, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.sparse import csr_matrix

from benchmarks.peers import ranking
from benchmarks.report import RESULTS, Report
from recsys import config
from recsys.ablation import show
from recsys.ablation.ablate import ablate
from recsys.ablation.cells import asked
from recsys.ablation.rows import BASELINE
from recsys.ablation.tables import SLICES, Ablation
from recsys.commands.ablate import QUICK
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare
from recsys.evaluation.baselines import baseline
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.recommenders import Recommender, VectorRecommender
from recsys.metrics.ranking import measure, parse
from recsys.types import Int32

DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy", "scipy", "implicit")
WORK = Path("work") / "bench-ssl"

LIBRECOMMENDER = {"librecommender": None, "librecommender_cfm": "cfm"}
"""LibRecommender's TwoTower by the name that the table shows, and how it masks features."""
PATHS = {
    "rates": "training.learning_rate",
    "epochs": "training.epochs",
    "temperatures": "objective.temperature",
    "dims": "tower.dim",
}


@dataclass(frozen=True)
class Plan:
    """What is run on one data set.

    Attributes:
        run: a run file that comes with the package.
        overrides: for the whole data set.
        by_rate: further overrides for each share of the training interactions.
        peers: recommenders of other kinds that are measured on the same cases, at the largest share.
        bars: the relative gains of the paper's Wikipedia table that CFM must reach, by training rate and metric.
    """

    run: str
    overrides: tuple[str, ...]
    by_rate: Mapping[float, tuple[str, ...]]
    peers: tuple[str, ...]
    bars: Mapping[float, Mapping[str, float]]


def _search(**values: Sequence[object]) -> str:
    entries = ", ".join(f'"{PATHS[name]}" = {json.dumps(list(tried))}' for name, tried in values.items())
    return f"ablation.baseline_search={{{entries}}}"


PLANS: dict[str, Plan] = {
    "wikispeedia": Plan(
        "wikispeedia",
        ('ablation.logq=["none", "counts"]',),
        {
            1.0: (
                _search(rates=[0.05, 0.1], epochs=[5, 10], temperatures=[0.07, 0.1], dims=[64, 128]),
                "ablation.trials=4",
                "ablation.baseline_trials=8",
            ),
            0.1: (_search(rates=[0.05, 0.1], epochs=[15, 30], temperatures=[0.07, 0.1], dims=[64, 128]),),
        },
        ("popularity", "item_knn", "als", "ease", "librecommender", "librecommender_cfm"),
        {1.0: {"AP@10": 0.07, "R@50": 0.04}, 0.1: {"AP@10": 0.21, "R@50": 0.18}},
    ),
    "ml-1m": Plan(
        "enriched_movielens",
        ("ablation.seeds=[1, 2, 3]", "ablation.trials=4", "ablation.baseline_trials=4"),
        {
            1.0: (_search(rates=[0.05, 0.1], epochs=[3], temperatures=[0.07, 0.1], dims=[64]),),
            0.1: (_search(rates=[0.05, 0.1], epochs=[10], temperatures=[0.07, 0.1], dims=[64]),),
        },
        ("popularity", "item_knn", "als", "ease", "librecommender", "librecommender_cfm"),
        {},
    ),
    "complete_journey": Plan(
        "basket_companions",
        ("ablation.seeds=[1, 2, 3]", "ablation.trials=4", "ablation.baseline_trials=4"),
        {
            1.0: (_search(rates=[0.05, 0.1], epochs=[3], temperatures=[0.05, 0.07], dims=[64]),),
            0.1: (_search(rates=[0.05, 0.1], epochs=[10], temperatures=[0.05, 0.07], dims=[64]),),
        },
        ("popularity", "item_knn"),
        {},
    ),
}


def run_of(plan: Plan, training_rate: float, quick: bool) -> Run:
    """Return the run of one share of the training interactions."""
    overrides = [*plan.overrides, *plan.by_rate[training_rate], f"ablation.training_rates=[{training_rate}]"]
    return config.load(plan.run, [*overrides, *(QUICK if quick else ())])


def add_ablation(report: Report, found: Ablation) -> None:
    """Add the table of an ablation: every number with its interval, and every gain over the baseline with its own."""
    for case, slice in itertools.product(found.cases, SLICES):
        shown = {"fraction": case.training_rate, "logq": case.logq != "none", "slice": slice}
        for subject, metric in itertools.product(found.subjects, found.metrics):
            entry = found.find(case, slice, subject, metric)
            if entry is None:
                continue
            if (subject, metric) == (BASELINE, found.metrics[0]):
                report.note(
                    f"{show.titled(case)}, slice {slice}: {entry.cases:,} test cases, {entry.seeds} seeds for each row."
                )
            report.add_interval(shown, subject, metric, entry.value, entry.low, entry.high, entry.seeds)
            if subject != BASELINE and entry.gain_rate == entry.gain_rate:
                gain = (entry.gain_rate, entry.gain_low, entry.gain_high)
                report.add_interval(shown, subject, f"{metric}_gain_rate", *gain, entry.seeds)
    for case, by_row in found.chosen.items():
        for subject, settings in by_row.items():
            told = ", ".join(f"{path} = {value}" for path, value in settings.items()) or "as in the run file"
            report.note(f"{show.titled(case)}, {subject}: {told} (chosen on validation cases).")
    for sentence in show.verdicts(found):
        report.note(sentence[0].upper() + sentence[1:])
    spent = ", ".join(f"{name} {seconds / 60:.0f}" for name, seconds in found.seconds.items())
    report.note(f"Minutes of training, summed over workers: {spent}.")


def judge(report: Report, found: Ablation, bars: Mapping[str, float]) -> None:
    """Say for each bar whether CFM reached it with plain softmax, and whether it gains on top of logQ."""
    for case in found.cases:
        wanted = bars if case.logq == "none" else {"AP@10": 0.0} if case.training_rate < 1 else {}
        for metric, bar in wanted.items():
            entry = found.find(case, "all", "cfm", metric)
            met = entry.gain_rate >= bar and entry.gain_low > 0
            gain = f"{entry.gain_rate:+.1%} [{entry.gain_low:+.1%}, {entry.gain_high:+.1%}]"
            word = "met" if met else "MISSED"
            report.note(f"Bar {word}: {show.titled(case)}, cfm in {metric}: {gain}, wanted {bar:+.0%} and above zero.")


def add_peers(report: Report, run: Run, names: Sequence[str], folder: Path) -> None:
    """Measure other recommenders on the test cases of a run, trained on the same interactions."""
    prepared = prepare(run, folder / "prepared")
    test = held_out(run, prepared, "test", run.evaluation.max_cases)
    rows, reachable = asked(test)
    case = {"fraction": run.data.training_rate, "logq": True, "slice": "all"}
    metrics = run.ablation.metrics
    depth = max(parse(name).cutoff for name in metrics)
    for name, recommender in _peers(names, run, prepared, test, folder, report):
        values = measure(metrics, recommender.recommend(rows, depth).item_rows, reachable)
        interval = bootstrap_means(np.column_stack(list(values.values())), confidence=0.95, resamples=1000, seed=0)
        for place, (metric, of_cases) in enumerate(values.items()):
            report.add_interval(case, name, metric, of_cases.mean(), interval.low[place], interval.high[place], 1)


def _peers(
    names: Sequence[str], run: Run, prepared: Prepared, test: HeldOut, folder: Path, report: Report
) -> Iterator[tuple[str, Recommender]]:
    train = prepared.parts["train"]
    met = csr_matrix(
        (np.ones(len(train), np.float32), (train.query_row, train.item_row)),
        (prepared.query_count, prepared.item_count),
    )
    for name in names:
        if name not in LIBRECOMMENDER:
            yield name, baseline(name).fit(met, met[test.query_rows], test.cases.excluded)
            continue
        settings = ranking.RankingSettings(
            dim=run.tower.dim,
            hidden=run.tower.hidden,
            temperature=run.objective.temperature,
            ssl_pattern=LIBRECOMMENDER[name],
            seed=run.seed,
        )
        try:
            query_vectors, item_vectors = ranking.librecommender_vectors(
                folder / name,
                train,
                _integer_codes(prepared.item_codes, prepared),
                {} if run.query.entity == "item" else _integer_codes(prepared.query_codes, prepared),
                settings,
                item_count=prepared.item_count,
                query_count=prepared.query_count,
            )
        except subprocess.CalledProcessError as error:
            report.note(f"{name} was left out: {(error.stderr or '').strip()[-500:]}")
            continue
        yield name, VectorRecommender(query_vectors[test.query_rows], item_vectors, test.cases.excluded)


def _integer_codes(codes: Mapping[str, np.ndarray], prepared: Prepared) -> dict[str, Int32]:
    """Return the codes of categorical features; ids go to the peer as rows."""
    ids = {name for name, array in codes.items() if array.ndim == 1 and len(np.unique(array)) > 0.8 * len(array)}
    return {name: np.asarray(array) for name, array in codes.items() if array.dtype == np.int32 and name not in ids}


def compare(report: Report, found: Ablation, plan: Plan) -> None:
    """Say how the best two-tower row stands to the best peer."""
    case = next((case for case in found.cases if case.logq != "none"), None)
    rows = [row for row in report.rows if row.subject in plan.peers]
    for metric in found.metrics:
        peers = [row for row in rows if row.metric == metric]
        ours = [found.find(case, "all", name, metric) for name in found.subjects] if case is not None else []
        if not peers or not ours:
            continue
        best, peer = max(ours, key=lambda entry: entry.value), max(peers, key=lambda row: row.value)
        word = "leads" if best.value > peer.value else "TRAILS"
        report.note(
            f"{metric}: our best two-tower ({best.subject}, {best.value:.4f}) {word} the best peer "
            f"({peer.subject}, {peer.value:.4f}) by {best.value / peer.value - 1:+.1%}."
        )


def bench(data: str, quick: bool, jobs: int, work: Path, results: Path) -> None:
    """Run one data set to its end and write its results."""
    plan = PLANS[data]
    name = f"ssl-{data}-quick" if quick else f"ssl-{data}"
    report = Report(name, DISTRIBUTIONS)
    for place, rate in enumerate(plan.by_rate):
        run = run_of(plan, rate, quick)
        home = work / name / f"{rate:g}"
        found = ablate(run, home, jobs)
        add_ablation(report, found)
        judge(report, found, plan.bars.get(rate, {}))
        if place == 0:
            add_peers(report, run, [peer for peer in plan.peers if not (quick and peer in LIBRECOMMENDER)], home)
            compare(report, found, plan)
        results.mkdir(parents=True, exist_ok=True)
        for drawing in show.plot(found, results, f"{name}-{rate:g}"):
            report.note(f"Plot: [{drawing.name}]({drawing.name}).")
    report.note(found.notice)
    print(report.write(results).read_text(encoding="utf-8"))


def main(
    data: Annotated[list[str], typer.Argument(help=f"Data sets: {', '.join(PLANS)}; none means all.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0 means one for each core.")] = 0,
    work: Annotated[Path, typer.Option(help="Where cells are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Run the ablation on public data; write `<results>/ssl-<data>.json`, `.md` and plots."""
    for name in data or PLANS:
        if name not in PLANS:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(PLANS)}")
        bench(name, quick, jobs, work, results)


if __name__ == "__main__":
    typer.run(main)
