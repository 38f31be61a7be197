"""Items held out of training, ranked together with all others: how well they are found, and what that costs the others.

The run file is the one that `recsys init` writes for the source, with the split `cold_items` and `warm_rate`: a tenth
of the items is held out whole, and a tenth of the pairs with other items. The figures become
`results/cold-items-<source>.json` and a table.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.report import RESULTS, Report
from recsys import config, registry
from recsys.cli import one_message
from recsys.config import Run
from recsys.data.decisions import decide
from recsys.data.prepare import parts_to_judge, prepare, refitted
from recsys.evaluation.baselines import fit_baselines, recommender
from recsys.evaluation.held_out import held_out
from recsys.evaluation.recommenders import Recommender, ScoreRecommender
from recsys.evaluation.report import OURS, EvaluationReport, evaluate
from recsys.pipeline import Validator
from recsys.training.loop import fit
from recsys.training.solutions import SolvedTables, solve
from recsys.types import Bool, Float32, Int64, RowSets
from twintower.errors import TwintowerError

DISTRIBUTIONS = ("tensorflow", "tensorflow-recommenders", "numpy", "scipy")
WORK = Path("work") / "bench-cold-items"
METRICS = ("nDCG@20", "R@20", "R@50")
SPLIT = 'split={kind="cold_items", test_rate=0.1, validation_rate=0.1, warm_rate=0.1}'
SOURCES = ("wikispeedia", "enriched_movielens", "complete_journey")
BASELINES = ("feature_popularity", "popularity", "dlae")
BY_OWN_COUNTS = "feature_popularity, own_counts"
LENGTHS = (0.15, 0.2, 0.25, 0.35, 0.5, 1.0)
"""Lengths of the vectors of new items (`cold_start.length`) that are shown beside the one that validation chose."""
WITHOUT = f"{OURS}, no new items shown"
"""The same model, with items that have no interactions left out of its rankings."""
MIN_RATIO, MAX_LOSS = 2.0, 0.01
"""R@50 of new items by that of the popularity of their features; relative loss of nDCG@20 of the other items."""


def run_of(source: str, folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Return the run that `recsys init` writes for a source, with items held out.

    Raises:
        TwintowerError: the command failed.
    """
    file = folder / "run.toml"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recsys.cli", "init", "--source", source, "--out", str(file), "--force"]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
        raise TwintowerError(f"{' '.join(command)}: failed; the lines above say why.")
    return config.load(str(file), [SPLIT, "training.validation_metric='nDCG@20'", *overrides])


def judged(run: Run, folder: Path) -> tuple[Run, Mapping[str, EvaluationReport]]:
    """Return the run as validation chose it, and the reports on new items (`cold`) and on the others (`warm`).

    Both come from the same rankings, in which new items and the others stand together.
    """
    prepared = prepare(run, folder / "prepared")
    run, _ = decide(run, prepared)
    validation = held_out(run, prepared, "validation", run.training.validation_cases)
    validator = Validator(run, validation, run.objective.reads == "matrix")
    fitted = fit(run, prepared, folder / "training", validator, refitted(run, prepared, *parts_to_judge(run, prepared)))
    test = held_out(run, fitted.prepared, "test", run.evaluation.max_cases)
    cases, is_new = test.cases.of_new_items, np.asarray(fitted.prepared.item_counts) == 0
    baselines, _ = fit_baselines(
        [registry.build("baselines", {"kind": kind}, "baselines") for kind in BASELINES],
        validation,
        test,
        metric=run.training.validation_metric,
        search_s=run.evaluation.baseline_search_s,
    )
    queries, items = fitted.model.encode_queries(test.codes), fitted.model.encode_items()
    recommenders: dict[str, Recommender] = {
        OURS: by_vectors(queries, items, cases.excluded, np.zeros_like(is_new)),
        WITHOUT: by_vectors(queries, items, cases.excluded, is_new),
        **{kind: each.recommender.without(cases.excluded) for kind, each in baselines.items()},
    }
    own_counts = registry.build("baselines", {"kind": "feature_popularity", "own_counts": True}, "baselines")
    recommenders[BY_OWN_COUNTS] = recommender(own_counts, test).without(cases.excluded)
    chosen = fitted.choice.run
    if chosen.objective.reads == "matrix":
        dim, cold_start = chosen.tower.dim, chosen.objective.cold_start
        solution = solve(chosen.objective, fitted.prepared, dim, chosen.seed, "train")
        tables = SolvedTables(fitted.model, fitted.prepared)
        for length in LENGTHS:
            tables.assign(solution, replace(cold_start, length=(length,)), dim)
            queries, items = fitted.model.encode_queries(test.codes), fitted.model.encode_items()
            recommenders[f"{OURS}, length {length:g}"] = by_vectors(
                queries, items, cases.excluded, np.zeros_like(is_new)
            )
    relevant = cases.relevant
    reports = {}
    for name, counted in (("cold", is_new), ("warm", ~is_new)):
        of_part = counted[relevant.rows]
        part = RowSets.from_pairs(relevant.owners[of_part], relevant.rows[of_part], len(cases))
        reports[name] = evaluate(recommenders, replace(cases, relevant=part), METRICS, seed=run.seed)
    return chosen, reports


