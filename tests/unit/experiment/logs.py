"""Small logs for the tests: rows with defaults, written as serving would write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.experiment.log import EVENTS, EXPOSURES

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def exposure(token: str, user: str, arm: str | None, hours: float = 1.0, **changes) -> dict:
    assignments = [] if arm is None else [assigned("towers", arm)]
    row = dict.fromkeys(EXPOSURES.names) | {
        "timestamp": at(hours), "request_id": f"r-{token}", "token": token, "user_id": user, "held_out": False,
        "assignments": assignments, "release": "r1", "reformulator": "identity",
        "item_ids": ["i0", "i1", "i2"], "positions": [0, 1, 2], "scores": [0.9, 0.8, 0.7],
    }  # fmt: skip
    return row | changes


def assigned(experiment: str, arm: str, overridden: bool = False) -> dict:
    return {"experiment": experiment, "arm": arm, "unit_kind": "user", "overridden": overridden}


def event(event_id: str, token: str, hours: float = 1.1, **changes) -> dict:
    row = {"event_id": event_id, "token": token, "kind": "click", "item_id": "i0", "value": None}
    return row | {"timestamp": at(hours)} | changes


def write_log(folder: Path, exposures: list[dict], events: list[dict]) -> Path:
    for name, schema, rows in (("exposures", EXPOSURES, exposures), ("events", EVENTS, events)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / name / "part-0.parquet")
    return folder


def write_segment(path: Path, schema: pa.Schema, batches: list[list[dict]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for rows in batches:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    return path
