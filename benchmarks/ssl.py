"""Self-supervised item towers on public data: the paper's Tables 2 to 5 and our variants.

`recsys ablate` does the work; what it finds on each data set becomes `results/ssl-<data>.json`, a table and plots.
Everything is kept below the work folder, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import RESULTS, Report
from recsys import config
from recsys.ablation import show
from recsys.ablation.ablate import ablate
from recsys.ablation.rows import BASELINE, laid_over, subjects_of
from recsys.ablation.tables import SLICES, Ablation
from recsys.cli import one_message
from recsys.commands.ablate import QUICK
from recsys.config import Run
from recsys.data.batches import ViewBatches
from recsys.data.prepare import prepare
from recsys.training.loop import compiled, train_steps, training_batches

DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy", "scipy")
WORK = Path("work") / "bench-ssl"

REHEARSAL = (
    *QUICK,
    "ablation.variants={}",
    "ablation.baseline_search={}",
    "ablation.seeds=[1]",
    "training.batch_size=4096",
)
STEP_COST_BAR = 2.2
METRICS = 'ablation.metrics=["AP@10", "AP@50", "R@10", "R@50", "R@20", "nDCG@20"]'
"""The paper's columns, and those by which recommenders are commonly compared."""
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
    """

    run: str
    overrides: tuple[str, ...]
    by_rate: Mapping[float, tuple[str, ...]]


def search(**values: Sequence[object]) -> str:
    entries = ", ".join(f'"{PATHS[name]}" = {json.dumps(list(tried))}' for name, tried in values.items())
    return f"ablation.baseline_search={{{entries}}}"


def like_cfm(name: str, *settings: str) -> str:
    """Return a row that differs from correlated masking in some settings."""
    return f'{name} = {{like = "cfm", settings = {{{", ".join(settings)}}}}}'


BOTH_SIDES = '"self_supervision.side" = "both"'
DROPOUT = '"item.augmentations" = [{kind = "embedding_dropout", rate = 0.1}]'
BOTH = like_cfm("cfm_both", BOTH_SIDES)
OURS = (
    BOTH,
    like_cfm("cfm_fd", DROPOUT),
    like_cfm("cfm_both_fd", BOTH_SIDES, DROPOUT),
)
"""Rows of our own beside the paper's: the second task on the query tower, too, which has the same right to it;
dropout on the inputs of the main task, the paper's own baseline FD, beside the second task (no rivals: one blurs the
towers' inputs, the other asks for items by a part of their features); and both: alone, the former gained on links, the
latter on films."""

STRONG_ROWS = ("baseline", "fd", "rfm_no_compl", "cfm", "cfm_id_masked", "id_hidden")
"""Rows on top of strong towers: feature dropout, two ways of masking, and two of hiding the item's id, so that features
alone must find the item (`id_hidden` does it in the main task, as DropoutNet does)."""


def variants(*rows: str) -> str:
    return f"ablation.variants={{{', '.join(rows)}}}"


STRONG = (
    'objective.kind="all_items"',
    "tower.dim=256",
    "training.patience=0",
    variants(
        like_cfm("cfm_id_masked", '"self_supervision.augmentations.0.item_id" = "masked"'),
        'id_hidden = {settings = {"item.features.id.unknown_rate" = 0.3}, '
        'search = {"item.features.id.unknown_rate" = [0.2, 0.5]}}',
    ),
    f"ablation.subjects={json.dumps(STRONG_ROWS)}",
    search(epochs=[6, 10, 16]),
    METRICS,
    'ablation.tuning_metric="nDCG@20"',
    "ablation.seeds=[1, 2, 3]",
    "ablation.trials=2",
    "ablation.baseline_trials=3",
)
"""Towers that a user would deploy: all that an entity has met, every item in each step, regularized. They are trained
in steps, since a closed form has no second task."""

PLANS: dict[str, Plan] = {
    "wikispeedia": Plan("wikispeedia", STRONG, {1.0: (), 0.1: ()}),
    "wikispeedia-cold-items": Plan(
        "wikispeedia", (*STRONG, 'split={kind="cold_items", test_rate=0.1, validation_rate=0.1}'), {1.0: ()}
    ),
    "ml-1m": Plan(
        "enriched_movielens",
        (
            variants(*OURS),
            METRICS,
            "ablation.seeds=[1, 2, 3]",
            "ablation.trials=4",
            "ablation.baseline_trials=4",
        ),
        {0.1: (search(rates=[0.05, 0.1], epochs=[5], temperatures=[0.07, 0.1], dims=[64]),)},
    ),
    "complete_journey": Plan(
        "basket_companions",
        (
            # The words of a product's type, so that there is a feature of several values to drop.
            'item.features.words={kind = "text", column = "product_type", width = 32, max_terms = 8}',
            variants(*OURS),
            METRICS,
            "ablation.seeds=[1, 2, 3]",
            "ablation.trials=4",
            "ablation.baseline_trials=4",
        ),
        {0.1: (search(rates=[0.05, 0.1], epochs=[5], temperatures=[0.05, 0.07], dims=[64]),)},
    ),
}


def run_of(plan: Plan, training_rate: float, quick: bool) -> Run:
    """Return the run of one share of the training interactions."""
    overrides = [*plan.by_rate[training_rate], f"ablation.training_rates=[{training_rate}]"]
    return config.load(plan.run, [*plan.overrides, *overrides, *(REHEARSAL if quick else ())])


def add_ablation(report: Report, found: Ablation) -> None:
    """Add the table of an ablation: every number with its interval, and every gain over the baseline with its own."""
    report.note("Metrics and gains are means over seeds and cases; their intervals are bootstrapped over both.")
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
            for over in dict.fromkeys(entry.over for entry in found.measured):
                entry = found.find(case, slice, subject, metric, over)
                if entry is None or subject == over or entry.gain_rate != entry.gain_rate:
                    continue
                name = f"{metric}_gain_rate" if over == BASELINE else f"{metric}_gain_over_{over}_rate"
                report.add_interval(shown, subject, name, entry.gain_rate, entry.gain_low, entry.gain_high, entry.seeds)
    for case, by_row in found.chosen.items():
        for subject, settings in by_row.items():
            told = ", ".join(f"{path} = {value}" for path, value in settings.items()) or "as in the run file"
            tried = found.tried(case, subject)
            best = f", the best of {tried} tried" if tried else ""
            report.note(f"{show.titled(case)}, {subject}: {told} (chosen on validation cases){best}.")
    for sentence in show.verdicts(found):
        report.note(sentence[0].upper() + sentence[1:])
    spent = ", ".join(f"{name} {seconds / 60:.0f}" for name, seconds in found.seconds.items())
    report.note(f"Minutes of training, summed over workers: {spent}.")


def add_step_cost(report: Report, run: Run, folder: Path, steps: int = 20, rounds: int = 15) -> None:
    """Time blocks of training steps of each row in turn, in a random order; ratios are taken within a round."""
    prepared = prepare(run, folder / "prepared-for-steps")
    tables = config.plain_tables(run)
    blocks: dict[str, Iterator[object]] = {}
    for name, subject in subjects_of(run.ablation).items():
        row = config.from_tables(laid_over(tables, subject.settings))
        batches = training_batches(row, prepared)
        views = ViewBatches(prepared, row) if row.self_supervision is not None else None
        # More steps than a run of this file has: only their speed is asked for.
        batches.steps = steps * (rounds + 1)
        blocks[name] = train_steps(compiled(row, prepared, batches), batches, views=views)
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    order = random.Random(0)
    for _ in range(rounds + 1):
        for name in order.sample(sorted(blocks), len(blocks)):
            started = time.perf_counter()
            loss = [next(blocks[name]) for _ in range(steps)][-1]
            float(loss)
            seconds[name].append(time.perf_counter() - started)
    case = {"steps": steps, "batch_size": run.training.batch_size}
    for name, of_rounds in seconds.items():
        ratios = [mine / plain for mine, plain in zip(of_rounds[1:], seconds[BASELINE][1:], strict=True)]
        report.add(case, name, "step_ms", [1000 * each / steps for each in of_rounds[1:]])
        report.add(case, name, "step_cost_ratio", ratios)
    worst = max(row.value for row in report.rows if row.case == case and row.metric == "step_cost_ratio")
    word = "met" if worst < STEP_COST_BAR else "MISSED"
    report.note(f"Bar {word}: the dearest row's step costs {worst:.2f} times a plain step, wanted < {STEP_COST_BAR}.")


def bench(data: str, fractions: Sequence[float], work: Path, results: Path, *, quick: bool, jobs: int) -> None:
    """Run some shares of one data set, none meaning all, to their end and write the results."""
    plan = PLANS[data]
    name = f"ssl-{data}-quick" if quick else f"ssl-{data}"
    report = Report(name, DISTRIBUTIONS)
    for rate in plan.by_rate:
        if fractions and rate not in fractions:
            report.note(f"{rate:.0%} of the training data: not run.")
            continue
        run = run_of(plan, rate, quick)
        home = work / name / f"{rate:g}"
        found = ablate(run, home, jobs)
        add_ablation(report, found)
        results.mkdir(parents=True, exist_ok=True)
        for drawing in show.plot(found, results, f"{name}-{rate:g}"):
            report.note(f"Plot: [{drawing.name}]({drawing.name}).")
        if rate == max(plan.by_rate):
            add_step_cost(report, run, home, *((2, 3) if quick else (20, 15)))
        report.write(results)  # after each share, so that an interrupted benchmark has shown something
    report.note(found.notice)
    print(report.write(results).read_text(encoding="utf-8"))


def main(
    data: Annotated[list[str], typer.Argument(help=f"Data sets: {', '.join(PLANS)}; none means all.")] = [],  # noqa: B006
    fractions: Annotated[list[float], typer.Option("--fraction", help="Only this share of the training data.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0 means one for each core.")] = 0,
    work: Annotated[Path, typer.Option(help="Where cells are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Run the ablation on public data; write `<results>/ssl-<data>.json`, `.md` and plots."""
    for name in data or PLANS:
        if name not in PLANS:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(PLANS)}")
        bench(name, fractions, work, results, quick=quick, jobs=jobs)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
