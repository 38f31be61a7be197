"""Which cores a server and those who load it run on; standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """Keep this thread, and every thread and process that it starts, on some cores while the block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
