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
import pyarrow as pa
import pyarrow.compute as pc
import typer

from benchmarks.reformulation_serving import add_cost
from benchmarks.report import RESULTS, Report, over_cases
from recsys import config, pipeline, plots, reformulation
from recsys.cli import one_message
from recsys.data.mined import Mined, read_if_whole
from recsys.errors import DataError, MissingError
from recsys.evaluation.reformulation import Curve, curve, first_results, simulated_explicit, with_noise
from recsys.export.query_side import load_roles
from recsys.reformulators import unit
from recsys.reformulators.average import Average
from recsys.reformulators.history import History
from recsys.reformulators.identity import Identity
from recsys.reformulators.rocchio import Rocchio
from recsys.retrieval.reformulation import NamedReformulator, Reformulators, feedback_of
from recsys.sources.text_collection import TextCollection
from recsys.types import ITEM_ID, QUERY_ID, Feedback, ItemRoles, RowSets

DISTRIBUTIONS = ("tensorflow", "numpy", "scipy")
WORK = Path("work") / "bench-reformulation"
METRICS = ("nDCG@10", "AP@100", "R@100")
MAIN = METRICS[0]
DEPTHS = (1, 2, 3, 4, 5, 10)
NOISE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
NOISE_DEPTH = 5
FIRST_K = 20
FOLDS = 5
AS_GOOD = -0.005
"""How far a lower 95 % bound of a gain may lie below zero for 'as good as the original query'."""

UNTRAINED = {"identity": Identity(), "average": Average(), "history": History(), "rocchio": Rocchio()}
LOL, PAPER = "attention_lol", "attention_lol_paper"
LEARNED: dict[str, tuple[str, ...]] = {
    "linear_feedback": ("reformulator.kind='linear_feedback'", "learning_rate=0.01"),
    # The same three revisions a query: one in each of three times the epochs, or together without comparing them.
    "attention": ("revisions=1", "epochs={thrice}"),
    "attention_parallel": ("revisions=3", "objective.weight=0"),
    LOL: ("revisions=3",),
    PAPER: ("revisions=2",),
}
"""Trained rows; the last has the paper's two revisions of a query in a step."""
ATTEMPTS: dict[str, tuple[str, ...]] = {
    "lol_3_stop_gradient": ("revisions=3", "objective.stop_gradient=true"),
    "lol_stop_gradient": ("objective.stop_gradient=true",),
    "lol_margin": ("objective.margin=0.05",),
    "lol_independent": ("nested=false",),
    "lol_ranked": ("order='ranked'",),
    "lol_weight_3": ("objective.weight=3",),
    "lol_hardest": ("objective.positives='hardest'",),
    "lol_drop": ("answers='drop'",),
    "lol_mask": ("answers='mask'",),
    "lol_noise": ("noise_rate=0.2",),
    "lol_k5": ("feedback_k=5",),
    "lol_60_epochs": ("epochs=60", "patience=0"),
    "lol_unshortened": ("only_sure=false",),
}
"""What was tried besides, on the first data set, one seed each: `attention_lol_paper` with something else."""

TEXT = ("epochs=20", "batch_size=128", "learning_rate=0.0007", "patience=6")
RECOMMENDATION = ("epochs=10", "learning_rate=0.0005", "patience=4")
CHOICES = (
    ("objective.temperature=0.05", "objective.temperature=0.1"),
    ("order='shuffled'", "order='ranked'"),
    ("reformulator.residual=true", "reformulator.residual=false"),
)
"""Temperature of the loss, order of the feedback in training, and whether there is a learned rest."""
DONE = "done"
QUICK = ("epochs=1", "patience=0")


@dataclass(frozen=True)
class Fold:
    """Queries to learn from, and others to judge with.

    Attributes:
        train: the former.
        train_items: what they are searched in.
        test: the latter.
        test_items: what these are searched in: another collection's, where a reformulator is transferred.
        feedback: what the test queries' askers said; None for pseudo feedback.
        choose: further queries in the same items, which choose the settings, the epoch, how far queries move and the
            guard; None takes some of the former.
    """

    train: Mined
    train_items: ItemRoles
    test: Mined
    test_items: ItemRoles
    feedback: Feedback | None = None
    choose: Mined | None = None

    def halves(self, rate: float, seed: int) -> tuple[Mined, Mined]:
        """Return the queries to learn from and those to choose by: a share of the former where there are no others."""
        return self.train.halves(rate, seed) if self.choose is None else (self.train, self.choose)


