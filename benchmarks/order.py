"""What the order of a history is worth: the transformer beside the bag, and beside RecTools' SASRec, on the same cases.

Leave-last: the last interaction of each user is the test case, the one before it chooses the length of training, all
others train. Everything is trained on the training part alone and encodes the whole history before each case. What is
found becomes `results/order-<world>.json` and a table. Figures of finished trainings are kept below the work folder, so
that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.peers.sequences import History, Inputs, SequenceSettings, looks, train_rectools
from benchmarks.report import RESULTS, Report
from recsys import config
from recsys.cli import one_message
from recsys.config import Run, Schedule
from recsys.data.prepare import Prepared, prepare
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.recommenders import VectorRecommender
from recsys.files import write_atomically
from recsys.metrics.ranking import measure
from recsys.sources.synthetic import Synthetic
from recsys.training.loop import fit
from recsys.training.model import TwoTowerModel
from recsys.types import DAY_US, Float32

DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy")
WORK = Path("work") / "bench-order"
METRICS = ("nDCG@10", "R@10", "R@50")
CHOOSING = "nDCG@10"
DEPTH = 50
DIM = 64
PEER = "RecTools SASRec"

SYNTHETIC: dict[str, Any] = {"kind": "synthetic", "users": 1_500, "items": 500, "interactions": 60_000, "followers": 4}
TRANSFORMER = SequenceSettings(dim=DIM, blocks=2, heads=1, positions=50, batch_size=64, epochs=24, learning_rate=0.003)


@dataclass(frozen=True)
class Bag:
    """A query that is a pool of its history.

    Attributes:
        objective: of the run file.
        history: settings of the history.
        batch_size: of training, in what the objective reads.
    """

    objective: Mapping[str, Any]
    history: Mapping[str, Any]
    batch_size: int = 64


PAIRS = {"kind": "sampled_softmax", "temperature": 0.1}
BAGS = {
    "bag, quadratic": Bag({"kind": "all_items"}, {"pooling": "sum", "dropout_rate": 0.5}),
    "bag, softmax": Bag({"kind": "softmax"}, {"pooling": "mean"}),
    "bag of 5 days, softmax": Bag({"kind": "softmax"}, {"pooling": "mean", "half_life_days": 5}),
    "bag before each item": Bag(PAIRS, {"pooling": "mean", "half_life_days": 5}, 1024),
    "the last item": Bag(PAIRS, {"pooling": "mean", "length": 1}, 1024),
}
"""The last two learn from single interactions, each from what came before it; the others from whole histories."""


@dataclass(frozen=True)
class World:
    """A data set with times.

    Attributes:
        source: of the run file.
        notice: what to say of it.
        transformer: the size of both transformers and how they train.
        objective: of our transformer.
    """

    source: Mapping[str, Any]
    notice: str
    transformer: SequenceSettings
    objective: Mapping[str, Any]


WORLDS = {
    "synthetic": World(
        {**SYNTHETIC, "order_rate": 0.7},
        "Synthetic: 70 % of the items follow the user's item before, one of 4 that are equally likely, drawn at random "
        "once; the others are drawn by taste and popularity. It shows whether a model reads order, not what order is "
        "worth on real data.",
        TRANSFORMER,
        {"kind": "softmax"},
    ),
    "synthetic_memory": World(
        {
            **SYNTHETIC,
            "items": 300,
            "interactions": 36_000,
            "order_rate": 0.6,
            "order_lag": 3,
            "session_days": 3.0,
        },
        "Synthetic with a longer memory: 60 % of the items follow the item that stands three places back in the user's "
        "history, one of 4 that are equally likely. The others are drawn by taste and popularity; within a session (no "
        "pause above three days), only from the topic of the session's first item.",
        replace(TRANSFORMER, positions=30, batch_size=32, epochs=30, look_every_epochs=3),
        {"kind": "softmax", "similarity": "dot", "temperature": 1.0},
    ),
}


def run_of(world: World, seed: int, objective: Mapping[str, Any], history: Mapping[str, Any], batch_size: int) -> Run:
    """Return a run whose query is a history alone and whose items are ids alone."""
    size = world.transformer
    return config.from_tables(
        {
            "name": "order",
            "seed": seed,
            "source": dict(world.source),
            "query": {
                "features": {
                    "history": {"kind": "history", "width": size.dim, "shared": True, "dropout_rate": 0.0, **history}
                }
            },
            "item": {"features": {"id": {"kind": "id", "width": size.dim}}},
            "split": {"kind": "leave_last"},
            "tower": {"kind": "sum", "dim": size.dim},
            "objective": dict(objective),
            "evaluation": {"exclude_seen": False},
            "training": {
                "epochs": size.epochs,
                "batch_size": batch_size,
                "optimizer": "adam",
                "learning_rate": size.learning_rate,
                "validate_every_epochs": size.look_every_epochs,
                "patience": 0,
            },
        }
    )


def transformer_run(world: World, seed: int) -> Run:
    """Return the run of our transformer."""
    size = world.transformer
    blocks = {
        "blocks": size.blocks,
        "heads": size.heads,
        "positions": size.positions,
        "dropout_rate": size.dropout_rate,
    }
    history = {"pooling": "transformer", "shared": True, "transformer": blocks}
    run = run_of(world, seed, world.objective, history, size.batch_size)
    # As RecTools trains: with a rate that falls to 0 the same epochs are too few.
    return replace(run, training=replace(run.training, schedule=Schedule(kind="constant")))


@dataclass(frozen=True)
class Outcome:
    """What one training came to.

    Attributes:
        metrics: mean over the test cases, by metric.
        training: how the training went, in words.
    """

    metrics: Mapping[str, float]
    training: str = ""


@dataclass(frozen=True)
class Data:
    """One world, prepared.

    Attributes:
        prepared: the data.
        parts: `validation` and `test`.
    """

    prepared: Prepared
    parts: Mapping[str, HeldOut]

    @staticmethod
    def of(run: Run, folder: Path) -> Data:
        """Read the data of a run."""
        prepared = prepare(run, folder)
        return Data(prepared, {part: held_out(run, prepared, part) for part in ("validation", "test")})

    def judge(self, part: str, queries: Float32, items: Float32) -> Mapping[str, float]:
        """Return the mean of each metric over the cases of a part, of the vectors of its cases."""
        cases = self.parts[part].cases
        rows = np.arange(len(queries))
        ranked = VectorRecommender(queries, items, cases.excluded).recommend(rows, DEPTH).item_rows
        return {name: float(values.mean()) for name, values in measure(list(METRICS), ranked, cases.relevant).items()}

    def inputs(self, settings: SequenceSettings) -> Inputs:
        """Return what a peer reads: training, and the histories of both parts."""
        histories = {
            "train": self.prepared.until("train"),
            "test": self.prepared.until("train", "validation"),
        }
        return Inputs(
            {name: History(each.query_row, each.item_row, each.timestamp) for name, each in histories.items()},
            self.prepared.item_count,
            self.prepared.query_count,
            settings,
        )


def ours(run: Run, folder: Path) -> Outcome:
    """Train one of our towers."""
    data = Data.of(run, folder / "prepared")

    def judged(model: TwoTowerModel, part: str) -> Mapping[str, float]:
        return data.judge(part, model.encode_queries(data.parts[part].codes), model.encode_items())

    start = time.perf_counter()
    fitted = fit(run, data.prepared, folder / "training", lambda model: judged(model, "validation")[CHOOSING])
    seconds = time.perf_counter() - start
    best = max(fitted.validations, key=lambda look: look.metric)
    losses = ", ".join(f"{look.loss:.3f}" for look in fitted.validations)
    told = f"{seconds:.0f} s, best after step {best.step} of {fitted.steps}; losses {losses}"
    return Outcome(judged(fitted.model, "test"), told)


def rectools(world: World, seed: int, folder: Path) -> Outcome:
    """Train RecTools' SASRec."""
    data = Data.of(transformer_run(world, seed), folder / "prepared")
    train_rectools(folder / "rectools", data.inputs(replace(world.transformer, seed=seed)))
    found = {}
    for epoch, vectors in looks(folder / "rectools"):
        validation = data.judge(
            "validation", vectors.queries["train"][data.parts["validation"].query_rows], vectors.items
        )
        found[epoch] = (validation[CHOOSING], vectors)
    best = max(found, key=lambda epoch: found[epoch][0])
    losses = ", ".join(
        line.rpartition(" ")[2] for line in (folder / "rectools" / "log.txt").read_text().splitlines() if "loss" in line
    )
    _, vectors = found[best]
    told = f"{found[max(found)][1].seconds:.0f} s, best after epoch {best} of {max(found)}; losses {losses}"
    return Outcome(data.judge("test", vectors.queries["test"][data.parts["test"].query_rows], vectors.items), told)


