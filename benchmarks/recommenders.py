"""Our models beside recommenders of other kinds: the same data, the same test cases, settings chosen on validation.

Each of our models is a run file that `recsys train` trains as it does for everybody: settings are chosen on the
validation cases, then everything is fitted to the training and the validation part. The peers get the same parts, and
a search of their own. Each seed is another split of the data. What is found on each data set becomes
`results/recommenders-<data>.json` and a table; finished trainings are kept below the work folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from benchmarks.peers import ranking
from benchmarks.report import RESULTS, Report
from recsys import config, registry
from recsys.baselines import Baseline
from recsys.baselines.dlae import Dlae
from recsys.baselines.ease import Ease
from recsys.baselines.ials import Ials
from recsys.baselines.item_knn import ItemKnn
from recsys.baselines.popularity import Popularity
from recsys.cli import one_message
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare
from recsys.evaluation import report as evaluation
from recsys.evaluation.baselines import choose, recommender
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.intervals import bootstrap_means
from recsys.evaluation.recommenders import Recommender, VectorRecommender
from recsys.evaluation.report import OURS, EvaluationReport
from recsys.evaluation.slices import ALL
from recsys.features import Encoder
from recsys.types import Int32
from twintower.errors import TwintowerError

DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy", "scipy", "implicit")
WORK = Path("work") / "bench-recommenders"
METRICS = ("nDCG@20", "R@20", "AP@10", "AP@50", "R@10", "R@50")
CHOSEN_BY = METRICS[0]
SEEDS = (1, 2, 3)
SEARCH_S = 600.0
"""Time of a peer's search on the validation cases, at most."""
LIBRECOMMENDER = "librecommender"
CASES = "cases.parquet"
FACTS = "facts.json"

Tables = Mapping[str, Any]
"""Sections of a run file, each instead of the section of the same name; None leaves it out, so that defaults count."""


