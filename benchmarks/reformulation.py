"""Reformulators on text and on recommendations: what feedback gives at each depth, whom it hurts, what mends it.

Everything that is trained is kept below the work folder, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.reformulation_serving import add_cost
from benchmarks.report import RESULTS, Report, over_cases
from recsys import config, pipeline, plots, reformulation
from recsys.cli import one_message
from recsys.data.mined import Mined, read_if_whole
from recsys.errors import DataError
from recsys.evaluation.cross_fitting import cross_fit
from recsys.evaluation.reformulation import Curve, curve, simulated_explicit, with_noise
from recsys.export.query_side import load_roles
from recsys.reformulators.average import Average
from recsys.reformulators.history import History
from recsys.reformulators.identity import Identity
from recsys.reformulators.rocchio import Rocchio
from recsys.retrieval.reformulation import NamedReformulator, Reformulators, feedback_of
from recsys.types import Feedback, ItemRoles
from twintower.errors import MissingError

DISTRIBUTIONS = ("tensorflow", "numpy", "scipy")
WORK = Path("work") / "bench-reformulation"
METRICS = ("nDCG@10", "AP@100", "R@100")
MAIN = METRICS[0]
DEPTHS = (1, 2, 3, 4, 5, 10)
NOISE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
NOISE_DEPTH = 5
FIRST_K = 20

UNTRAINED = {"identity": Identity(), "average": Average(), "history": History(), "rocchio": Rocchio()}
OURS, LOL, PAPER = "attention", "attention_lol", "attention_lol_paper"
LEARNED: dict[str, tuple[str, ...]] = {
    "linear_feedback": ("reformulator.kind='linear_feedback'", "learning_rate=0.01"),
    "attention": (),
    # Three revisions of a query in one step, without and with their comparison.
    "attention_parallel": ("revisions=3", "objective.weight=0"),
    LOL: ("revisions=3",),
    PAPER: ("revisions=2",),
}
"""Trained rows by overrides of the `reformulation` section: `attention` is what `recsys reformulate train` trains; the
last has the paper's two revisions of a query in a step."""
ATTEMPTS: dict[str, tuple[str, ...]] = {
    "lol_stop_gradient": ("revisions=2", "objective.stop_gradient=true"),
    "lol_margin": ("revisions=2", "objective.margin=0.05"),
    "lol_independent": ("revisions=2", "nested=false"),
    "lol_weight_3": ("revisions=2", "objective.weight=3"),
    "hardest": ("objective.positives='hardest'",),
    "temperature_01": ("objective.temperature=0.1",),
    "without_residual": ("reformulator.residual=false",),
    "ranked": ("order='ranked'",),
    "drop": ("answers='drop'",),
    "mask": ("answers='mask'",),
    "noise": ("noise_rate=0.2",),
    "k5": ("feedback_k=5",),
}
"""What was tried beside these, on the first data set, one seed each."""

DONE = "done"
QUICK = ("steps=3", "folds=2")


@dataclass(frozen=True)
class Fold:
    """Queries to learn from, and others to judge with.

    Attributes:
        train: the former.
        train_items: what they are searched in.
        test: the latter.
        test_items: what these are searched in: another collection's, where a reformulator is transferred.
        feedback: what the test queries' askers said; None for pseudo feedback.
    """

    train: Mined
    train_items: ItemRoles
    test: Mined
    test_items: ItemRoles
    feedback: Feedback | None = None


@dataclass(frozen=True)
class World:
    """One data set as reformulators meet it.

    Attributes:
        name: in the results.
        folds: one, or several whose test queries are judged together.
        settings: overrides of the `reformulation` section.
        notice: what must be said of the data.
    """

    name: str
    folds: tuple[Fold, ...]
    settings: tuple[str, ...]
    notice: str = ""


def texts(collection: str, work: Path, target: str = "") -> World:
    """Return the queries of a collection of texts, with ready-made vectors, as the run file `text_collection` has them.

    Args:
        collection: learned from.
        work: holds releases and mined feedback.
        target: another collection, to judge with; empty means the same.
    """
    learned, items, notice = _mined("text_collection", collection, _of(collection), work)
    test, test_items = learned, items
    if target:
        test, test_items, notice = _mined("text_collection", target, _of(target), work)
    fold = Fold(learned["validation"], items, test["test"], test_items)
    return World(f"{collection} to {target}" if target else collection, (fold,), (), notice)