def popularity(world: World, folder: Path) -> Outcome:
    """Return the outcome of the items' numbers of training interactions, the same list for every case."""
    data = Data.of(transformer_run(world, 0), folder / "prepared")
    counts = np.bincount(data.prepared.parts["train"].item_row, minlength=data.prepared.item_count)
    queries = np.ones((len(data.parts["test"].query_rows), 1), np.float32)
    return Outcome(data.judge("test", queries, counts[:, None].astype(np.float32)))


def truth(world: World, folder: Path) -> Outcome:
    """Return the outcome of the formula that the world is drawn from: no model can be better but by chance."""
    source = config.chosen("source", world.source)
    assert isinstance(source, Synthetic)
    data = Data.of(transformer_run(world, 0), folder / "prepared")
    test, before = data.parts["test"], data.prepared.until("train", "validation")
    ends = np.searchsorted(before.query_row, test.query_rows, side="right")
    rows = np.arange(len(before.query_row))
    is_first = np.diff(before.query_row, prepend=-1) != 0
    starts_session = is_first | (np.diff(before.timestamp, prepend=0) > source.session_days * DAY_US)
    session_start = np.maximum.accumulate(np.where(starts_session, rows, 0))[ends - 1]
    followed = ends - source.order_lag
    has_followed = followed >= np.searchsorted(before.query_row, test.query_rows)
    scores = source.true_scores(
        test.query_rows,
        np.where(has_followed, before.item_row[followed], -1),
        source.world().topics[before.item_row[session_start]],
    )
    return Outcome(data.judge("test", scores, np.eye(scores.shape[1], dtype=np.float32)))


