"""Our two-tower beside recommenders of other kinds, each tuned on validation cases, all on the same test cases.

What is found on each data set becomes `results/recommenders-<data>.json` and a table. Trained two-towers are kept below
the work folder, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.peers import ranking
from benchmarks.report import RESULTS, Report
from benchmarks.ssl import BOTH, METRICS, REHEARSAL, search, variants
from recsys import config, registry
from recsys.ablation.ablate import ablate
from recsys.ablation.cells import asked
from recsys.ablation.tables import Ablation
from recsys.baselines import Baseline, Histories
from recsys.baselines.ease import Ease
from recsys.baselines.ials import Ials
from recsys.baselines.item_knn import ItemKnn
from recsys.baselines.popularity import Popularity
from recsys.cli import one_message
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare
from recsys.errors import SettingError
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.recommenders import Recommender, ScoreRecommender, VectorRecommender
from recsys.features import Encoder
from recsys.metrics.ranking import measure, parse
from recsys.types import Int32

DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy", "scipy", "implicit")
WORK = Path("work") / "bench-recommenders"
PREFIX = "two_tower_"
"""Stands before our rows."""

Peer = Baseline | ranking.RankingSettings
CLASSIC: dict[str, tuple[Peer, ...]] = {
    "popularity": (Popularity(),),
    "item_knn": ItemKnn().candidates(),
    "ials": Ials().candidates(),
    "ease": Ease().candidates(),
}


def _librecommender(**settings: object) -> dict[str, tuple[Peer, ...]]:
    """Return LibRecommender's TwoTower without and with its own masking, at several numbers of epochs."""
    epochs = settings.pop("epochs")
    return {
        name: tuple(ranking.RankingSettings(ssl_pattern=pattern, epochs=tried, **settings) for tried in epochs)
        for name, pattern in (("librecommender", None), ("librecommender_cfm", "cfm"))
    }


def adam(name: str, epochs: Sequence[int], *further: str, like: str = "baseline") -> str:
    """Return a row with more dimensions, and Adam for all weights."""
    settings = ", ".join(['"training.optimizer" = "adam"', '"tower.hidden" = [256]', *further])
    search = (
        f'"training.learning_rate" = [0.003], "objective.temperature" = [0.1], "training.epochs" = {list(epochs)}, '
        '"tower.dim" = [128]'
    )
    return f'{name} = {{like = "{like}", settings = {{{settings}}}, search = {{{search}}}}}'


HISTORY = """"query.features" = {
  article = {kind = "id", width = 32}, title = {kind = "text", width = 32, buckets = 10000, max_terms = 8},
  cat_l1 = {kind = "multi_categorical", max_values = 4}, cat_l2 = {kind = "multi_categorical", max_values = 4},
  cat_l3 = {kind = "multi_categorical", max_values = 4}, lead = {kind = "text", width = 32, max_terms = 24},
  links = {kind = "history", length = 20}}""".replace("\n", " ")
"""Other links of the same page as its history; the item side's features besides."""

MIXED = '"objective.uniform_negatives" = 1024'

TRIED = (
    'batch_4096 = {settings = {"training.batch_size" = 4096}, search = {}}',
    'learned_temperature = {settings = {"objective.learned_temperature" = true}, search = {}}',
    f"mixed_negatives = {{settings = {{{MIXED}}}, search = {{}}}}",
    'dim_128 = {settings = {"tower.hidden" = [256]}, search = {"tower.dim" = [128]}}',
)
"""What was tried to come closer to the peers."""


@dataclass(frozen=True)
class Plan:
    """What is compared on one data set.

    Attributes:
        run: a run file that comes with the package.
        overrides: our rows, and what is tried of each.
        peers: recommenders of other kinds, and what is tried of each.
    """

    run: str
    overrides: tuple[str, ...]
    peers: Mapping[str, Sequence[Peer]]


def _rows(*rows: str) -> tuple[str, ...]:
    names = ["cfm", *(row.partition(" ")[0] for row in rows)]
    return (
        METRICS,
        variants(*rows),
        f"ablation.subjects={json.dumps(names)}",
        'ablation.logq=["counts"]',
        "ablation.training_rates=[1.0]",
        "ablation.trials=2",
        "ablation.seeds=[1, 2]",
    )


PLANS = {
    "wikispeedia": Plan(
        "wikispeedia",
        (
            search(rates=[0.1, 0.2], epochs=[4, 8], temperatures=[0.1, 0.15, 0.2], dims=[32, 64]),
            "ablation.baseline_trials=4",
            *_rows(
                *TRIED,
                adam("adam", (10, 20)),
                adam("adam_mixed", (10, 20), MIXED),
                adam("adam_cfm", (10, 20), like="cfm"),
                BOTH,
                f"with_history = {{search = {{}}, settings = {{{HISTORY}}}}}",
                adam("adam_with_history", (10, 20), HISTORY),
            ),
        ),
        CLASSIC | _librecommender(epochs=(5, 10, 20), temperature=0.07),
    ),
    "ml-1m": Plan(
        "enriched_movielens",
        (
            search(rates=[0.1], epochs=[5], temperatures=[0.1, 0.15], dims=[64]),
            "ablation.baseline_trials=2",
            *_rows(*TRIED, adam("adam", (5, 10)), adam("adam_mixed", (5, 10), MIXED)),
        ),
        CLASSIC | _librecommender(epochs=(5,), temperature=0.1),
    ),
}


def run_of(plan: Plan, quick: bool) -> Run:
    """Return the run of our rows."""
    rehearsal = (*REHEARSAL, "ablation.subjects=['cfm']") if quick else ()
    return config.load(plan.run, [*plan.overrides, *rehearsal])


