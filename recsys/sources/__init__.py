"""Sources read interactions, items and query entities; one file is one `[source] kind`.

A choice is a frozen dataclass with one verb, `read() -> RawData`. To add one, write `sources/<kind>.py` with a class
named after the file that returns a `RawData`; the contract tests find it by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from recsys.errors import DataError
from recsys.types import ITEM_ID, QUERY_ID, TIMESTAMP, WEIGHT
from twintower.errors import describe, verbatim

__all__ = ["ITEM_ID", "QUERY_ID", "TIMESTAMP", "WEIGHT", "RawData", "Rejects", "RowNotes", "Source"]


@dataclass
class RowNotes:
    """Rows counted and named by reason while a source is read.

    Attributes:
        counts: rows by reason.
        examples: the first rows of each reason, as `file:line: what was found`.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    kept_examples: int = 5

    def add(self, reason: str, place: str) -> None:
        """Count one row, `place` being its `file:line` with the offending value."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < self.kept_examples:
            kept.append(place)

    def add_all(self, reason: str, count: int, places: Iterable[str]) -> None:
        """Count several rows at once; only as many places are made as examples are kept."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            kept = self.examples.setdefault(reason, [])
            kept.extend(islice(places, self.kept_examples - len(kept)))

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.counts.values())


@dataclass
class Rejects(RowNotes):
    """Broken rows, which are left out; nothing is dropped without a trace.

    Attributes:
        suspects: rows that are kept though their time looks wrong.
    """

    suspects: RowNotes = field(default_factory=RowNotes)

    @property
    def summary(self) -> str:
        """A sentence with the first row of each reason; empty where there is none."""
        broken = [f"{reason} ({places[0]})" for reason, places in self.examples.items() if places]
        return f"Broken rows: {'; '.join(broken)}." if broken else ""

    def restart(self, kept: Rejects) -> None:
        """Forget all rows but those of `kept`: a new pass over the interactions begins."""
        self.counts = dict(kept.counts)
        self.examples = {reason: list(places) for reason, places in kept.examples.items()}
        self.suspects = RowNotes()

    def copy(self) -> Rejects:
        """Return the same counts and examples of broken rows, independent of later ones."""
        copied = Rejects(kept_examples=self.kept_examples)
        copied.restart(self)
        return copied

    def check(self, rows_read: int, max_rate: float) -> None:
        """Refuse data of which too large a share is broken.

        Args:
            rows_read: all rows that were read, the broken ones among them.
            max_rate: the largest share (0..1) of broken rows that is passed over.

        Raises:
            DataError: the share is larger; the message names each reason with its count and first examples.
        """
        if self.total > max_rate * rows_read:
            reasons = "".join(
                f"\n- {reason}: {count:,}, such as {'; '.join(self.examples[reason][:2])}"
                for reason, count in sorted(self.counts.items(), key=lambda entry: -entry[1])
            )
            found = verbatim(f"{self.total:,} broken rows of {rows_read:,}")
            advice = "Mend the rows below, or raise the setting."
            raise DataError(
                describe("data.max_rejected_rate", found, f"at most {max_rate:g} of them", advice) + reasons
            )


@dataclass(frozen=True)
class RawData:
    """What a source returns: tables as found, ids as strings, broken rows set aside.

    Attributes:
        items: one row an item; `item_id` is string, unique and not null; other columns as found.
        queries: one row a query entity with unique, non-null string `query_id`; None where queries are items or where
            each interaction carries its own features. Entities that appear only in interactions need no row.
        interactions: makes a fresh iterator over record batches, in the source's order, with string `item_id`;
            string `query_id` unless queries are free features; optionally `timestamp` (timestamp[us], UTC) and `weight`
            (float32, > 0); for free features also the query side's columns. All batches share one schema. Each call
            starts anew and refills `rejects`.
        rejects: broken rows of items, queries and the latest pass over the interactions, and suspicious ones of it.
        notice: a sentence that must stand wherever the data is named (licence, simulated), or empty.
    """

    items: pa.Table
    queries: pa.Table | None
    interactions: Callable[[], Iterator[pa.RecordBatch]]
    rejects: Rejects = field(default_factory=Rejects)
    notice: str = ""


class Source(Protocol):
    """The contract of the family."""

    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders that are read; where one changes, the data is other data."""

    def read(self) -> RawData:
        """Return the data; heavy parts are streamed.

        Raises:
            DataError: a file is missing, empty, or lacks a column; the message names the file and what to do.
            MissingError: the source reads from a folder that an environment variable should name, and it is not set.
            InstallationError: the source reads from a package that is not installed.
        """