@dataclass(frozen=True)
class Bar:
    """What our models must reach on one data set.

    Attributes:
        margin: how far below the best peer a metric may be, at most.
        above: how many metrics must be above the best peer's, at least.
        significant: metrics whose paired difference to `rival` has an interval above zero.
        rival: the peer of `significant`.
        cpu_s: seconds of processor time that training may take, which do not depend on what else the machine does; 0
            for no bound.
    """

    margin: float
    above: int
    significant: tuple[str, ...] = ()
    rival: str = "ease"
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is compared on one data set.

    Attributes:
        run: a run file, or the name of one that comes with the package.
        models: our models by name, as sections of the run file.
        peers: recommenders of other kinds, with the settings to try.
        librecommender: settings of LibRecommender's two-tower to try; none leaves it out.
        bar: what each of our models is held to.
    """

    run: str
    models: Mapping[str, Tables]
    peers: Mapping[str, Baseline]
    librecommender: Sequence[ranking.RankingSettings]
    bar: Bar


@dataclass(frozen=True)
class Outcome:
    """What one recommender reached on the test cases of one split.

    Attributes:
        cases: one row a case: `case_id`, and a column for each metric.
        words: which settings were chosen, and how.
        train_s: wall seconds from data to release, evaluation included; NaN for peers.
        cpu_s: seconds of processor time behind it; NaN for peers.
    """

    cases: pa.Table
    words: str
    train_s: float = float("nan")
    cpu_s: float = float("nan")

    def save(self, folder: Path) -> None:
        """Write it where `load` finds it."""
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.cases, folder / CASES)
        facts = {"words": self.words, "train_s": self.train_s, "cpu_s": self.cpu_s}
        (folder / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Outcome | None:
        """Return what `save` wrote; None where it is not there."""
        if not (folder / FACTS).is_file():
            return None
        return Outcome(pq.read_table(folder / CASES), **json.loads((folder / FACTS).read_text(encoding="utf-8")))


BySeed = Mapping[int, Outcome]


def bag(objective: str, dim: int | str, *, dropout_rate: float = 0.0, **settings: Any) -> Tables:
    """Return a model whose query is the sum over all that was met, with a vector for each item and nothing else."""
    history = {"kind": "history", "shared": False, "pooling": "sum", "dropout_rate": dropout_rate}
    width = {} if dim == "auto" else {"width": dim}
    return {
        "query.features": {"met": history | width},
        "item.features": {"id": {"kind": "id"} | width},
        "tower": {"kind": "sum", "dim": dim},
        "objective": {"kind": objective, **settings},
        "training": {"validation_metric": CHOSEN_BY},
    }


def with_features(tables: Tables, query: Mapping[str, Any], item: Mapping[str, Any]) -> Tables:
    """Return a model with further features on both sides."""
    return {
        **tables,
        "query.features": {**tables["query.features"], **query},
        "item.features": {**tables["item.features"], **item},
    }


DEFAULTS = {"tower": None, "objective": None, "training": None}


def models_of(query: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Tables]:
    """Return our models for data with some features on both sides, by name."""
    trained = bag("all_items", 256, dropout_rate=0.65)
    started = bag("all_items", 512, dropout_rate=0.5, start="dlae", unobserved_weight=1.0)
    started["training"] |= {"learning_rate": 5e-5, "epochs": 4}
    return {
        "two_tower_defaults": DEFAULTS,
        "two_tower_dlae": bag("dlae", "auto"),
        "two_tower_dlae_features": with_features(bag("dlae", "auto"), query, item),
        "two_tower_ease": bag("ease", "auto"),
        "two_tower_all_items": trained,
        "two_tower_features": with_features(started, query, item),
    }


PEERS = {
    "popularity": Popularity(),
    "item_knn": ItemKnn(),
    "ials": Ials(),
    "ease": Ease(regularization_weight=(250.0, 20.0, 60.0, 100.0, 500.0, 750.0)),
    "dlae": Dlae(dropout_rate=(0.5, 0.3), regularization_weight=(10.0, 50.0, 200.0, 800.0)),
}
FILM_FEATURES = {
    "genres": {"kind": "multi_categorical", "max_values": 6},
    "year": {"kind": "categorical"},
    "director": {"kind": "multi_categorical", "max_values": 2},
    "actors": {"kind": "multi_categorical", "max_values": 4},
}
VIEWER_FEATURES = {name: {"kind": "categorical"} for name in ("gender", "age", "occupation")}
ARTICLE_FEATURES = {
    **{name: {"kind": "multi_categorical", "max_values": 4} for name in ("cat_l1", "cat_l2", "cat_l3")},
    "title": {"kind": "text", "buckets": 10_000, "max_terms": 8},
    "lead": {"kind": "text", "max_terms": 24},
}
PLANS = {
    "ml-1m": Plan(
        "enriched_movielens",
        models_of(VIEWER_FEATURES, FILM_FEATURES),
        PEERS,
        tuple(ranking.RankingSettings(hidden=(256,), epochs=epochs, temperature=0.1) for epochs in (5, 10)),
        Bar(margin=0.002, above=2, cpu_s=180),
    ),
    "wikispeedia": Plan(
        "wikispeedia",
        models_of(ARTICLE_FEATURES, ARTICLE_FEATURES),
        PEERS,
        tuple(ranking.RankingSettings(hidden=(256,), epochs=epochs) for epochs in (5, 10, 20)),
        Bar(margin=0.0, above=6, significant=("nDCG@20", "R@20")),
    ),
}


def run_of(plan: Plan, tables: Tables, seed: int, name: str = "") -> Run:
    """Return the run of a model: the plan's, with a split and a training by the seed, and sections replaced."""
    changed = config.tables_of(plan.run) | {"seed": seed}
    for path, table in tables.items():
        *parents, last = path.split(".")
        place = changed
        for part in parents:
            place = place.setdefault(part, {})
        if table is None:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(table)
    changed["evaluation"] = {
        **changed.get("evaluation", {}),
        "metrics": list(METRICS),
        "baselines": ["popularity"],
    }
    changed["name"] = name or "peers"
    return config.from_tables(changed)


def our_outcome(plan: Plan, name: str, seed: int, work: Path) -> Outcome:
    """Train one of our models as `recsys train` does, in a process of its own, and return its test figures."""
    digest = hashlib.sha256(json.dumps([plan.run, plan.models[name]], sort_keys=True).encode()).hexdigest()[:8]
    run = run_of(plan, plan.models[name], seed, f"{name}-{seed}-{digest}")
    home = work / run.name
    home.mkdir(parents=True, exist_ok=True)
    file = home / "model.toml"
    file.write_text(config.dumps(run), encoding="utf-8")
    command = [sys.executable, "-m", "recsys.cli", "train", str(file)]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    folders = ["--work", str(work), "--releases", str(work / "releases")]
    if subprocess.run([*command, *folders], stdout=subprocess.DEVNULL).returncode != 0:
        raise TwintowerError(f"{name}, seed {seed}: training failed; the lines above say why.")
    train_s, spent = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    folder, _digest = (home / "published").read_text(encoding="utf-8").splitlines()
    report = evaluation.load(Path(folder))
    return Outcome(_all_cases(report.case_values_of(OURS)), _words(report), train_s, cpu_s)