def _of(collection: str) -> tuple[str, ...]:
    return (f"source.collection={collection!r}", f"name={collection!r}")


def _mined(run: str, name: str, overrides: Sequence[str], work: Path) -> tuple[dict[str, Mined], ItemRoles, str]:
    """Return what `recsys train` and `recsys mine` give: queries to learn from and to judge with, items, a notice."""
    settled = config.load(run, overrides)
    release = pipeline.train(settled, work / "towers", work / "releases")
    parts = {}
    for part in ("validation", "test"):
        out = work / f"{name}-{part}-{release.fingerprint[:12]}.arrow"
        asked = {"part": part, "k": FIRST_K, "work": work / "towers"}
        parts[part] = read_if_whole(out) or reformulation.mine(release, settled, out=out, **asked)
    return parts, load_roles(release), release.facts.notice


TOWERS: Mapping[str, tuple[str, ...]] = {
    "enriched_movielens": ("training.epochs=3", "training.learning_rate=0.1"),
    "complete_journey": (),
}
"""Run files whose towers give the queries, and what they are trained with besides."""


def recommendations(name: str, run: str, work: Path, *, explicit: bool) -> World:
    """Return the cases of a run's test part, with the queries of its trained tower.

    Args:
        name: in the results.
        run: a run file that comes with the package.
        work: holds release and mined feedback.
        explicit: askers say what they like and dislike, instead of pseudo feedback.
    """
    overrides = (*TOWERS[run], "training.refit='none'", "evaluation.baselines=[]", "index.kind='brute_force'")
    parts, items, notice = _mined(run, run, overrides, work)
    test, feedback = parts["test"], None
    if explicit:
        test, feedback = simulated_explicit(test, items, given=max(DEPTHS), disliked_rate=0.25, seed=0)
    fold = Fold(parts["validation"], items, test, items, feedback)
    return World(name, (fold,), (f"explicit_rate={1.0 if explicit else 0.0}",), notice)


WORLDS: Mapping[str, Callable[[Path], World]] = {
    "nfcorpus": lambda work: texts("nfcorpus", work),
    "scifact": lambda work: texts("scifact", work),
    "vaswani": lambda work: texts("vaswani", work),
    "cranfield": lambda work: texts("cranfield", work),
    "nfcorpus to vaswani": lambda work: texts("nfcorpus", work, "vaswani"),
    "nfcorpus to cranfield": lambda work: texts("nfcorpus", work, "cranfield"),
    "ml-1m": lambda work: recommendations("ml-1m", "enriched_movielens", work, explicit=False),
    "ml-1m explicit": lambda work: recommendations("ml-1m explicit", "enriched_movielens", work, explicit=True),
    "complete_journey": lambda work: recommendations("complete_journey", "complete_journey", work, explicit=False),
    "complete_journey explicit": lambda work: recommendations(
        "complete_journey explicit", "complete_journey", work, explicit=True
    ),
}


def untrained() -> dict[str, NamedReformulator]:
    """Return the rows that need no training."""
    return {kind: NamedReformulator(kind, choice) for kind, choice in UNTRAINED.items()}


def reformulators(
    world: World, subject: str, overrides: Sequence[str], seed: int, work: Path, *, default: bool = False
) -> list[NamedReformulator]:
    """Return one reformulator for each fold, as `recsys reformulate train` trains it; trained ones are read.

    Args:
        world: the data.
        subject: the row.
        overrides: of the `reformulation` section.
        seed: of the training.
        work: where trained reformulators are kept.
        default: return what that command makes the default of a release, instead of what it trains.
    """
    run = config.load("wikispeedia", [f"reformulation.{each}" for each in (*world.settings, *overrides)])
    named = []
    for fold in world.folds:
        decide = [
            config.plain_tables(run)["reformulation"],
            seed,
            dict(fold.train.facts),
            fold.train.case_ids.to_pylist(),
        ]
        digest = hashlib.sha256(json.dumps(decide, sort_keys=True).encode()).hexdigest()[:12]
        home = work / "trained" / f"{subject}-{seed}-{digest}"
        if not (home / DONE).exists():
            home.mkdir(parents=True, exist_ok=True)
            fitted = cross_fit(
                fold.train, fold.train_items, run.reformulation, name=subject, seed=seed, folder=home / "training"
            )
            fitted.named.save(home, default=False)
            others = [each for each in untrained().values() if not each.choice.reads_extended]
            fitted.choose_default(others, fold.train_items, seed).save(home)
            (home / DONE).touch()
        held = Reformulators.load(home)
        named.append(held.get() if default else held.get(subject))
    return named


