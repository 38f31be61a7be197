"""How a timed process talks with the benchmark: one line of JSON in, one line of JSON out; standard library only.

A process holds one or more subjects, stays silent until asked, and measures one block of steps at a time, so that
blocks of different processes can alternate.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TextIO, TypeVar

T = TypeVar("T")

BATCH_SIZE = 1024
HIDDEN = 256
DIM = 64
WIDTH = 32
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Measured:
    """One block of steps.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of the whole process, all threads.
        loss: of the last batch, per example, in nats; None where nothing is trained.
    """

    seconds: float
    cpu_seconds: float
    loss: float | None


Subject = Callable[[int], Measured]
"""Trains so many steps and tells how long they took; what it makes ready before is not timed."""


def measure(train: Callable[[], T], loss: Callable[[T], float | None] = float) -> Measured:
    """Time a block of steps.

    Args:
        train: does the steps.
        loss: returns the last batch's loss from what `train` returned; not timed.
    """
    cpu, start = time.process_time(), time.perf_counter()
    trained = train()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Measured(seconds, cpu_seconds, loss(trained))


def serve(subjects: Callable[[], Mapping[str, Subject]]) -> None:
    """Measure blocks until standard input ends; everything else that is printed goes to standard error.

    Args:
        subjects: imports what it needs and makes the subjects, by name.
    """
    with _answers() as out:
        made = subjects()
        _say(out, {"subjects": list(made)})
        for line in sys.stdin:
            asked = json.loads(line)
            _say(out, asdict(made[asked["subject"]](asked["steps"])))


@contextmanager
def _answers() -> Iterator[TextIO]:
    """Keep standard output for answers: libraries that print there would break the lines."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        yield out


def _say(out: TextIO, answer: Mapping[str, object]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()
