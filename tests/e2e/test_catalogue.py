"""Items come and go while calls are answered: at once, in every process, through restarts, swaps and kills."""

from __future__ import annotations

import io
import json
import resource
import signal
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.retrieval import Retriever
from recsys.retrieval.item_encoder import ItemEncoder
from serving.arms.experiments import Experiments
from serving.runtime.catalogue_log import CatalogueLog
from serving.runtime.live_catalogue import LiveCatalogue
from serving.runtime.releases import Held, Releases
from serving.runtime.steps import alone
from serving.servicers.recommendation import RecommendationServicer
from serving.settings import ServerSettings
from tests.e2e.test_process import serving as serving_process
from tests.e2e.test_releases import promote, root, serving  # noqa: F401
from twintower.client import Client
from twintower.errors import CatalogReadOnlyError, RequestError, UnavailableError
from twintower.types import Origin, Query, Upsert
from twintower.v1 import recommendation_service_pb2 as pb

VECTOR = np.eye(8, dtype=np.float32)[2]


def features_of(folder: Path, row: int) -> dict[str, Any]:
    columns = pq.read_table(folder / "items.parquet").slice(row, 1).to_pylist()[0]
    return {name: columns[name] for name in ("taste", "tags", "price", "title", "vector")}


def test_an_item_by_vector_can_be_retrieved_at_once_in_every_process(block_release, tmp_path):
    kept = {"catalogue": {"folder": tmp_path / "log"}}
    with serving(block_release.folder, **kept) as (one, _), serving(block_release.folder, **kept) as (other, _):
        done = one.upsert_items([Upsert("ny", vector=VECTOR, metadata={"title": "Ny", "price": 2.5})])
        assert (done.sequence, done.added_count, done.replaced_count) == (1, 1, 0)
        assert done.release.fingerprint == block_release.fingerprint
        for client in (one, other):
            found = client.nearest_items(Query(vector=VECTOR), 1, include_metadata=True)
            assert (found.item_ids, found.metadata) == (("ny",), ({"title": "Ny", "taste": None},))
            assert client.nearest_items(Query(item_ids=["ny"]), 3).missing_ids == ()
        # when: it is removed by the other one
        gone = other.delete_items(["ny", "item-ü1", "nothing", "nothing"])
        # then
        assert (gone.sequence, gone.missing_ids) == (2, ("nothing",))
        for client in (one, other):
            assert not {"ny", "item-ü1"} & set(client.nearest_items(Query(vector=VECTOR), 100).item_ids)
            state = client.catalog()
            assert (state.sequence, state.item_count, state.upserted_count, state.deleted_count) == (2, 39, 0, 1)
        assert one.upsert_items([Upsert("ny", vector=VECTOR)]).added_count == 1
        assert one.upsert_items([Upsert("ny", vector=VECTOR)]).replaced_count == 1


def test_an_item_by_features_gets_the_vector_that_training_gave_its_equal(block_release, tmp_path):
    # given: the features of item 4 under its own id, which the tower has learned, and under a new one
    features, trained = features_of(block_release.folder, 4), np.load(block_release.folder / "item_embeddings.npy")
    with serving(block_release.folder, catalogue={"folder": tmp_path / "log"}) as (client, _):
        before = client.nearest_items(Query(vector=trained[4]), 40)
        client.upsert_items([Upsert("item-ü4", features=features), Upsert("twin", features=features)])
        after = client.nearest_items(Query(vector=trained[4]), 41)
    scores = dict(zip(after.item_ids, after.scores.tolist(), strict=True))
    assert scores["item-ü4"] == pytest.approx(1.0, abs=1e-5)
    assert scores["twin"] > np.median(before.scores)
    assert len(scores) == 41


