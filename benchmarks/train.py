"""Training speed: the project's training step and loop against a plain TensorFlow loop, TFRS and LibRecommender.

All train on the same examples: 7 categorical features with vectors of 32, batches of 1024, towers [256, 64]. Each
subject lives in a process of its own, and blocks of steps alternate in a random order, so that what else the machine
does hits all alike; ratios are taken between blocks of one round.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.peers import environment
from benchmarks.peers.examples import Examples
from benchmarks.peers.protocol import BATCH_SIZE, DIM, HIDDEN, TEMPERATURE, WIDTH, Measured
from benchmarks.report import RESULTS, Report
from recsys import config, registry
from recsys.cli import one_message
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare
from recsys.features import Encoder

PLAIN, OURS = "plain TensorFlow loop", "recsys"
LIKE_FOR_LIKE, CONSTANT = "recsys, like for like", "recsys, constant batch"
PIPELINE, WHOLE_LOOP = "recsys, pipeline alone", "recsys, whole loop"
BAR = 0.9
DISTRIBUTIONS = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy", "scipy")

ID = {"kind": "id", "width": WIDTH, "unknown_rate": 0.0}
CATEGORICAL = {"kind": "categorical", "width": WIDTH}
WORLDS: dict[str, dict[str, Any]] = {
    "complete_journey": {
        "source": {"kind": "complete_journey", "pairs": "household"},
        "query": {"features": {"household": ID, "age": CATEGORICAL, "income": CATEGORICAL}},
        "item": {
            "features": {
                "product": ID,
                "department": CATEGORICAL,
                "product_category": CATEGORICAL,
                "manufacturer_id": CATEGORICAL,
            }
        },
    },
    "synthetic": {
        "source": {"kind": "synthetic", "interactions": 30_000},
        "query": {"features": {"user": ID, "segment": CATEGORICAL, "age": CATEGORICAL, "country": CATEGORICAL}},
        "item": {"features": {"item": ID, "category": CATEGORICAL, "price": CATEGORICAL}},
    },
}


@dataclass(frozen=True)
class Speaker:
    """A process that holds subjects; see `benchmarks.peers.protocol`."""

    process: subprocess.Popen[str]

    def listen(self) -> list[str]:
        """Wait until the subjects are made; return their names."""
        return self._answer()["subjects"]

    def measure(self, subject: str, steps: int) -> Measured:
        """Let one subject train a block."""
        self.process.stdin.write(json.dumps({"subject": subject, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return Measured(**self._answer())

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args[1:4])} ended with code {self.process.wait()}")
        return json.loads(line)


@dataclass
class Timings:
    """All blocks of the run.

    Attributes:
        blocks: by subject, one for each round.
        steps: of each block.
    """

    steps: int
    blocks: dict[str, list[Measured]] = field(default_factory=dict)

    def examples_per_s(self, subject: str) -> list[float]:
        """Return the speed of each block."""
        return [self.steps * BATCH_SIZE / block.seconds for block in self.blocks[subject]]

    def cpu_ms_per_step(self, subject: str) -> list[float]:
        """Return the processor time of each block, all cores."""
        return [1000 * block.cpu_seconds / self.steps for block in self.blocks[subject]]

    def ratio(self, subject: str, other: str) -> list[float]:
        """Return how many times as fast the subject was as the other, round by round."""
        pairs = zip(self.examples_per_s(subject), self.examples_per_s(other), strict=True)
        return [one / two for one, two in pairs]

    def add_to(self, report: Report, case: Mapping[str, Any]) -> None:
        """Add a row of numbers for each subject."""
        for subject, blocks in self.blocks.items():
            report.add(case, subject, "examples_per_s", self.examples_per_s(subject))
            report.add(case, subject, "ratio_to_plain", self.ratio(subject, PLAIN))
            report.add(case, subject, "cpu_ms_per_step", self.cpu_ms_per_step(subject))
            if blocks[-1].loss is not None:
                report.add(case, subject, "last_loss_nats", blocks[-1].loss)


def run_of(world: str) -> Run:
    """Return the run that all subjects are equal to."""
    tables = WORLDS[world] | {
        "name": "bench-train",
        "tower": {"kind": "mlp", "hidden": [HIDDEN], "dim": DIM},
        "objective": {"kind": "sampled_softmax", "temperature": TEMPERATURE},
        "training": {"batch_size": BATCH_SIZE, "optimizer": "adagrad", "learning_rate": 0.1},
        "index": {"kind": "brute_force"},
    }
    return config.from_tables(tables)


def examples_of(prepared: Prepared) -> Examples:
    """Return the training examples, shuffled."""
    train = prepared.parts["train"]
    order = np.random.default_rng(0).permutation(len(train))
    query_row, item_row = train.query_row[order], train.item_row[order]
    return Examples(
        {name: prepared.query_codes[name][query_row] for name in _id_first(prepared.query_encoders)},
        {name: prepared.item_codes[name][item_row] for name in _id_first(prepared.item_encoders)},
        {name: encoder.vocabulary.size for name, encoder in _encoders(prepared).items()},
    )


def time_blocks(holders: Mapping[str, Speaker], steps: int, rounds: int) -> Timings:
    """Let the subjects take turns, in another order each round.

    Args:
        holders: the process of each subject.
        steps: of each block.
        rounds: blocks of each subject.
    """
    timings = Timings(steps, {subject: [] for subject in holders})
    order = random.Random(0)
    for done in range(1, rounds + 1):
        for subject in order.sample(sorted(holders), len(holders)):
            timings.blocks[subject].append(holders[subject].measure(subject, steps))
        told = [f"{subject} {timings.ratio(subject, PLAIN)[-1]:.2f}" for subject in holders if subject != PLAIN]
        speed = timings.examples_per_s(PLAIN)[-1]
        print(f"round {done}/{rounds}: {PLAIN} {speed:,.0f} examples/s; x {', '.join(told)}", flush=True)
    return timings


@contextmanager
def started(python: Path, module: str, *arguments: str) -> Iterator[Speaker]:
    """Start a process that holds subjects; end it with the block."""
    process = subprocess.Popen(
        [python, "-m", module, *arguments],
        cwd=environment.ROOT,
        env=environment.variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Speaker(process)
    finally:
        process.stdin.close()
        if process.wait() != 0:
            print(f"{module} ended with code {process.returncode}", file=sys.stderr)


def compare(world: str, steps: int, rounds: int, report: Report, peers: Mapping[str, Path]) -> None:
    """Measure all subjects on one world.

    Args:
        world: a name from `WORLDS`.
        steps: of each block.
        rounds: blocks of each subject.
        report: receives the numbers.
        peers: interpreters of peers that have an environment of their own, by module of `benchmarks.peers`.
    """
    run = run_of(world)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as processes:
        folder = Path(scratch)
        (folder / "run.toml").write_text(config.dumps(run), encoding="utf-8")
        prepared = prepare(run, folder / "prepared")
        examples = examples_of(prepared)
        examples.save(folder)
        sizes = ", ".join(f"{name} {size:,}" for name, size in examples.sizes.items())
        report.note(f"{world}: {len(prepared.parts['train']):,} training examples; codes of each feature: {sizes}.")
        print(report.notes[-1], flush=True)
        python = Path(sys.executable)
        commands = [
            (python, "benchmarks.peers.project", str(folder)),
            (python, "benchmarks.peers.project", str(folder), "--deterministic"),
            (python, "benchmarks.peers.plain_loop", str(folder)),
            (python, "benchmarks.peers.tfrs_tutorial", str(folder)),
            *((interpreter, f"benchmarks.peers.{module}", str(folder)) for module, interpreter in peers.items()),
        ]
        speakers = [processes.enter_context(started(*command)) for command in commands]
        holders = {subject: speaker for speaker in speakers for subject in speaker.listen()}
        towers = f"[{HIDDEN}, {DIM}]"
        case = {"data": world, "features": len(examples.sizes), "batch_size": BATCH_SIZE, "towers": towers}
        # The whole loop's block is an epoch, so it only meets the plain loop, in blocks of that length.
        timings = time_blocks({name: holders[name] for name in holders if name != WHOLE_LOOP}, steps, rounds)
        timings.add_to(report, case | {"steps": steps})
        _judge(report, timings)
        epoch = len(prepared.parts["train"]) // BATCH_SIZE
        loops = time_blocks({name: holders[name] for name in (PLAIN, WHOLE_LOOP)}, epoch, -(-rounds // 5))
        loops.add_to(report, case | {"steps": epoch})


def _judge(report: Report, timings: Timings) -> None:
    ratio = statistics.median(timings.ratio(LIKE_FOR_LIKE, PLAIN))
    word = "met" if ratio >= BAR else "MISSED"
    report.note(
        f"Bar {word}: like for like the project's speed is {ratio:.2f} of the plain loop's, wanted {BAR} or more."
    )
    feeds = statistics.median(timings.ratio(PIPELINE, CONSTANT))
    report.note(f"Alone the input pipeline makes batches {feeds:.1f} times as fast as a constant batch is trained.")
    fed = statistics.median(timings.ratio(OURS, CONSTANT))
    report.note(f"Fed by it, on the same cores, training has {fed:.2f} of its speed on a constant batch.")
    for subject in timings.blocks:
        against = statistics.median(timings.ratio(OURS, subject))
        if not subject.startswith(OURS) and against < 1:
            report.note(f"Loss: with all its features the project has {against:.2f} of the speed of {subject}.")
    report.note(
        "`recsys` takes all known positives of a query out of its candidates and corrects by logQ; `like for like` "
        "only repeats of the same item, as the plain loop does neither. `whole loop` is an epoch of "
        "`recsys.training.loop.fit` with progress, logs and checkpoints. "
        "LibRecommender trains by Adam over whole tables (it has no Adagrad), corrects by logQ and removes repeats. "
        "The TFRS model looks strings up, without temperature and unit length. Losses are of different objectives."
    )


def _encoders(prepared: Prepared) -> dict[str, Encoder]:
    return {**prepared.query_encoders, **prepared.item_encoders}


def _id_first(encoders: Mapping[str, Encoder]) -> list[str]:
    return sorted(encoders, key=lambda name: registry.kind_of(encoders[name].settings) != "id")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A small synthetic world, without LibRecommender.")] = False,
    runs: Annotated[int | None, typer.Option(min=1, help="Blocks of each subject; 15, or 2 with --quick.")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare training speeds; write `<results>/train.json` and `train.md`."""
    report = Report("train-quick" if quick else "train", DISTRIBUTIONS)
    peers: dict[str, Path] = {}
    if quick:
        report.note("LibRecommender was left out: the short form installs nothing.")
    else:
        try:
            peers["librecommender"] = environment.LIBRECOMMENDER.python()
        except subprocess.CalledProcessError as error:
            report.note(f"LibRecommender was left out: it could not be installed: {error.stderr.strip()[-500:]}")
    world, steps, rounds = ("synthetic", 5, runs or 2) if quick else ("complete_journey", 100, runs or 15)
    compare(world, steps, rounds, report, peers)
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
