"""Rows of the two logs as Arrow columns, many at once: by the row it would take calls ten times the time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recsys.experiment.log import EVENTS, EXPOSURES
from serving.exposures.exposure import Exposure, Randomised


class Shown(NamedTuple):
    """One row of exposures.

    Attributes:
        time_us: when the list was shown, microseconds since 1970.
        token: of the list.
        exposure: the rest.
    """

    time_us: int
    token: str
    exposure: Exposure


class Outcome(NamedTuple):
    """One row of events, as the client sent it.

    Attributes:
        event_id: chosen by the client.
        token: of the list that it is about.
        kind: such as `click`.
        item_id: of the list; empty where the event is about all of it.
        value: None where there is none.
        time_us: when it happened, microseconds since 1970.
    """

    event_id: str
    token: str
    kind: str
    item_id: str
    value: float | None
    time_us: int


def exposures(rows: Sequence[Shown]) -> pa.RecordBatch:
    """Return rows of `EXPOSURES`; at least one."""
    times_us, tokens, records = zip(*rows, strict=True)
    of = Exposure(*zip(*records, strict=True))  # the same fields, each with the values of all rows
    sizes = [len(each) for each in of.item_ids]
    drawn = [each if each is not None else _NOT_RANDOMISED for each in of.randomised]
    columns = {
        "timestamp": _moments(times_us),
        "request_id": of.request_id,
        "token": tokens,
        "user_id": _present(of.user_id),
        "session_id": _present(of.session_id),
        "held_out": of.held_out,
        "assignments": _assignments(of.assignments),
        "release": of.release,
        "reformulator": _present(of.reformulator),
        "item_ids": _lists("item_ids", of.item_ids),
        "positions": _places(sizes),
        "scores": _lists("scores", of.scores),
        "teams": _lists("teams", of.teams, nullable=True),
        "slate_policy": _present(each.policy for each in drawn),
        "slate_parameter": [each.parameter for each in drawn],
        "slate_propensity": [each and math.exp(each.log_propensity) for each in of.randomised],
        "candidate_ids": _lists("candidate_ids", [each.candidate_ids for each in drawn], nullable=True),
        "candidate_scores": _lists("candidate_scores", [each.candidate_scores for each in drawn], nullable=True),
    }
    return _batch(EXPOSURES, columns, len(rows))


def events(rows: Sequence[Outcome]) -> pa.RecordBatch:
    """Return rows of `EVENTS`; at least one."""
    of = Outcome(*zip(*rows, strict=True))
    columns = of._asdict() | {"item_id": _present(of.item_id), "timestamp": _moments(of.time_us)}
    return _batch(EVENTS, columns, len(rows))


_NOT_RANDOMISED = Randomised("", None, None, (), np.zeros(0, np.float32))


def _batch(schema: pa.Schema, columns: dict[str, Any], count: int) -> pa.RecordBatch:
    """Return the columns of a schema; one that is not given is null, what is no array becomes one."""
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            column = pa.nulls(count, field.type)
        arrays.append(column if isinstance(column, pa.Array) else pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _present(texts: Iterable[str]) -> list[str | None]:
    return [text or None for text in texts]


def _moments(times_us: Sequence[int]) -> pa.Array:
    return pa.array(times_us, pa.int64()).cast(EXPOSURES.field("timestamp").type)


def _places(sizes: Sequence[int]) -> pa.Array:
    offsets = _offsets(sizes)
    return pa.ListArray.from_arrays(offsets, np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], sizes))


def _assignments(rows: Sequence[Sequence[Any]]) -> pa.Array:
    fields = list(EXPOSURES.field("assignments").type.value_type)
    flat = list(chain.from_iterable(rows))
    values = [pa.array(list(map(attrgetter(field.name), flat)), field.type) for field in fields]
    offsets = _offsets([len(row) for row in rows])
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(values, fields=fields))


def _lists(name: str, rows: Sequence[Any], *, nullable: bool = False) -> pa.Array | None:
    """Return a column of lists; where it is nullable, an empty list is null."""
    sizes = [len(row) for row in rows]
    offsets = _offsets(sizes)
    if nullable and offsets[-1] == 0:
        return None
    kind = EXPOSURES.field(name).type.value_type
    flat = np.concatenate(rows) if pa.types.is_floating(kind) else list(chain.from_iterable(rows))
    mask = pa.array(np.equal(sizes, 0)) if nullable else None
    return pa.ListArray.from_arrays(offsets, pa.array(flat, kind), mask=mask)


def _offsets(sizes: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *sizes], dtype=np.int32)