def test_an_id_has_a_longest_length_in_bytes(block_release, tmp_path):
    with serving(block_release.folder, catalogue={"folder": tmp_path / "log", "max_id_bytes": 9}) as (client, _):
        # ü is two bytes
        assert client.upsert_items([Upsert("1234567ü", vector=VECTOR)]).added_count == 1
        with pytest.raises(RequestError, match=r"items\[1\]\.item_id: got 10 bytes, expected at most 9"):
            client.upsert_items([Upsert("a", vector=VECTOR), Upsert("12345678ü", vector=VECTOR)])
        assert client.catalog().upserted_count == 1
    assert ServerSettings().catalogue.max_id_bytes == 1024


def test_writes_to_a_full_disk_are_refused_in_one_short_log_line_and_taken_again_afterwards(block_release, tmp_path):
    log, before = io.BytesIO(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(block_release.folder, log, catalogue={"folder": tmp_path / "log"}) as (client, _):
        client.upsert_items([Upsert("first", vector=VECTOR)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            started = time.monotonic()
            for _ in range(5):
                with pytest.raises(UnavailableError, match="the server cannot write at the moment"):
                    client.upsert_items([Upsert("second", vector=VECTOR)])
            lasted_s = time.monotonic() - started
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        client.upsert_items([Upsert("third", vector=VECTOR)])
        assert client.catalog().upserted_count == 2
    lines = log.getvalue().splitlines()
    refused = [json.loads(line) for line in lines if json.loads(line)["event"] == "write refused"]
    # one line, and one more for each ten seconds
    assert 1 <= len(refused) <= 1 + lasted_s / 10
    assert "File too large" in refused[0]["reason"]
    assert max(map(len, lines)) < 1000
    assert not any("exception" in json.loads(line) for line in lines)


def test_a_restart_finds_everything_again(block_release, tmp_path):
    kept = {"catalogue": {"folder": tmp_path / "log", "compact_bytes": 1000}}
    with serving(block_release.folder, **kept) as (client, folder):
        for place in range(30):
            client.upsert_items([Upsert(f"n{place % 10}", vector=np.roll(VECTOR, place), metadata={"title": place})])
        client.delete_items(["n3", "item-ü7"])
        before = client.nearest_items(Query(vector=VECTOR), 100, include_metadata=True), client.catalog()
        while folder.log.compacted_bytes == 0:
            pass  # the test's own timeout ends it
    with serving(block_release.folder, **kept) as (client, _):
        after = client.nearest_items(Query(vector=VECTOR), 100, include_metadata=True), client.catalog()
    assert dict(zip(before[0].item_ids, before[0].metadata, strict=True)) == dict(
        zip(after[0].item_ids, after[0].metadata, strict=True)
    )
    np.testing.assert_array_equal(before[0].scores, after[0].scores)
    assert before[1] == after[1]
    assert after[1].sequence == 31


def test_a_swap_encodes_features_anew_and_refuses_vectors(root, block_release, other_block_release, tmp_path):  # noqa: F811
    features = features_of(block_release.folder, 6)
    with serving(root, catalogue={"folder": tmp_path / "log"}) as (client, folder):
        client.upsert_items([Upsert("by features", features=features), Upsert("by vector", vector=VECTOR)])
        client.upsert_items([Upsert("item-ü2", vector=VECTOR)])
        client.delete_items(["item-ü9"])
        assert client.catalog().refused_ids == ()
        # when
        promote(root, stable=other_block_release)
        folder.look()
        # then
        state = client.catalog()
        assert state.release.name == other_block_release.name
        assert sorted(state.refused_ids) == ["by vector", "item-ü2"]
        assert (state.item_count, state.upserted_count, state.deleted_count) == (40, 1, 1)
        (expected,) = ItemEncoder(other_block_release).encode(["by features"], [features])
        found = client.nearest_items(Query(vector=expected), 100)
        scores = dict(zip(found.item_ids, found.scores.tolist(), strict=True))
        assert scores["by features"] == pytest.approx(1.0, abs=1e-5)
        assert "by vector" not in scores
        assert "item-ü9" not in scores
        own = np.load(other_block_release.folder / "item_embeddings.npy")
        assert scores["item-ü2"] == pytest.approx(float(own[2] @ expected), abs=1e-5)
        # when: the vector is upserted again, to the release that answers
        client.upsert_items([Upsert("by vector", vector=VECTOR)], release_pin=other_block_release.name)
        assert client.catalog().refused_ids == ("item-ü2",)
        # and on the way back it is the other one that is refused
        client.roll_back_release()
        assert client.catalog().refused_ids == ("by vector",)


def test_a_server_without_a_log_takes_no_changes(block_release):
    with serving(block_release.folder) as (client, _):
        for call in (lambda: client.upsert_items([Upsert("a", vector=VECTOR)]), lambda: client.delete_items(["a"])):
            with pytest.raises(CatalogReadOnlyError, match=r"catalogue\.folder"):
                call()
        with pytest.raises(CatalogReadOnlyError):
            client.catalog()


WRONG = [
    ([], "items", "got 0, expected 1 to 3"),
    ([Upsert(f"{place}", vector=VECTOR) for place in range(4)], "items", "got 4, expected 1 to 3"),
    ([Upsert("", vector=VECTOR)], "items[0].item_id", "got none"),
    ([Upsert("a", vector=VECTOR)] * 2, "items[1].item_id", "got the id of items[0]"),
    ([Upsert("a")], "items[0]", "got no source"),
    ([Upsert("a", vector=VECTOR[:3])], "items[0].vector", "got shape (3,), expected (8,)"),
    ([Upsert("a", vector=np.full(8, np.inf, np.float32))], "items[0].vector", "got NaN, infinity"),
    # 8 * (3e19)^2 = 7.2e39 is beyond float32: against a query it might become infinity or NaN
    ([Upsert("a", vector=np.full(8, 3e19, np.float32))], "items[0].vector", "a length beyond float32"),
    ([Upsert("a", vector=VECTOR), Upsert("b", features={"tast": 1})], "items[1].features.tast", "no item feature"),
    ([Upsert("a", features={"vector": [1.0]})], "items[0].features.vector", "expected vectors of 3"),
    ([Upsert("a", vector=VECTOR, metadata={"titel": ""})], "items[0].metadata.titel", "Did you mean 'title'?"),
    (
        [Upsert("a", vector=VECTOR, metadata={"price": "cheap"})],
        "items[0].metadata.price",
        "got 'cheap', expected double",
    ),
    ([Upsert("a", vector=VECTOR, metadata={"tags": {"b": 1}})], "items[0].metadata.tags", "expected list<"),
]


@pytest.fixture(scope="module")
def small(block_release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    with serving(block_release.folder, catalogue={"folder": folder, "max_upserts": 3, "max_deletes": 2}) as (up, _):
        yield up


@pytest.mark.parametrize(("items", "field", "reason"), WRONG, ids=[f"{field}: {reason}" for _, field, reason in WRONG])
def test_a_wrong_upsert_is_named_by_its_place_and_changes_nothing(small, items, field, reason):
    with pytest.raises(RequestError) as caught:
        small.upsert_items(items)
    assert caught.value.field == field
    assert reason in caught.value.reason
    assert small.catalog().sequence == 0


def test_a_wrong_delete_is_named(small):
    for item_ids, reason in (([], "got 0, expected 1 to 2"), (["a", "b", "c"], "got 3, expected 1 to 2")):
        with pytest.raises(RequestError, match=reason):
            small.delete_items(item_ids)


def test_readers_never_see_half_of_a_call(block_release, tmp_path):
    # given: pairs that are upserted and removed together
    stopping, halves = threading.Event(), []
    with serving(block_release.folder, catalogue={"folder": tmp_path / "log"}) as (client, _):

        def watch() -> None:
            while not stopping.is_set():
                found = set(client.nearest_items(Query(vector=VECTOR), 100).item_ids)
                if len(found & {"left", "right"}) == 1:
                    halves.append(found)

        with futures.ThreadPoolExecutor(2) as pool:
            watching = [pool.submit(watch) for _ in range(2)]
            for _ in range(50):
                client.upsert_items([Upsert("left", vector=VECTOR), Upsert("right", vector=VECTOR)])
                client.delete_items(["left", "right"])
            stopping.set()
            for each in watching:
                each.result()
    assert halves == []


def test_a_kill_in_the_middle_of_a_thousand_upserts_loses_none_that_was_acknowledged(block_release, tmp_path):
    log = f"catalogue.folder={tmp_path / 'changes'}"
    acknowledged: list[str] = []
    with serving_process(block_release, tmp_path, "--set", log) as (process, client):

        def write(writer: int) -> None:
            for place in range(250):
                item_id = f"{writer}-{place}"
                try:
                    client.upsert_items([Upsert(item_id, vector=VECTOR)])
                except UnavailableError:
                    return
                acknowledged.append(item_id)
                if len(acknowledged) == 400:
                    process.send_signal(signal.SIGKILL)

        with futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert process.wait(30) == -signal.SIGKILL
    assert 400 <= len(acknowledged) < 1000
    with serving_process(block_release, tmp_path, "--set", log) as (_, client):
        found = client.nearest_items(Query(vector=VECTOR), 1000)
        assert set(acknowledged) <= set(found.item_ids)
        # a call that was not acknowledged may have arrived, at most one for each writer
        assert client.catalog().upserted_count <= len(acknowledged) + 4
        assert found.origin is Origin.VECTOR
        assert client.upsert_items([Upsert("next", vector=VECTOR)]).added_count == 1


def test_an_unchanged_catalogue_answers_with_the_release_s_own_retriever(block_release, tmp_path):
    retriever = Retriever.load(block_release.folder)
    assert LiveCatalogue(retriever, CatalogueLog(tmp_path), 1000).retriever() is retriever


def test_a_call_that_must_read_changes_first_does_not_do_so_among_others(block_release, tmp_path):
    retriever = Retriever.load(block_release.folder)
    releases = Releases()
    releases.install(Held(retriever, LiveCatalogue(retriever, CatalogueLog(tmp_path), 1000)))
    settings = ServerSettings()
    experiments = Experiments(settings.experiments, releases, None, None)
    servicer = RecommendationServicer(releases, settings, experiments)
    request = pb.NearestItemsRequest(k=3)
    request.query.vector.values.values.extend(VECTOR.tolist())
    assert next(servicer.NearestItems(request, None)).alike is not None
    # when another process of the server has written a change
    with serving(block_release.folder, catalogue={"folder": tmp_path}) as (client, _):
        client.upsert_items([Upsert("new", vector=100 * VECTOR)])
    first = next(servicer.NearestItems(request, None))
    moved = next(servicer.Reformulate(pb.ReformulateRequest(query=request.query, k=3), None))
    assert (first.alike, moved.alike) == (None, None)
    # then whoever reads it does so for all
    response = pb.NearestItemsResponse.FromString(alone(servicer.NearestItems(request, None)))
    assert response.result.item_ids[0] == "new"
    assert next(servicer.NearestItems(request, None)).alike is not None


def test_changes_made_by_several_clients_at_once_are_all_there(block_release, tmp_path):
    kept = {"catalogue": {"folder": tmp_path / "log"}}
    with serving(block_release.folder, **kept) as (one, _), serving(block_release.folder, **kept) as (other, _):

        def write(writer: int) -> int:
            client: Client = (one, other)[writer % 2]
            items = [[Upsert(f"{writer}-{place}", vector=VECTOR), Upsert("same", vector=VECTOR)] for place in range(20)]
            return sum(client.upsert_items(pair).added_count for pair in items)

        with futures.ThreadPoolExecutor(4) as pool:
            added = sum(pool.map(write, range(4)))
        # 4 writers, 20 ids each, and one that all of them wrote: it was new only once
        assert added == 81
        for client in (one, other):
            state = client.catalog()
            assert (state.sequence, state.upserted_count) == (80, 81)