@dataclass(frozen=True)
class Judged:
    """One subject on all test queries of a world.

    Attributes:
        free: by seed, guard off.
        guarded: by seed, guard on.
        noisy: by seed, first results partly replaced by random items: by share, the main metric, `[cases]`.
    """

    free: tuple[Curve, ...]
    guarded: tuple[Curve, ...]
    noisy: tuple[Mapping[float, np.ndarray], ...]

    def columns(self, depth: int, *, guarded: bool = False) -> dict[str, np.ndarray]:
        """Return what is reported of a depth, each `[cases]`, averaged over the seeds."""
        curves = self.guarded if guarded else self.free
        place = curves[0].depths.index(depth)
        found: dict[str, list[np.ndarray]] = {}
        for one in curves:
            helped, hurt = one.helped(MAIN)[place], one.hurt(MAIN)[place]
            measured = {name: one.values[name][place] for name in METRICS} | {
                f"{MAIN}_gain": one.gains(MAIN)[place],
                "helped_rate": helped,
                "hurt_rate": hurt,
                "robustness_index": helped.astype(float) - hurt,
                "fallback_rate": one.fell_back[place],
            }
            for name, values in measured.items():
                found.setdefault(name, []).append(np.asarray(values, float))
        return {name: np.mean(values, axis=0) for name, values in found.items()}


def judged(world: World, by_seed: Sequence[Sequence[NamedReformulator]]) -> Judged:
    """Measure a subject: one reformulator a fold, for each seed; the cases of all folds side by side."""
    free, guarded, noisy = [], [], []
    for named in by_seed:
        pairs = list(zip(named, world.folds, strict=True))
        curves = [curve(one, fold.test, fold.test_items, METRICS, DEPTHS, fold.feedback) for one, fold in pairs]
        free.append(Curve.joined(curves))
        guarded.append(Curve.joined([found.under(one.guard) for found, (one, _) in zip(curves, pairs, strict=True)]))
        noisy.append(
            {rate: np.concatenate([_with_noise(one, fold, rate) for one, fold in pairs]) for rate in NOISE}
            if world.folds[0].feedback is None
            else {}
        )
    return Judged(tuple(free), tuple(guarded), tuple(noisy))


def _with_noise(named: NamedReformulator, fold: Fold, rate: float) -> np.ndarray:
    rows = with_noise(fold.test.first.item_rows[:, :NOISE_DEPTH], len(fold.test_items.found), rate, seed=0)
    feedback = feedback_of(fold.test.query_vectors, fold.test_items, rows, query_lengths=fold.test.query_lengths)
    return curve(named, fold.test, fold.test_items, [MAIN], [NOISE_DEPTH], feedback).values[MAIN][1]


def add_rows(report: Report, world: World, found: Mapping[str, Judged]) -> None:
    """Add the table of a world: each depth and subject, guard off and on, and the curve under noise."""
    for depth, guarded in itertools.product((0, *DEPTHS), (False, True)):
        for subject, one in found.items():
            if guarded and subject in UNTRAINED:
                continue
            case = {"data": world.name, "depth": depth, "guard": guarded}
            columns = one.columns(depth, guarded=guarded)
            report.add_means(case, subject, columns, len(one.free))
    for rate in NOISE:
        for subject, one in found.items():
            if one.noisy[0]:
                values = np.mean([each[rate] for each in one.noisy], axis=0)
                case = {"data": world.name, "depth": NOISE_DEPTH, "noise_rate": rate}
                report.add_means(case, subject, {MAIN: values}, len(one.noisy))