def _words(report: EvaluationReport) -> str:
    fit = report.fits[OURS]
    settings = "".join(f", {name} = {value}" for name, value in fit.settings.items())
    return f"fitted on {' and '.join(fit.parts)}{settings}"


def peer_outcome(plan: Plan, name: str, seed: int, work: Path) -> Outcome:
    """Return the test figures of a peer with the settings that are best on the validation cases."""
    run = run_of(plan, {}, seed)
    prepared = prepare(run, work / f"prepared-{seed}")
    validation, test = (held_out(run, prepared, part, run.evaluation.max_cases) for part in ("validation", "test"))
    if name == LIBRECOMMENDER:
        return _librecommender(plan, run, prepared, validation, test, work / f"{name}-{seed}")
    choice = choose(plan.peers[name], validation, CHOSEN_BY, SEARCH_S)
    judged = _judged(run, {name: recommender(choice.baseline, test)}, test)
    return Outcome(judged[name], f"{choice.baseline}, of {choice.tried} settings tried")


def _librecommender(
    plan: Plan, run: Run, prepared: Prepared, validation: HeldOut, test: HeldOut, folder: Path
) -> Outcome:
    def vectors(settings: ranking.RankingSettings, *parts: str) -> tuple[np.ndarray, np.ndarray]:
        return ranking.librecommender_vectors(
            folder,
            prepared.until(*parts),
            _integer_codes(prepared.item_encoders, prepared.item_codes),
            _integer_codes(prepared.query_encoders, prepared.query_codes),
            settings,
            item_count=prepared.item_count,
            query_count=prepared.query_count,
        )

    def judged(found: tuple[np.ndarray, np.ndarray], part: HeldOut) -> pa.Table:
        queries, items = found
        return _judged(run, {"": VectorRecommender(queries[part.query_rows], items, part.cases.excluded)}, part)[""]

    tried = [replace(each, seed=run.seed) for each in plan.librecommender]
    looks = [judged(vectors(each, "train"), validation)[CHOSEN_BY].to_numpy().mean() for each in tried]
    best = tried[int(np.argmax(looks))]
    return Outcome(judged(vectors(best, "train", "validation"), test), f"{best}, of {len(tried)} settings tried")


def _integer_codes(encoders: Mapping[str, Encoder], codes: Mapping[str, np.ndarray]) -> dict[str, Int32]:
    """Return the codes of categorical features and bags; ids go to the peer as rows, a history has no codes."""
    return {
        name: np.asarray(array)
        for name, array in codes.items()
        if array.dtype == np.int32 and registry.kind_of(encoders[name].settings) != "id"
    }


def _judged(run: Run, recommenders: Mapping[str, Recommender], part: HeldOut) -> dict[str, pa.Table]:
    report = evaluation.evaluate(
        recommenders, part.cases, METRICS, confidence=run.evaluation.confidence, resamples=100, seed=run.seed
    )
    return {name: _all_cases(report.case_values_of(name)) for name in recommenders}


def _all_cases(values: pa.Table) -> pa.Table:
    """Return the rows of the slice of all cases, by case."""
    return values.filter(pc.equal(values["slice"], ALL)).select(["case_id", *METRICS]).sort_by("case_id")