def subjects_of(world: World) -> dict[str, Callable[[int, Path], Outcome]]:
    """Return what is compared: a function of seed and folder for each subject."""

    def bag(made: Bag) -> Callable[[int, Path], Outcome]:
        history = {"shared": False, **made.history}
        return lambda seed, folder: ours(run_of(world, seed, made.objective, history, made.batch_size), folder)

    return {
        "transformer": lambda seed, folder: ours(transformer_run(world, seed), folder),
        **{name: bag(made) for name, made in BAGS.items()},
        PEER: lambda seed, folder: rectools(world, seed, folder),
    }


def outcome(path: Path, find: Callable[[Path], Outcome]) -> Outcome:
    """Return an outcome that is kept in a file, found on first use."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            try:
                found = find(Path(folder))
            except subprocess.CalledProcessError as error:
                raise SystemExit(f"{path.stem}: {error.stderr}") from None
        write_atomically(path, json.dumps(asdict(found), indent=1))
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def bench(name: str, work: Path, results: Path, seeds: Sequence[int], only: Sequence[str], *, quick: bool) -> None:
    """Compare on one world and write the results."""
    world = WORLDS[name]
    if quick:
        small = {**world.source, "users": 200, "items": 60, "interactions": 6_000}
        world = replace(world, source=small, transformer=replace(world.transformer, epochs=2))
    report = Report(f"order-{name}-quick" if quick else f"order-{name}", DISTRIBUTIONS)
    report.note(world.notice)
    subjects = {subject: find for subject, find in subjects_of(world).items() if not only or subject in only}
    if quick and subjects.pop(PEER, None):
        report.note("RecTools is not rehearsed: it makes an environment of its own.")
    found: dict[str, list[Outcome]] = {}
    for seed in seeds:
        for subject, find in subjects.items():
            path = work / report.benchmark / f"{subject}, seed {seed}.json"
            made = outcome(path, lambda folder, find=find, seed=seed: find(seed, folder))
            found.setdefault(subject, []).append(made)
            line = f"{subject}, seed {seed}: {CHOOSING} {made.metrics[CHOOSING]:.4f}; {made.training}."
            print(line, flush=True)
            report.note(line)
    path = work / report.benchmark / "popularity.json"
    found["popularity"] = [outcome(path, lambda folder: popularity(world, folder))]
    if world.source["kind"] == "synthetic":
        path = work / report.benchmark / "formula.json"
        found["the formula itself"] = [outcome(path, lambda folder: truth(world, folder))]
    for subject, outcomes in found.items():
        for metric in METRICS:
            report.add({"world": name}, subject, metric, [each.metrics[metric] for each in outcomes])
    results.mkdir(parents=True, exist_ok=True)
    print(report.write(results).read_text(encoding="utf-8"))


def main(
    worlds: Annotated[list[str], typer.Argument(help=f"Worlds: {', '.join(WORLDS)}; none means all.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A rehearsal of minutes; its figures mean nothing.")] = False,
    seeds: Annotated[list[int], typer.Option(help="One training of each subject for each.")] = [0, 1, 2],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Subjects; none means all.")] = [],  # noqa: B006
    work: Annotated[Path, typer.Option(help="Where the figures of each training are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare models that read the order of a history with those that do not; RecTools gets an environment of 6 GB."""
    for name in worlds or WORLDS:
        if name not in WORLDS:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(WORLDS)}")
        bench(name, work, results, seeds[:1] if quick else seeds, only, quick=quick)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