@dataclass(frozen=True)
class World:
    """One data set as reformulators meet it.

    Attributes:
        name: in the results.
        folds: one, or several whose test queries are judged together.
        settings: overrides of the `reformulation` section.
        notice: what must be said of the data.
        choices: what is settled for each row by itself, one after the other, each with what was settled before it.
    """

    name: str
    folds: tuple[Fold, ...]
    settings: tuple[str, ...]
    notice: str = ""
    choices: tuple[tuple[str, ...], ...] = CHOICES


def text(collection: str, split: str = "all") -> tuple[Mined, ItemRoles, str]:
    """Return the judged queries of a collection's split with their first results, the documents, a notice."""
    raw = TextCollection(collection=collection, split=split).read()
    items, queries = (np.stack(table["embedding"].to_numpy()).astype(np.float32) for table in (raw.items, raw.queries))
    items, queries = unit(items), unit(queries)
    judged = pa.Table.from_batches(list(raw.interactions()))
    places = pa.table(
        {
            name: pc.index_in(judged[name], value_set=table[name].combine_chunks())
            for name, table in ((QUERY_ID, raw.queries), (ITEM_ID, raw.items))
        }
    ).drop_null()  # a judgement of a text that the collection does not hold
    asked, owner = np.unique(places[QUERY_ID].to_numpy(), return_inverse=True)
    relevant, nothing = RowSets.from_pairs(owner, places[ITEM_ID].to_numpy(), len(asked)), RowSets.empty(len(asked))
    first = first_results(queries[asked], items, nothing, FIRST_K)
    ids = raw.queries[QUERY_ID].combine_chunks().take(pa.array(asked))
    facts = {"collection": collection, "split": split}
    mined = Mined(ids, queries[asked], np.ones(len(asked), np.float32), first, relevant, nothing, facts)
    return mined, ItemRoles.shared(items), raw.notice


def split_collection(collection: str, choose: str = "") -> World:
    """Return a collection with training queries, and perhaps a split to choose by."""
    train, vectors, notice = text(collection, "train")
    test, _, _ = text(collection, "test")
    chosen = text(collection, choose)[0] if choose else None
    return World(collection, (Fold(train, vectors, test, vectors, choose=chosen),), TEXT, notice)


def folded_collection(collection: str) -> World:
    """Return a collection without training queries: each fold learns from the others."""
    everything, vectors, notice = text(collection)
    part = np.random.default_rng([0, 16]).permutation(len(everything)) % FOLDS
    folds = [
        Fold(
            everything.take(np.flatnonzero(part != fold)),
            vectors,
            everything.take(np.flatnonzero(part == fold)),
            vectors,
        )
        for fold in range(FOLDS)
    ]
    return World(collection, tuple(folds), TEXT, notice)


def transferred(source: str, target: str) -> World:
    """Return a collection whose reformulator has learned on another one, which has a split to choose by."""
    train, train_vectors, _ = text(source, "train")
    test, test_vectors, notice = text(target)
    fold = Fold(train, train_vectors, test, test_vectors, choose=text(source, "dev")[0])
    return World(f"{source} to {target}", (fold,), TEXT, notice)


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
    settled = config.load(run, [*TOWERS[run], "evaluation.baselines=[]", "index.kind='brute_force'"])
    release = pipeline.train(settled, work / "towers", work / "releases")
    items = load_roles(release)
    parts = {}
    for part in ("validation", "test"):
        out = work / f"{run}-{part}-{release.fingerprint[:12]}.arrow"
        asked = {"part": part, "k": FIRST_K, "work": work / "towers"}
        parts[part] = read_if_whole(out) or reformulation.mine(release, settled, out=out, **asked)
    test, feedback = parts["test"], None
    if explicit:
        test, feedback = simulated_explicit(test, items, given=max(DEPTHS), disliked_rate=0.25, seed=0)
    settings = (*RECOMMENDATION, f"explicit_rate={1.0 if explicit else 0.0}")
    fold = Fold(parts["validation"], items, test, items, feedback)
    return World(name, (fold,), settings, release.facts.notice, CHOICES[:1])  # thousands of queries: trials are dear