def add_peers(report: Report, run: Run, peers: Mapping[str, Sequence[Peer]], folder: Path) -> None:
    """Measure other recommenders on a run's test cases: tuned on its validation cases, trained on the same data."""
    prepared = prepare(run, folder / "prepared-for-peers")
    validation = held_out(run, prepared, "validation", run.evaluation.max_cases)
    test = held_out(run, prepared, "test", run.evaluation.max_cases)
    metric = run.ablation.tuning_metric
    for name, tried in peers.items():
        try:
            fitted = [_fit(peer, run, prepared, folder / f"{name}-{place}") for place, peer in enumerate(tried)]
        except (subprocess.CalledProcessError, SettingError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip()[-300:]
            report.note(f"{name} was left out: {reason}")
            continue
        looks = [_values(make, validation, [metric])[metric].mean() for make in fitted]
        best = int(np.argmax(looks))
        values = _values(fitted[best], test, run.ablation.metrics)
        report.add_means({"slice": "all"}, name, values, 1)
        report.note(f"{name}: {tried[best]}, the best of {len(tried)} on validation cases; one seed.")


def _values(make: Callable[[HeldOut], Recommender], part: HeldOut, metrics: Sequence[str]) -> dict[str, np.ndarray]:
    rows, reachable = asked(part)
    depth = max(parse(name).cutoff for name in metrics)
    return measure(metrics, make(part).recommend(rows, depth).item_rows, reachable)


def _fit(peer: Peer, run: Run, prepared: Prepared, folder: Path) -> Callable[[HeldOut], Recommender]:
    """Train a peer on the training part; return what makes it a recommender for the cases of a part."""
    train = prepared.parts["train"]
    if isinstance(peer, ranking.RankingSettings):
        settings = dataclasses.replace(peer, dim=run.tower.dim, hidden=run.tower.hidden, seed=run.seed)
        query_vectors, item_vectors = ranking.librecommender_vectors(
            folder,
            train,
            _integer_codes(prepared.item_encoders, prepared.item_codes),
            _integer_codes(prepared.query_encoders, prepared.query_codes),
            settings,
            item_count=prepared.item_count,
            query_count=prepared.query_count,
        )
        return lambda part: VectorRecommender(query_vectors[part.query_rows], item_vectors, part.cases.excluded)
    met = Histories(train, prepared.query_count, prepared.item_count)
    scorer = peer.fit(met)
    return lambda part: ScoreRecommender(
        lambda rows: scorer(met.take(part.query_rows[rows])), prepared.item_count, part.cases.excluded
    )


def _integer_codes(encoders: Mapping[str, Encoder], codes: Mapping[str, np.ndarray]) -> dict[str, Int32]:
    """Return the codes of categorical features and bags; ids go to the peer as rows, a history has no codes."""
    return {
        name: np.asarray(array)
        for name, array in codes.items()
        if array.dtype == np.int32 and registry.kind_of(encoders[name].settings) != "id"
    }


def compare(report: Report, found: Ablation, peers: Mapping[str, Sequence[Peer]]) -> None:
    """Add our rows beside the peers, and say how the best of them stands to the best peer."""
    (case,) = found.cases
    rows = [row for row in report.rows if row.subject in peers]
    for metric in found.metrics:
        ours = [found.find(case, "all", name, metric) for name in found.subjects]
        for entry in ours:
            subject = f"{PREFIX}{entry.subject}"
            report.add_interval({"slice": "all"}, subject, metric, entry.value, entry.low, entry.high, entry.seeds)
        of_peers = [row for row in rows if row.metric == metric]
        if not of_peers:
            continue
        best, peer = max(ours, key=lambda entry: entry.value), max(of_peers, key=lambda row: row.value)
        word = "leads" if best.value > peer.value else "TRAILS"
        report.note(
            f"{metric}: our best two-tower ({best.subject}, {best.value:.4f}) {word} the best peer "
            f"({peer.subject}, {peer.value:.4f}) by {best.value / peer.value - 1:+.1%}."
        )
    for subject, settings in found.chosen[case].items():
        told = ", ".join(f"{path} = {value}" for path, value in settings.items()) or "as in the run file"
        report.note(f"{PREFIX}{subject}: {told} (chosen on validation cases).")


def bench(data: str, work: Path, results: Path, *, quick: bool, jobs: int) -> None:
    """Compare on one data set and write the results."""
    plan = PLANS[data]
    name = f"recommenders-{data}-quick" if quick else f"recommenders-{data}"
    report = Report(name, DISTRIBUTIONS)
    run = run_of(plan, quick)
    tried = {kind: tried[:1] for kind, tried in CLASSIC.items()} if quick else plan.peers
    if quick:
        report.note("LibRecommender is not rehearsed: it makes an environment of its own.")
    found = ablate(run, work / name, jobs)
    add_peers(report, run, tried, work / name)
    compare(report, found, tried)
    report.note(found.notice)
    results.mkdir(parents=True, exist_ok=True)
    print(report.write(results).read_text(encoding="utf-8"))


def main(
    data: Annotated[list[str], typer.Argument(help=f"Data sets: {', '.join(PLANS)}; none means all.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0 means one for each core.")] = 0,
    work: Annotated[Path, typer.Option(help="Where trained two-towers are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare recommenders on public data; LibRecommender gets an environment of its own, of 6 GB."""
    for name in data or PLANS:
        if name not in PLANS:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(PLANS)}")
        bench(name, work, results, quick=quick, jobs=jobs)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