def add_verdicts(report: Report, world: World, found: Mapping[str, Judged]) -> None:
    """Say for a world whether each claim of the method holds on it, with the interval of the difference."""
    subject = found[OURS]
    at = {depth: subject.columns(depth) for depth in DEPTHS}
    best, best_depth, best_values = max(
        ((name, depth, found[name].columns(depth)[MAIN]) for name in UNTRAINED for depth in (0, *DEPTHS)),
        key=lambda entry: entry[2].mean(),
    )
    for depth in (5, 10):
        low, _, told = _difference(at[depth][MAIN] - best_values)
        report.note(
            f"{world.name}: {OURS} at depth {depth} against the best untrained of all depths ({best}, {best_depth}): "
            f"{MAIN} {told}: {'beats it' if low > 0 else 'does NOT beat it for sure'}."
        )
    gains = {depth: found["default"].columns(depth)[f"{MAIN}_gain"] for depth in DEPTHS}
    told = ", ".join(f"{depth}: {_difference(values)[2]}" for depth, values in gains.items())
    is_harmless = all(values.mean() >= 0 for values in gains.values())
    report.note(
        f"{world.name}: the default {'is nowhere' if is_harmless else 'IS somewhere'} below the original query: "
        f"gain in {MAIN} by depth {told}."
    )
    for other in ("attention_parallel", LOL, PAPER):
        fewer = np.mean([found[other].columns(depth)["hurt_rate"] - at[depth]["hurt_rate"] for depth in DEPTHS], axis=0)
        low, _, told = _difference(fewer)
        report.note(
            f"{world.name}: share of queries that {other} hurts minus that of {OURS}, mean over depths: {told}: the "
            f"latter {'hurts fewer' if low > 0 else 'does NOT hurt fewer for sure'}."
        )
    falls = []
    for less, more in itertools.pairwise(DEPTHS):
        _, high, told = _difference(at[more][MAIN] - at[less][MAIN])
        if high < 0:
            falls.append(f"{less} to {more} by {told}")
    means = ", ".join(f"{depth}: {values[MAIN].mean():.4f}" for depth, values in at.items())
    rate = np.mean([each.falling_rate(MAIN) for each in subject.free])
    report.note(
        f"{world.name}: {MAIN} of {OURS} by depth {means}; "
        + (f"it FALLS from {'; '.join(falls)}" if falls else "no fall between depths is sure")
        + f"; in {rate:.1%} of (query, k < k') pairs more feedback is worse."
    )


def _difference(values: np.ndarray) -> tuple[float, float, str]:
    """Return the interval of a mean over queries, and the mean with it in words."""
    interval = over_cases(values[:, None])
    low, high = float(interval.low[0]), float(interval.high[0])
    return low, high, f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def add_latency(report: Report, world: World, subjects: Mapping[str, NamedReformulator], rounds: int = 200) -> None:
    """Time one query's move at depth 5, round-robin over the subjects."""
    fold = world.folds[0]
    query = fold.test.query_vectors[:1]
    feedback = feedback_of(query, fold.test_items, fold.test.first.item_rows[:1, :5])
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, named in subjects.items():
            started = time.perf_counter()
            named.move(query, feedback)
            samples[name].append(1e6 * (time.perf_counter() - started))
    for name, times in samples.items():
        report.add({"data": world.name, "depth": 5, "queries": 1}, name, "move_us", times)


def bench(
    report: Report, world: World, tried: Mapping[str, tuple[str, ...]], seeds: int, work: Path, quick: bool
) -> None:
    """Train and measure all rows on a world; add the table, the verdicts and the time of a move.

    Args:
        report: gets rows and notes.
        world: the data.
        tried: further rows, with one seed.
        seeds: trainings of each learned row.
        work: where trained reformulators are kept.
        quick: a few steps.
    """
    found = {kind: judged(world, [[one] * len(world.folds)]) for kind, one in untrained().items()}
    first = untrained()
    for subject, settings in (LEARNED | tried).items():
        overrides = (*settings, *(QUICK if quick else ()))
        runs = range(1, (1 if subject in tried else seeds) + 1)
        trained = [reformulators(world, subject, overrides, seed, work) for seed in runs]
        for seed, facts in zip(runs, (one.facts for of_seed in trained for one in of_seed), strict=False):
            report.note(
                f"{world.name}: {subject}, seed {seed}: {facts['steps']} steps, {facts['share']:.0%} of the move; "
                f"queries that chose: {facts['original']:.4f} -> {facts['reached']:.4f}, "
                f"{'significant' if facts['is_significant'] else 'NOT significant, or with harm at some depth'}."
            )
        found[subject], first[subject] = judged(world, trained), trained[0][0]
        if subject == OURS:
            chosen = [reformulators(world, subject, overrides, seed, work, default=True) for seed in runs]
            found["default"] = judged(world, chosen)
            names = ", ".join(one.name for of_seed in chosen for one in of_seed)
            report.note(f"{world.name}: the default of a release, by seed: {names}.")
    cases = len(found[OURS].free[0].fell_back[0])
    learned = sum(len(fold.train) for fold in world.folds) // len(world.folds)
    report.note(f"{world.name}: {cases:,} test queries, {learned:,} to learn from and choose by. {world.notice}")
    add_rows(report, world, found)
    add_verdicts(report, world, found)
    add_latency(report, world, {name: first[name] for name in (*UNTRAINED, *LEARNED)})


