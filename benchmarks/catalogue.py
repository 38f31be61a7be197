"""What a live catalogue costs: from the call to the first answer that knows of it, and for every answer after it."""

from __future__ import annotations

import argparse
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.report import RESULTS, Report
from recsys.export.release import Release, find, open_release
from recsys.retrieval import Retriever
from recsys.retrieval.item_encoder import ItemEncoder
from recsys.types import ITEM_ID, Float32
from serving.process import served
from serving.runtime.catalogue_log import CatalogueLog
from serving.runtime.live_catalogue import LiveCatalogue
from twintower.client import Client
from twintower.types import Query, Upsert

K = 10
AT_ONCE = 1000
SUBJECT = "live catalogue"


def add_costs(report: Report, release: Release, *, repeats: int = 100, steps: tuple[int, ...] = (1000, 10_000)) -> None:
    """Measure one server over one release, and the check for changes alone.

    Args:
        report: gets the rows: `check_ns` (of an unchanged catalogue, for each call), `upsert_ms` and `visible_ms`
            (until a query has found the item) of one item by vector and by features, `upsert_items_per_s` in calls of
            1,000, and `nearest_us` after so many changes.
        release: whose items are changed.
        repeats: calls of each kind.
        steps: numbers of upserted items at which queries are timed.
    """
    case = {"items": release.facts.item_count, "dim": release.facts.dim, "index": release.facts.index, "k": K}
    features = dict.fromkeys(ItemEncoder(release).columns)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        live = LiveCatalogue(Retriever.load(release.folder), CatalogueLog(Path(scratch) / "idle"), AT_ONCE)
        seconds = timeit.repeat(live.retriever, number=100_000, repeat=7)
        report.add(case, SUBJECT, "check_ns", [each / 100_000 * 1e9 for each in seconds])
        folder = f"catalogue.folder={scratch}/changes"
        with served(release.folder, Path(scratch), start_s=300.0, settings=[folder]) as client:
            report.add({**case, "changes": 0}, SUBJECT, "nearest_us", _nearest_us(client, release, repeats))
            by_vector = _visible(client, repeats, lambda place: _by_vector(f"v{place}", release, random))
            report.add({**case, "source": "vector"}, SUBJECT, "upsert_ms", by_vector[0])
            report.add({**case, "source": "vector"}, SUBJECT, "visible_ms", by_vector[1])
            by_features = _visible(client, repeats, lambda place: (Upsert(f"f{place}", features=features), None))
            report.add({**case, "source": "features"}, SUBJECT, "upsert_ms", by_features[0])
            report.add({**case, "source": "features"}, SUBJECT, "visible_ms", by_features[1])
            for step in steps:
                rates = []
                while (there := client.catalog().upserted_count) < step:
                    count = min(AT_ONCE, step - there)
                    items = [_by_vector(f"n{there + place}", release, random)[0] for place in range(count)]
                    started = time.perf_counter()
                    client.upsert_items(items)
                    rates.append(count / (time.perf_counter() - started))
                report.add({**case, "changes": step}, SUBJECT, "upsert_items_per_s", rates)
                report.add({**case, "changes": step}, SUBJECT, "nearest_us", _nearest_us(client, release, repeats))
            _replace(client, release, steps[-1], random)
            changed = {**case, "changes": f"{steps[-1]} replaced, too"}
            report.add(changed, SUBJECT, "nearest_us", _nearest_us(client, release, repeats))


def _visible(
    client: Client, repeats: int, make: Callable[[int], tuple[Upsert, Float32 | None]]
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each upsert, and those until a query has found its item."""
    upserts, visible = [], []
    for place in range(repeats):
        item, vector = make(place)
        asked = Query(item_ids=[item.item_id]) if vector is None else Query(vector=vector)
        started = time.perf_counter()
        client.upsert_items([item])
        acknowledged = time.perf_counter()
        ranking = client.nearest_items(asked, K)
        found = time.perf_counter()
        # An item that was asked for by its id is known where it is not missing.
        assert item.item_id in ranking.item_ids if vector is not None else not ranking.missing_ids
        upserts.append((acknowledged - started) * 1000)
        visible.append((found - started) * 1000)
    return upserts, visible


def _nearest_us(client: Client, release: Release, repeats: int) -> list[float]:
    queries = np.load(release.folder / "golden" / "vectors.npy")
    times = []
    for place in range(repeats + 5):
        started = time.perf_counter()
        client.nearest_items(Query(vector=queries[place % len(queries)]), K)
        times.append((time.perf_counter() - started) * 1e6)
    return times[5:]


def _replace(client: Client, release: Release, count: int, random: Any) -> None:
    """Give so many items of the release new vectors."""
    ids = pq.read_table(release.folder / "items.parquet")[ITEM_ID].to_pylist()[:count]
    for start in range(0, len(ids), AT_ONCE):
        client.upsert_items([_by_vector(item_id, release, random)[0] for item_id in ids[start : start + AT_ONCE]])


def _by_vector(item_id: str, release: Release, random: Any) -> tuple[Upsert, Float32]:
    vector = random.normal(size=release.facts.dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    return Upsert(item_id, vector=vector), vector


def main() -> None:
    """Measure a release and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path, help="A release, or a folder of releases.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    report = Report("catalogue", distributions=("scann", "grpcio"))
    add_costs(report, open_release(find(given.release), verify=False))
    report.write(given.output)


if __name__ == "__main__":
    main()
