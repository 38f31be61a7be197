"""`recsys init` and `recsys train`, nothing changed: how far the model is from the best baseline of its own evaluation.

Worlds of different shape, written as the files that a user would have. Tastes are latent vectors, which topics make
alike; a feature shows a part of them, others are noise. What becomes of each world and seed is
`results/untouched.json` and a table. A finished training is taken up again, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.report import RESULTS, Report
from recsys.cli import one_message
from recsys.evaluation import report as evaluation
from recsys.export.release import open_release
from twintower.errors import TwintowerError

DISTRIBUTIONS = ("tensorflow", "tensorflow-recommenders", "numpy", "scipy")
WORK = Path("work") / "bench-untouched"
METRICS = ("nDCG@20", "R@20")
OURS = "two_tower"
BAR = 0.98
"""Of the best baseline's nDCG@20."""
DIM, TOPICS = 16, 40
START = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """The shape of a world.

    Attributes:
        users: query entities.
        items: of the catalog.
        median: interactions of a user; their numbers are log-normal.
        spread: of the logarithm of that number.
        taste: how much latent vectors count beside popularity.
        repeats: share of the interactions that come back to an item that the user has met.
        has_times: whether interactions have times.
    """

    users: int
    items: int
    median: float
    spread: float
    taste: float
    repeats: float = 0.0
    has_times: bool = True


WORLDS = {
    "films": World(users=900, items=1_700, median=65, spread=1.0, taste=1.2, has_times=False),
    "books": World(users=3_000, items=9_000, median=5, spread=1.2, taste=2.0, has_times=False),
    "apps": World(users=900, items=4_000, median=40, spread=1.0, taste=1.5, repeats=0.5),
}


def write_world(world: World, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write a world's interactions and items as Parquet and return the files."""
    random = np.random.default_rng([seed, 77])
    topics = random.normal(size=(TOPICS, DIM))
    of_item, of_user = (random.integers(TOPICS, size=count) for count in (world.items, world.users))
    items, users = (topics[each] + 0.7 * random.normal(size=(len(each), DIM)) for each in (of_item, of_user))
    appeal = -0.8 * np.log(np.arange(1, world.items + 1)) + 0.3 * random.normal(size=world.items)
    counts = np.exp(np.log(world.median) + world.spread * random.normal(size=world.users)).astype(int)
    counts = counts.clip(1, world.items // 4)
    met: list[tuple[int, int]] = []
    for user, count in enumerate(counts):
        scores = appeal + world.taste * (items @ users[user]) / np.sqrt(DIM) + random.gumbel(size=world.items)
        own = np.argsort(-scores)[: max(1, round(count * (1 - world.repeats)))]
        again = random.choice(own, max(0, count - len(own))) if world.repeats else own[:0]
        met += [(user, int(item)) for item in random.permutation(np.concatenate([own, again]))]
    columns = {"user": [f"u{user}" for user, _ in met], "item": [f"i{item}" for _, item in met]}
    if world.has_times:
        days = np.sort(random.random(len(met)) * 200)
        columns["at"] = [START + timedelta(days=float(day)) for day in random.permutation(days)]
    table = pa.table(
        {
            "item": [f"i{item}" for item in range(world.items)],
            "topic": [f"t{topic}" if random.random() < 0.7 else f"t{random.integers(TOPICS)}" for topic in of_item],
            "title": [f"{'abcdefgh'[topic % 8]}{random.integers(30)} word{random.integers(300)}" for topic in of_item],
            "year": random.integers(1950, 2025, world.items),
            "maker": [f"m{random.zipf(1.3) % 2_000}" for _ in range(world.items)],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "interactions.parquet", folder / "items.parquet"
    pq.write_table(pa.table(columns), files[0])
    pq.write_table(table, files[1])
    return files


def judged(make: Callable[[Path], Sequence[str]], folder: Path) -> evaluation.EvaluationReport:
    """Return the report of a model that `recsys init` and `recsys train` made.

    Args:
        make: writes data into a folder and returns the arguments of `recsys init` that name them.
        folder: of all files.

    Raises:
        TwintowerError: a command failed.
    """
    releases = folder / "releases"
    if not (folder / "release").exists():
        folder.mkdir(parents=True, exist_ok=True)
        file, recsys = folder / "run.toml", [sys.executable, "-m", "recsys.cli"]
        wanted = ["--set", f"evaluation.metrics={list(METRICS)}"]
        folders = ["--work", str(folder / "work"), "--releases", str(releases)]
        for command in (
            [*recsys, "init", *make(folder), "--out", str(file), "--force"],
            [*recsys, "train", str(file), *wanted, *folders],
        ):
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
                raise TwintowerError(f"{' '.join(command)}: failed; the lines above say why.")
        (released,) = [each for each in releases.iterdir() if each.is_dir()]
        (folder / "release").write_text(released.name, encoding="utf-8")
    return evaluation.load(open_release(releases / (folder / "release").read_text(encoding="utf-8")).folder)


def bench(names: Sequence[str], work: Path, results: Path, seeds: Sequence[int], worlds: Mapping[str, World]) -> None:
    """Judge models of worlds, or of sources by their kind, and write the results."""
    report = Report("untouched", DISTRIBUTIONS)
    for name in names:
        ratios = []
        for seed in seeds if name in worlds else seeds[:1]:

            def make(folder: Path, name: str = name, seed: int = seed) -> Sequence[str]:
                if name not in worlds:
                    return ["--source", name]
                interactions, items = write_world(worlds[name], seed, folder)
                return [str(interactions), "--items", str(items)]

            found = judged(make, work / f"{name}-{seed}")
            values = {each: found.find(each, METRICS[0]).value for each in found.recommenders}
            best = max((each for each in values if each != OURS), key=lambda each: values[each])
            ratios.append(values[OURS] / values[best])
            for recommender in found.recommenders:
                for metric in METRICS:
                    one = found.find(recommender, metric)
                    case = {"world": name, "seed": seed, "cases": found.cases}
                    report.add_interval(case, recommender, metric, one.value, one.low, one.high, 1)
        report.add({"world": name}, "ratio to the best baseline", METRICS[0], ratios)
        is_met = float(np.median(ratios)) >= BAR
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        report.note(f"{name}: {shown} of the best baseline; the bar of {BAR} is {'met' if is_met else 'MISSED'}.")
    results.mkdir(parents=True, exist_ok=True)
    print(report.write(results).read_text(encoding="utf-8"))


def main(
    names: Annotated[
        list[str], typer.Argument(help=f"Worlds ({', '.join(WORLDS)}) or kinds of sources, such as wikispeedia.")
    ] = list(WORLDS),  # noqa: B006 - typer reads the default
    seeds: Annotated[list[int], typer.Option(help="One world of each shape for each.")] = [0, 1, 2],  # noqa: B006
    work: Annotated[Path, typer.Option(help="Where the trainings are kept for resuming.")] = WORK,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Run `recsys init` and `recsys train` on data of different shapes and compare with the best baseline."""
    bench(names, work, results, seeds, WORLDS)


if __name__ == "__main__":
    with one_message():
        typer.run(main)