WORLDS: Mapping[str, Callable[[Path], World]] = {
    "nfcorpus": lambda work: split_collection("nfcorpus", "dev"),
    "scifact": lambda work: split_collection("scifact"),
    "vaswani": lambda work: folded_collection("vaswani"),
    "cranfield": lambda work: folded_collection("cranfield"),
    "nfcorpus to vaswani": lambda work: transferred("nfcorpus", "vaswani"),
    "nfcorpus to cranfield": lambda work: transferred("nfcorpus", "cranfield"),
    "ml-1m": lambda work: recommendations("ml-1m", "enriched_movielens", work, explicit=False),
    "ml-1m explicit": lambda work: recommendations("ml-1m explicit", "enriched_movielens", work, explicit=True),
    "complete_journey": lambda work: recommendations("complete_journey", "complete_journey", work, explicit=False),
    "complete_journey explicit": lambda work: recommendations(
        "complete_journey explicit", "complete_journey", work, explicit=True
    ),
}


def reformulators(
    world: World, subject: str, overrides: Sequence[str], seed: int, work: Path
) -> tuple[list[NamedReformulator], float]:
    """Return one trained reformulator for each fold, and the mean of what they reach; trained ones are read."""
    told = [f"reformulation.{each}" for each in (*world.settings, *overrides)]
    run = config.load("wikispeedia", _tripled(told))
    named = []
    for fold in world.folds:
        decide = [
            config.plain_tables(run)["reformulation"],
            seed,
            dict(fold.train.facts),
            fold.train.case_ids.to_pylist(),
            fold.choose.case_ids.to_pylist() if fold.choose else None,
        ]
        digest = hashlib.sha256(json.dumps(decide, sort_keys=True).encode()).hexdigest()[:12]
        home = work / "trained" / f"{subject}-{seed}-{digest}"
        if not (home / DONE).exists():
            home.mkdir(parents=True, exist_ok=True)
            fitted = reformulation.fitted(
                *fold.halves(run.reformulation.validation_rate, seed),
                fold.train_items,
                run.reformulation,
                name=subject,
                seed=seed,
                folder=home / "training",
            )
            fitted.save(home, default=False)
            (home / DONE).touch()
        named.append(Reformulators.load(home).get(subject))
    return named, float(np.mean([one.facts["reached"] for one in named]))


def tuned(
    world: World,
    subject: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    choices: Sequence[Sequence[str]],
    work: Path,
) -> tuple[list[list[NamedReformulator]], tuple[str, ...]]:
    """Return a row's reformulators for each seed, and the settings that they were trained with.

    Choices are settled one after the other, by what the first seed's reformulators reach on the queries that choose.
    """
    settled: tuple[str, ...] = ()
    for alternatives in choices:
        looks = {}
        for each in alternatives:
            _, looks[each] = reformulators(world, subject, (*settled, each, *overrides), seeds[0], work)
            print(f"{world.name}: {subject}, {', '.join((*settled, each))}: {looks[each]:.4f}", flush=True)
        settled = (*settled, max(looks, key=looks.__getitem__))
    return [reformulators(world, subject, (*settled, *overrides), seed, work)[0] for seed in seeds], settled


def _tripled(overrides: Sequence[str]) -> list[str]:
    """Return overrides with `{thrice}` replaced by three times the epochs set before it."""
    set_before = [each.rpartition("=")[2] for each in overrides if each.startswith("reformulation.epochs=")]
    epochs = [int(value) for value in set_before if value.isdigit()]
    return [each.replace("{thrice}", str(3 * epochs[-1])) for each in overrides]


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
        free.append(_pooled(curves))
        guarded.append(_pooled([found.under(one.guard) for found, (one, _) in zip(curves, pairs, strict=True)]))
        noisy.append(
            {rate: np.concatenate([_with_noise(one, fold, rate) for one, fold in pairs]) for rate in NOISE}
            if world.folds[0].feedback is None
            else {}
        )
    return Judged(tuple(free), tuple(guarded), tuple(noisy))


