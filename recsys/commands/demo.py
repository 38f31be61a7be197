"""`recsys demo`: the whole path on real data, from purchases to answers over gRPC."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from recsys.commands import Overrides, Releases, Work, program

if TYPE_CHECKING:
    from recsys.export.release import Release
    from serving.client import Client

RUN = "complete_journey"
K = 8
SERVER_START_S = 120.0


def command(
    work: Work = Path("work"),
    releases: Releases = Path("releases"),
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
) -> None:
    """Train on grocery purchases, publish, serve, and ask for a household, a product, a basket and a vector."""
    from recsys import config, pipeline
    from recsys.commands.release import show_release
    from serving.process import served

    started = time.monotonic()
    console = Console()
    run = config.load(RUN, overrides)
    console.rule("1. train, evaluate, index, publish")
    release = pipeline.train(run, work, releases)
    show_release(release, console)
    console.rule("2. serve, and ask over gRPC as an application would")
    with served(release.folder, work / run.name, start_s=SERVER_START_S) as client:
        _ask(client, release, console)
    console.rule("done")
    console.print(f"{time.monotonic() - started:.0f} s in all. {release.facts.notice}", soft_wrap=True)
    for said in (
        f"release:     {release.folder}",
        f"checkpoints: {work / run.name} (tensorboard --logdir {work / run.name / 'training' / 'tensorboard'})",
        f"server log:  {work / run.name / 'server.log'}",
        f"next:        {program()} serve {release.folder}",
        f"             {program()} query --entity 900 -k 10           (in another terminal)",
        f"             {program()} data describe complete_journey",
        "your own:    README.md, 'Your own data'",
    ):
        console.print(said, soft_wrap=True, highlight=False)


def _ask(client: Client, release: Release, console: Console) -> None:
    from recsys.commands.query import print_ranking
    from recsys.types import Query

    facts = client.release()
    console.print(f"{facts.name} answers: {facts.item_count:,} items, {facts.dim} dimensions, index {facts.index}")
    household, bought = _household(release)
    console.print(f"household {household['query_id']} ({_demographics(household)}) last bought: {_names(bought)}")
    basket = sorted(bought, key=lambda item: -item["training_count"])[:3]
    ids = [item["item_id"] for item in basket]
    asked = {
        "for this household": Query(entity_id=household["query_id"]),
        f"like one product: {basket[0]['name']}": Query(item_ids=ids[:1]),
        f"like a basket: {_names(basket)}": Query(item_ids=ids),
        "for an unknown household that has just bought the same basket": Query(entity_id="never seen", history=ids),
    }
    for title, query in asked.items():
        print_ranking(client.nearest_items(query, K, include_metadata=True), console, title)
    vector = client.encode_query(Query(entity_id=household["query_id"])).vector
    by_vector = client.nearest_items(Query(vector=vector), K, include_metadata=True)
    print_ranking(by_vector, console, f"for a raw vector of {len(vector)} numbers, here that of the household")


def _household(release: Release) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a household whose demographics are known, with the products it bought last, newest first."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    households = pq.read_table(release.folder / "queries.parquet")
    known = households.filter(pc.is_valid(households["income"])).slice(0, 1).to_pylist()[0]
    items = pq.read_table(release.folder / "items.parquet")
    rows = {item["item_id"]: item for item in items.select(["item_id", "name", "training_count"]).to_pylist()}
    return known, [rows[item_id] for item_id in known["history"]]


def _demographics(household: dict[str, Any]) -> str:
    said = (
        f"{name.replace('_', ' ')} {value}" for name, value in household.items() if name not in ("query_id", "history")
    )
    return ", ".join(said)


def _names(items: list[dict[str, Any]], count: int = 6) -> str:
    return "; ".join(str(item["name"]) for item in items[:count])
