"""Releases change under full load: does a call fail, does an answer mix two releases, what does it cost?"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys.export.release import LABELS, Release, open_release
from recsys.files import write_atomically
from recsys.retrieval import Answer, Retriever
from serving.process import served
from twintower.client import Client
from twintower.errors import TwintowerError
from twintower.types import Query

TOLERANCE = 1e-5
SWAP_S = 60.0
POLL_S = 0.02


@dataclass
class Seen:
    """What the callers saw.

    Attributes:
        calls: answers by release name.
        failures: what calls raised.
        mixed: answers whose ids or scores are not those of the release that they name.
        latency_ms: of each answer.
        swap_s: from the wish until the next release answers, for each swap.
        rate: answers a second.
    """

    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    swap_s: list[float] = field(default_factory=list)
    rate: float = 0.0


def swaps(
    releases: Sequence[Release], scratch: Path, *, count: int = 20, threads: int = 4, k: int = 10, rest_s: float = 0.0
) -> Seen:
    """Swap between releases while threads ask, and compare every answer with what its release answers offline.

    Every other swap is a promotion that the server finds by itself; the others are `ReloadRelease`, and every fourth
    of those a roll back.

    Args:
        releases: at least two over the same query entities, with different answers.
        scratch: gets the folder that is served, and the server's log.
        count: swaps.
        threads: that ask all the time.
        k: places.
        rest_s: seconds between two swaps.
    """
    root = scratch / "releases"
    # Two of each, or the server would find the next one among those that it keeps, and load nothing.
    turns = [_copied(release, root / f"{release.name}-{copy}") for copy in (1, 2) for release in releases]
    queries = _queries(releases[0])
    expected = {release.fingerprint: Retriever.load(release.folder).nearest(queries, k) for release in releases}
    _promote(root, turns[0])
    seen, stopping = Seen(), threading.Event()
    with served(root, scratch, start_s=120.0, settings=["releases.watch_s=0.1"]) as client:
        asking = [
            threading.Thread(target=_ask, args=(client, queries, k, expected, seen, stopping, seed))
            for seed in range(threads)
        ]
        started = time.perf_counter()
        for thread in asking:
            thread.start()
        try:
            for turn in range(1, count + 1):
                time.sleep(rest_s)
                begun = time.perf_counter()
                _swap(client, root, turns[turn % len(turns)], turn)
                seen.swap_s.append(time.perf_counter() - begun)
        finally:
            stopping.set()
            for thread in asking:
                thread.join()
        seen.rate = len(seen.latency_ms) / (time.perf_counter() - started)
    return seen


def _swap(client: Client, root: Path, following: Release, turn: int) -> None:
    if turn % 2:
        _promote(root, following)
        deadline = time.monotonic() + SWAP_S
        while client.release().name != following.name:
            if time.monotonic() > deadline:
                raise TwintowerError(f"the server does not answer from {following.name} after {SWAP_S:g} s.")
            time.sleep(POLL_S)
        return
    held = client.roll_back_release() if turn % 8 == 0 else client.reload_release(following.name)
    if held.releases[0].fingerprint != following.fingerprint:
        raise TwintowerError(f"the server answers from {held.releases[0].name}, expected {following.name}.")
    # Folder and server agree again, so that the next promotion counts.
    _promote(root, following)
    client.reload_release()


def _copied(release: Release, folder: Path) -> Release:
    shutil.copytree(release.folder, folder, copy_function=os.symlink)
    return open_release(folder, verify=False)


def _promote(root: Path, release: Release) -> None:
    write_atomically(root / LABELS, json.dumps({"stable": release.name}))


def _ask(
    client: Client,
    queries: Sequence[Query],
    k: int,
    expected: Mapping[str, Sequence[Answer]],
    seen: Seen,
    stopping: threading.Event,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    while not stopping.is_set():
        place = int(random.integers(len(queries)))
        begun = time.perf_counter()
        try:
            ranking = client.nearest_items(queries[place], k)
        except TwintowerError as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
            continue
        seen.latency_ms.append((time.perf_counter() - begun) * 1000)
        seen.calls[ranking.release.name] += 1
        right = expected[ranking.release.fingerprint][place]
        if ranking.item_ids != right.item_ids or np.abs(ranking.scores - right.scores).max(initial=0) > TOLERANCE:
            seen.mixed.append(f"{ranking.release.name}: {ranking.item_ids} in place of {right.item_ids}")


def _queries(release: Release, most: int = 200) -> list[Query]:
    """Return queries by known entity and by item; the first search the towers, the second the vectors of a release."""
    items = pq.read_table(release.folder / "items.parquet")["item_id"].to_pylist()[:most]
    queries = [Query(item_ids=[item_id]) for item_id in items]
    if release.facts.query_entity != "features":
        known = pq.read_table(release.folder / "queries.parquet")["query_id"].to_pylist()[:most]
        queries += [Query(entity_id=query_id) for query_id in known]
    return queries


def main() -> None:
    """Swap between the releases given and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="+", type=Path, help="Two releases or more, over the same entities.")
    parser.add_argument("--scratch", type=Path, required=True, help="An empty folder.")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rest-s", type=float, default=1.0)
    given = parser.parse_args()
    releases = [open_release(folder, verify=False) for folder in given.releases]
    seen = swaps(releases, given.scratch, count=given.swaps, threads=given.threads, rest_s=given.rest_s)
    middle, late = np.percentile(seen.latency_ms, [50, 99])
    print(f"{len(seen.swap_s)} swaps, {np.median(seen.swap_s):.2f} s each; {seen.rate:.0f} answers/s")
    print(f"failed {len(seen.failures)}, mixed {len(seen.mixed)}; p50 {middle:.1f} ms, p99 {late:.1f} ms")
    for told in (seen.failures + seen.mixed)[:5]:
        print(told)


if __name__ == "__main__":
    main()