def draw(report: Report, world: World, folder: Path, name: str) -> None:
    """Draw the main metric against depth, and against noise; note the plots."""
    figure = plots.figure(11, 4.5)
    axes = figure.subplots(1, 2)
    for axis, key, chosen in ((axes[0], "depth", {"guard": False}), (axes[1], "noise_rate", {"depth": NOISE_DEPTH})):
        rows = [
            row
            for row in report.rows
            if row.metric == MAIN
            and row.case["data"] == world.name
            and key in row.case
            and chosen.items() <= row.case.items()
        ]
        for subject in dict.fromkeys(row.subject for row in rows):
            mine = [row for row in rows if row.subject == subject]
            (line,) = axis.plot([row.case[key] for row in mine], [row.value for row in mine], marker="o", label=subject)
            low, high = ([getattr(row, end) for row in mine] for end in ("low", "high"))
            axis.fill_between([row.case[key] for row in mine], low, high, alpha=0.08, color=line.get_color())
        axis.set(xlabel=key, ylabel=MAIN, title=world.name)
    axes[0].legend(fontsize="x-small")
    file = folder / f"{name}-{world.name.replace(' ', '_')}.png"
    figure.savefig(file, dpi=110)
    report.note(f"Plot: [{file.name}]({file.name}).")


def main(
    data: Annotated[list[str], typer.Argument(help=f"Data sets: {', '.join(WORLDS)}; none means all.")] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each learned row.")] = 3,
    attempts: Annotated[bool, typer.Option(help="Also what was tried besides, on the first data set.")] = True,
    cost: Annotated[bool, typer.Option(help="Also what a call costs a caller, on a server with 100,000 items.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    work: Annotated[Path, typer.Option(help="Where trained reformulators are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare reformulators; write `<results>/reformulation.json`, `.md` and plots."""
    name = "reformulation-quick" if quick else "reformulation"
    report = Report(name, DISTRIBUTIONS)
    report.note(
        "Values are means over queries of each query's mean over seeds; intervals are bootstrap over queries. "
        "Rows are trained as `recsys reformulate train` trains, with its defaults but for what a row's name says. The "
        "number of steps and the share of the move are chosen by cross-fitting. `default` answers by what that command "
        "makes the default of a release after training `attention`. "
        f"`helped_rate`, `hurt_rate` and `robustness_index` go by {MAIN} against the original query. Reformulators "
        "train with up to 10 items of feedback, so depth 10 is no extrapolation (in `lol_k5` it is)."
    )
    work = work / name
    results.mkdir(parents=True, exist_ok=True)
    chosen = data or ([next(iter(WORLDS))] if quick else list(WORLDS))
    for asked in chosen:
        if asked not in WORLDS:
            raise typer.BadParameter(f"got {asked!r}, expected one of {', '.join(WORLDS)}")
        try:
            world = WORLDS[asked](work)
        except (MissingError, DataError) as error:
            report.note(f"{asked} was left out: {error}")
            continue
        tried = ATTEMPTS if asked == chosen[0] and attempts else {}
        bench(
            report,
            world,
            dict(itertools.islice(tried.items(), 1 if quick else None)),
            1 if quick else seeds,
            work,
            quick,
        )
        draw(report, world, results, name)
        report.write(results)  # after each data set, so that an interrupted benchmark has shown something
    if cost and not quick:
        add_cost(report)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