@dataclass(frozen=True)
class Compared:
    """All outcomes on one data set; two recommenders are compared on the seeds that both have.

    Attributes:
        ours: our models by name, an outcome by seed.
        peers: the peers by name, in the same form.
        bar: what each of our models is held to.
    """

    ours: Mapping[str, BySeed]
    peers: Mapping[str, BySeed]
    bar: Bar

    def add_to(self, report: Report) -> None:
        """Add medians over the seeds, paired differences to each peer, training times and the verdict on the bar."""
        for name, outcomes in {**self.peers, **self.ours}.items():
            low, high = _interval(_by_case(list(outcomes.values())))
            for place, metric in enumerate(METRICS):
                value = median(outcomes, metric)
                report.add_interval({"slice": "all"}, name, metric, value, low[place], high[place], len(outcomes))
        for (name, ours), (peer, theirs) in (
            (mine, other) for mine in self.ours.items() for other in self.peers.items()
        ):
            both = ours.keys() & theirs.keys()
            if not both:
                continue
            mean, low, high = difference(ours, theirs)
            for place, metric in enumerate(METRICS):
                case = {"difference to": peer}
                report.add_interval(case, name, metric, mean[place], low[place], high[place], len(both))
        for name, outcomes in self.ours.items():
            report.add({"cost of": "training"}, name, "train_s", [outcome.train_s for outcome in outcomes.values()])
            report.add({"cost of": "training"}, name, "cpu_s", [outcome.cpu_s for outcome in outcomes.values()])
        for sentence in self.sentences():
            report.note(sentence)
        for name, outcomes in {**self.peers, **self.ours}.items():
            words = " / ".join(dict.fromkeys(outcome.words for outcome in outcomes.values()))
            report.note(f"{name}, seeds {', '.join(map(str, outcomes))}: {words}.")

    def sentences(self) -> Iterator[str]:
        """Yield for each of our models whether it meets the bar and what it loses, in words."""
        for name, ours in self.ours.items():
            misses = list(self.misses(ours))
            yield f"Bar met by {name}." if not misses else f"Bar MISSED by {name}: {'; '.join(misses)}."
            losses = list(self.losses(ours))
            yield f"{name} loses {'; '.join(losses)}." if losses else f"{name} loses to no peer in any metric."

    def losses(self, ours: BySeed) -> Iterator[str]:
        """Yield for each peer that is ahead of one of our models by how much, and in which metrics."""
        for peer, theirs in self._comparable(ours).items():
            behind = [
                f"{metric} {value:+.4f} [{low:+.4f}, {high:+.4f}]"
                for metric, value, low, high in zip(METRICS, *difference(ours, theirs), strict=True)
                if value < 0
            ]
            if behind:
                yield f"to {peer}: {', '.join(behind)}"

    def misses(self, ours: BySeed) -> Iterator[str]:
        """Yield what one of our models lacks to meet the bar."""
        peers = self._comparable(ours)
        if not peers:
            yield "no peer was measured"
            return
        above = 0
        for metric in METRICS:
            peer, best = max(
                ((name, median(theirs, metric)) for name, theirs in peers.items()), key=lambda pair: pair[1]
            )
            value = median(ours, metric)
            above += value > best
            if value < best - self.bar.margin:
                yield f"{metric} {value:.4f} is {best - value:.4f} below {peer}, {self.bar.margin:g} are allowed"
        if above < self.bar.above:
            yield f"{above} of {len(METRICS)} metrics are above every peer, {self.bar.above} are needed"
        if self.bar.rival in peers:
            _, low, _ = difference(ours, peers[self.bar.rival])
            for metric in self.bar.significant:
                if (bound := low[METRICS.index(metric)]) <= 0:
                    yield f"the interval of {metric} minus {self.bar.rival}'s begins at {bound:+.4f}"
        cpu_s = float(np.median([outcome.cpu_s for outcome in ours.values()]))
        if 0 < self.bar.cpu_s < cpu_s:
            yield f"training takes {cpu_s:.0f} s of processor time, {self.bar.cpu_s:.0f} are allowed"

    def _comparable(self, ours: BySeed) -> dict[str, BySeed]:
        """Return the peers that have all seeds of one of our models, each with those alone."""
        return {
            name: {seed: theirs[seed] for seed in ours}
            for name, theirs in self.peers.items()
            if ours.keys() <= theirs.keys()
        }


def median(outcomes: BySeed, metric: str) -> float:
    """Return the median over the seeds of a metric's mean over the cases."""
    return float(np.median([outcome.cases[metric].to_numpy().mean() for outcome in outcomes.values()]))