def by_vectors(queries: Float32, items: Float32, excluded: RowSets | None, hidden: Bool) -> ScoreRecommender:
    """Return exact search by inner products that never shows the hidden items, `[items]`."""

    def score(case_rows: Int64) -> Float32:
        scores = queries[case_rows] @ items.T
        scores[:, hidden] = -np.inf
        return scores

    return ScoreRecommender(score, len(items), excluded)


def add(report: Report, source: str, seed: int, reports: Mapping[str, EvaluationReport]) -> tuple[float, float]:
    """Add the tables of one training.

    Returns:
        R@50 of new items by that of the popularity of their features, and the relative loss of nDCG@20 of the others.
    """
    for name, found in reports.items():
        case = {"source": source, "seed": seed, "relevant items": name, "cases": found.cases}
        for subject in found.recommenders:
            for metric in METRICS:
                one = found.find(subject, metric)
                report.add_interval(case, subject, metric, one.value, one.low, one.high, 1)
    cold, warm = reports["cold"], reports["warm"]
    by_features = cold.find("feature_popularity", "R@50").value
    ratio = cold.find(OURS, "R@50").value / by_features if by_features else float("inf")
    return ratio, 1 - warm.find(OURS, "nDCG@20").value / warm.find(WITHOUT, "nDCG@20").value


def bench(sources: Sequence[str], work: Path, results: Path, seeds: Sequence[int], overrides: Sequence[str]) -> None:
    """Train and judge, and write the results after each training."""
    for source in sources:
        report = Report(f"cold-items-{source}", DISTRIBUTIONS)
        report.note("Means over cases with bootstrap intervals. Cold and warm items stand in one ranking.")
        for seed in seeds:
            folder = work / f"{source}-{seed}"
            run = run_of(source, folder, [f"seed={seed}", *overrides])
            chosen, reports = judged(run, folder)
            ratio, loss = add(report, source, seed, reports)
            words = [f"{'met' if ok else 'MISSED'}" for ok in (ratio >= MIN_RATIO, loss < MAX_LOSS)]
            lengths = ""
            if hasattr(chosen.objective, "cold_start"):
                lengths = f" Validation chose cold_start.length = {chosen.objective.cold_start.length[0]:g}."
            report.note(
                f"{source}, seed {seed}: R@50 of new items is {ratio:.1f} times that of the popularity of their "
                f"features (wanted at least {MIN_RATIO:g}: {words[0]}); the others lose {loss:.2%} of their nDCG@20 to "
                f"new items (wanted less than {MAX_LOSS:.0%}: {words[1]}).{lengths}"
            )
            file = report.write(results)
        print(file.read_text(encoding="utf-8"))


def main(
    sources: Annotated[list[str], typer.Argument(help=f"Kinds of sources; none means {', '.join(SOURCES)}.")] = [],  # noqa: B006
    seeds: Annotated[list[int], typer.Option(help="Of the split and the training.")] = [1, 2, 3],  # noqa: B006
    settings: Annotated[list[str], typer.Option("--set", help="KEY=VALUE of the run file.")] = [],  # noqa: B006
    work: Annotated[Path, typer.Option(help="Where prepared data and trainings are kept.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Hold items out of training and judge them in one ranking with all others."""
    bench(sources or SOURCES, work, results, seeds, settings)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
