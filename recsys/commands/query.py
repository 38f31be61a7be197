"""`recsys query`: ask a running server as an application would."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from serving.answers import Ranking


def command(
    target: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:50051",
    port_file: Annotated[Path | None, typer.Option(help="Read the port from this file; waits for it.")] = None,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for the server.")] = 60.0,
    entity: Annotated[str | None, typer.Option(help="Id of a user, or of an item in an item-to-item release.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; VALUE may be JSON.")] = None,
    history: Annotated[str, typer.Option(help="Item ids met before, oldest first, with commas.")] = "",
    items: Annotated[str, typer.Option(help="Item ids to find neighbours of, with commas.")] = "",
    vector: Annotated[str, typer.Option(help="Numbers with commas.")] = "",
    exclude: Annotated[str, typer.Option(help="Item ids to leave out, with commas.")] = "",
    k: Annotated[int, typer.Option("-k", help="Places.")] = 10,
    release: Annotated[str, typer.Option(help="Only this release will do: name or fingerprint.")] = "",
) -> None:
    """Print the nearest items of one query: by entity, features and history, items, or vector."""
    import numpy as np

    from recsys.errors import SettingError, describe
    from recsys.types import Query
    from serving.client import Client

    try:
        numbers = np.array([float(each) for each in _listed(vector)], np.float32) if vector else None
    except ValueError:
        raise SettingError(describe("--vector", vector, "numbers with commas between them")) from None
    query = Query(
        entity_id=entity,
        features=dict(_feature(each) for each in feature) if feature else None,
        history=_listed(history),
        item_ids=_listed(items),
        vector=numbers,
        excluded_ids=_listed(exclude),
    )
    target = target if port_file is None else f"127.0.0.1:{_port(port_file, wait_s)}"
    with Client(target, timeout_s=10.0) as client:
        client.wait_until_ready(wait_s)
        print_ranking(client.nearest_items(query, k, release_pin=release, include_metadata=True), Console())


def print_ranking(ranking: Ranking, console: Console, title: str = "", columns: int = 5) -> None:
    """Print an answer as a table with the items' display columns.

    Args:
        ranking: as the client returned it, with metadata.
        console: where to.
        title: what was asked; may be empty.
        columns: display columns to show, the first ones.
    """
    origin = ranking.origin.value if ranking.origin else "unknown"
    missing = f"; unknown ids: {', '.join(ranking.missing_ids)}" if ranking.missing_ids else ""
    table = Table(title=title, title_justify="left", caption=f"from {origin}{missing}; {ranking.release.name}")
    names = sorted(ranking.metadata[0] if ranking.metadata else {}, key=_importance)[:columns]
    for name in ("", "item", "score", *names):
        table.add_column(name, justify="right" if name in ("", "score") else "left", overflow="fold")
    for place, (item_id, score, shown) in enumerate(
        zip(ranking.item_ids, ranking.scores, ranking.metadata, strict=True), 1
    ):
        cells = (_shown(shown.get(name)) for name in names)
        table.add_row(str(place), item_id, f"{score:.4f}", *cells)
    console.print(table)


def _importance(column: str) -> tuple[bool, bool, str]:
    """Return a sort key: what a person reads first, then the alphabet; the wire does not keep the columns' order."""
    return column not in ("title", "name"), column in ("item_id", "training_count"), column


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _feature(text: str) -> tuple[str, Any]:
    from recsys.errors import SettingError, describe

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingError(describe("--feature", text, "NAME=VALUE"))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _port(file: Path, wait_s: float) -> int:
    from recsys.errors import MissingError, SettingError, describe

    deadline = time.monotonic() + wait_s
    while not file.is_file():
        if time.monotonic() > deadline:
            raise MissingError(f"{file}: no such file after {wait_s:g} s. Is the server running with --port-file?")
        time.sleep(0.1)
    text = file.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdigit():
        raise SettingError(describe("--port-file", text, f"a port number in {file}"))
    return int(text)