def difference(ours: BySeed, theirs: BySeed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean difference of each metric with the bounds of its paired 95 % interval.

    Case by case within each seed that both have, then the mean over the seeds for each query entity, which is what is
    drawn.
    """
    both = sorted(ours.keys() & theirs.keys())
    differences = _by_case([ours[seed] for seed in both]) - _by_case([theirs[seed] for seed in both])
    return (differences.mean(axis=0), *_interval(differences))


def _by_case(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Return each metric by query entity, its mean over the seeds in which it has a case, `[entities, metrics]`."""
    ids = np.concatenate([outcome.cases["case_id"].to_numpy(zero_copy_only=False) for outcome in outcomes])
    values = np.concatenate(
        [np.column_stack([outcome.cases[name].to_numpy() for name in METRICS]) for outcome in outcomes]
    )
    _, entity = np.unique(ids.astype(str), return_inverse=True)
    sums = np.zeros((entity.max() + 1, len(METRICS)))
    np.add.at(sums, entity, values)
    return sums / np.bincount(entity)[:, None]


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    interval = bootstrap_means(values, confidence=0.95, resamples=1000, seed=0)
    return interval.low, interval.high


def bench(
    plan: Plan,
    name: str,
    work: Path,
    results: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    only: Sequence[str] = (),
    finished: bool = False,
) -> Compared:
    """Compare on one data set and write the results.

    Args:
        plan: what is compared.
        name: of the results, and of the folder of finished trainings below `work`.
        work: keeps what is done, so that an interrupted benchmark goes on where it was.
        results: folder of the results.
        seeds: of splits and trainings.
        only: our models and peers to compare; none means all.
        finished: whether to train and fit nothing, and compare what is done; what has no seed is left out.
    """
    report, home = Report(name, DISTRIBUTIONS), work / name
    settings = {**plan.models, **plan.peers} | ({LIBRECOMMENDER: plan.librecommender} if plan.librecommender else {})
    if unknown := set(only) - settings.keys():
        raise typer.BadParameter(f"--only: got {sorted(unknown)[0]!r}, expected one of {', '.join(settings)}")
    outcomes: dict[str, dict[int, Outcome]] = {}
    for subject, tried in settings.items():
        if only and subject not in only:
            continue
        try:
            by_seed = {seed: _outcome(plan, subject, tried, seed, home, finished=finished) for seed in seeds}
        except (subprocess.CalledProcessError, TwintowerError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip()[-300:]
            report.note(f"{subject} was left out: {reason}")
            continue
        if found := {seed: outcome for seed, outcome in by_seed.items() if outcome is not None}:
            outcomes[subject] = found
        else:
            report.note(f"{subject} was left out: no seed of it is finished.")
    ours = {each: found for each, found in outcomes.items() if each in plan.models}
    peers = {each: found for each, found in outcomes.items() if each not in plan.models}
    compared = Compared(ours, peers, plan.bar)
    compared.add_to(report)
    print(report.write(results).read_text(encoding="utf-8"))
    return compared


def _outcome(plan: Plan, subject: str, tried: Any, seed: int, home: Path, *, finished: bool) -> Outcome | None:
    """Return what a model or a peer reaches with a seed, from the work folder where it was measured before.

    With `finished` that alone: None where it was not.
    """
    digest = hashlib.sha256(repr([plan.run, tried]).encode()).hexdigest()[:8]
    folder = home / "outcomes" / f"{subject}-{seed}-{digest}"
    if (outcome := Outcome.load(folder)) is None and finished:
        return None
    if outcome is None:
        if subject in plan.models:
            outcome = our_outcome(plan, subject, seed, home)
        else:
            outcome = peer_outcome(plan, subject, seed, home)
        outcome.save(folder)
    print(f"{subject}, seed {seed}: {CHOSEN_BY} {median({seed: outcome}, CHOSEN_BY):.4f}", flush=True)
    return outcome


def rehearsal(plan: Plan) -> Plan:
    """Return a plan of minutes, whose figures mean nothing."""
    short = {**bag("all_items", 16), "training": {"epochs": 1, "optimizer": "adam", "learning_rate": 0.001}}
    models = {"two_tower_dlae": bag("dlae", 8), "two_tower_all_items": short}
    return replace(plan, models=models, peers={"popularity": Popularity(), "ease": Ease((50.0,))}, librecommender=())


def main(
    data: Annotated[list[str], typer.Argument(help=f"Data sets: {', '.join(PLANS)}; none means all.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    only: Annotated[list[str], typer.Option(help="A model or peer to compare; repeatable. Default: all.")] = [],  # noqa: B006
    seeds: Annotated[list[int], typer.Option("--seed", help="Of a split and its trainings; repeatable.")] = list(SEEDS),  # noqa: B006
    finished: Annotated[bool, typer.Option("--finished", help="Train and fit nothing; compare what is done.")] = False,
    work: Annotated[Path, typer.Option(help="Where finished trainings are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare recommenders on public data; LibRecommender gets an environment of its own, of 6 GB."""
    for name in data or PLANS:
        if name not in PLANS:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(PLANS)}")
        plan = rehearsal(PLANS[name]) if quick else PLANS[name]
        title = f"recommenders-{name}-quick" if quick else f"recommenders-{name}"
        bench(plan, title, work, results, seeds=seeds[:1] if quick else seeds, only=only, finished=finished)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