def _pooled(curves: Sequence[Curve]) -> Curve:
    first = curves[0]
    values = {name: np.concatenate([each.values[name] for each in curves], axis=1) for name in first.values}
    joined = (np.concatenate([getattr(each, name) for each in curves], axis=1) for name in ("fell_back", "of_moves"))
    return Curve(first.depths, values, *joined)


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
    lol = found[LOL]
    at = {depth: lol.columns(depth) for depth in DEPTHS}
    best, best_depth, best_values = max(
        ((name, depth, found[name].columns(depth)[MAIN]) for name in UNTRAINED for depth in (0, *DEPTHS)),
        key=lambda entry: entry[2].mean(),
    )
    for depth in (5, 10):
        low, _, told = _difference(at[depth][MAIN] - best_values)
        report.note(
            f"{world.name}: {LOL} at depth {depth} against the best untrained of all depths ({best}, {best_depth}): "
            f"{MAIN} {told}: {'beats it' if low > 0 else 'does NOT beat it for sure'}."
        )
    for depth in DEPTHS:
        low, _, told = _difference(at[depth][f"{MAIN}_gain"])
        if low <= AS_GOOD:
            report.note(f"{world.name}: NOT as good as the original query at depth {depth}: {MAIN} {told}.")
    for other in ("attention", "attention_parallel", PAPER):
        fewer = np.mean([found[other].columns(depth)["hurt_rate"] - at[depth]["hurt_rate"] for depth in DEPTHS], axis=0)
        low, _, told = _difference(fewer)
        report.note(
            f"{world.name}: share of queries that {other} hurts minus that of {LOL}, mean over depths: {told}: the "
            f"latter {'hurts fewer' if low > 0 else 'does NOT hurt fewer for sure'}."
        )
    falls = []
    for less, more in itertools.pairwise(DEPTHS):
        _, high, told = _difference(at[more][MAIN] - at[less][MAIN])
        if high < 0:
            falls.append(f"{less} to {more} by {told}")
    means = ", ".join(f"{depth}: {values[MAIN].mean():.4f}" for depth, values in at.items())
    rate = np.mean([each.falling_rate(MAIN) for each in lol.free])
    report.note(
        f"{world.name}: {MAIN} of {LOL} by depth {means}; "
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
        tried: further rows, with one seed and the settings of `attention_lol_paper`.
        seeds: trainings of each learned row; where there are several folds, each is trained on once.
        work: where trained reformulators are kept.
        quick: nothing is settled, and one epoch.
    """
    seeds = 1 if len(world.folds) > 1 else seeds
    untrained = {kind: NamedReformulator(kind, choice) for kind, choice in UNTRAINED.items()}
    found = {kind: judged(world, [[one] * len(world.folds)]) for kind, one in untrained.items()}
    first = dict(untrained)
    choices = [alternatives[: 1 if quick else None] for alternatives in world.choices]
    for subject, settings in (LEARNED | tried).items():
        overrides = (*settings, *(QUICK if quick else ()))
        runs = range(1, (1 if subject in tried else seeds) + 1)
        # Settings of attention are not those of another reformulator.
        other = any(each.startswith("reformulator.kind=") for each in settings)
        asked = [each for each in choices if not (other and each[0].startswith("reformulator."))]
        trained, settled = tuned(world, subject, overrides, runs, asked, work)
        if subject == PAPER:
            choices = [[each] for each in settled]  # for what was tried besides, which comes after it
        shares = [one.facts["share"] for of_seed in trained for one in of_seed]
        report.note(
            f"{world.name}: {subject} trained with {', '.join(settled)}; share of its moves that is sure to help, by "
            f"seed and fold: {', '.join(f'{share:g}' for share in shares)}."
        )
        found[subject], first[subject] = judged(world, trained), trained[0][0]
    cases = len(found[LOL].free[0].fell_back[0])
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
        "Temperature, and on texts order of the feedback in training and residual, are settled one after the other on "
        "queries that the training has not seen, for each row by itself with as many trials; what was tried besides "
        "has those of attention_lol_paper, and one seed, as have collections in folds. Queries move only as far as the "
        "same queries are sure to gain by (`only_sure`). "
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
