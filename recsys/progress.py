"""Show how far long work is: a bar with rate and time left on a terminal, plain lines with the same in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
LINE_EVERY_S = 10.0
_hidden = False
_shared: Progress | None = None
"""The bar of `one_line`, while its block runs."""
_is_one_line = False


def hide() -> None:
    """Show nothing from here on in this process: for notebooks, and for workers, whose parent shows all of them."""
    global _hidden
    _hidden = True


def inform(sentence: str) -> None:
    """Print a choice that a program made by the data, on standard error."""
    if not _hidden:
        Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    if not _hidden:
        console = Console(stderr=True)
        console.print(f"warning: {sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True)


class Task:
    """One running piece of work.

    Args:
        description: what is done, a few words.
        total: units to do; None where it is not known.
        unit: what is counted, plural.
        bar: the terminal bar, or None to print plain lines on standard error.
    """

    def __init__(self, description: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self._description, self._total, self._unit, self._bar = description, total, unit, bar
        self._done, self._already = 0, 0
        self._started = self._printed = time.monotonic()
        self._note = ""
        if bar is not None:
            self._id = bar.add_task(description, total=total, unit=unit, rate="", note="")

    def start_at(self, done: int) -> None:
        """Say that `done` units were done by an earlier, interrupted run."""
        self._done = self._already = done
        if self._bar is not None:
            self._bar.update(self._id, completed=done)

    def expect(self, total: int) -> None:
        """Change the number of units to do."""
        if total != self._total:
            self._total = total
            if self._bar is not None:
                self._bar.update(self._id, total=total)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units; `note` is shown beside the rate."""
        self._done += count
        self._note = note or self._note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._id, advance=count, rate=f"{self._rate(now):,.4g} {self._unit}/s", note=self._note)
        elif self._prints and now - self._printed >= LINE_EVERY_S:
            self._printed = now
            self._line(now)

    def finish(self) -> None:
        """Print the closing line of a log."""
        if self._prints:
            self._line(time.monotonic(), closing=True)

    def remove(self) -> None:
        """Take the bar away, so that its line is free for the next piece of work."""
        if self._bar is not None:
            self._bar.remove_task(self._id)

    @property
    def _prints(self) -> bool:
        return self._bar is None and not _hidden and not _is_one_line

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self._rate(time.monotonic())

    def _rate(self, now: float) -> float:
        return (self._done - self._already) / max(now - self._started, 1e-9)

    def _line(self, now: float, *, closing: bool = False) -> None:
        rate = self._rate(now)
        parts = [f"{self._done:,} {self._unit}"]
        if self._total:
            parts = [f"{self._done:,}/{self._total:,} {self._unit} ({self._done / self._total:.0%})"]
        parts.append(f"{rate:,.4g} {self._unit}/s")
        if closing:
            parts.append(f"{now - self._started:.1f} s")
        elif self._total and rate > 0:
            parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        if self._note:
            parts.append(self._note)
        print(f"{self._description}: {', '.join(parts)}", file=sys.stderr, flush=True)


@contextmanager
def one_line(description: str) -> Iterator[None]:
    """Show all work of the block in a single line: the bar of what is running, and at the end the time of all.

    Args:
        description: what the block does, a few words.
    """
    global _shared, _is_one_line
    console, started = Console(stderr=True), time.monotonic()
    bar = None
    if console.is_terminal and not _hidden:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn())
        note = TextColumn("{task.fields[note]}")
        bar = Progress(*columns, TimeRemainingColumn(), note, console=console, transient=True)
    with bar or nullcontext():
        _shared, _is_one_line = bar, True
        try:
            yield
        finally:
            _shared, _is_one_line = None, False
    if not _hidden:
        print(f"{description}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def task(description: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
    """Show one piece of work while the block runs.

    Args:
        description: what is done, a few words.
        total: units to do; None where it is not known.
        unit: what is counted, plural.
    """
    console = Console(stderr=True)
    if _shared is not None:
        running = Task(description, total, unit, _shared)
        yield running
        running.remove()
        return
    if _hidden or not console.is_terminal:
        running = Task(description, total, unit, None)
        yield running
        running.finish()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Task(description, total, unit, bar)


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "steps") -> Iterator[T]:
    """Yield the items while showing how many went by."""
    with task(description, total, unit) as running:
        for item in items:
            yield item
            running.advance()
