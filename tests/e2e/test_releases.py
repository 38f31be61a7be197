"""Releases come and go while calls are answered: from the folder, by operators, damaged ones never."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.swaps import swaps
from recsys.cli import app
from recsys.errors import ReleaseError
from recsys.export.release import LABELS, Release, newest
from recsys.export.signature import sign, write_keys
from recsys.files import write_atomically
from serving.logs import make_logger
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Releases
from serving.server import Server
from serving.settings import Auth, ServerSettings
from serving.trust.callers import digest_of, new_key
from tests.worlds import copy_of
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import MissingError, ReleasePinError, ReleaseRefusedError, RequestError, UnauthenticatedError
from twintower.types import FeedbackItem, FeedbackKind, Query, Upsert

ASKED = Query(entity_id="user 3")


@contextmanager
def serving(root: Path, log: io.BytesIO | None = None, **settings: Any) -> Iterator[tuple[Client, ReleaseFolder]]:
    """A server over a folder that looks at it only when the test says so, and a client of it."""
    more = {name: settings.pop(name) for name in ("auth", "catalogue", "signature") if name in settings}
    given = ServerSettings(port=0, drain_s=5.0, releases={"watch_s": 0, **settings}, **more)
    logger = make_logger(log or io.BytesIO())
    folder = ReleaseFolder(root, Releases(), given, logger)
    server = Server(given, logger, folder)
    try:
        server.listen()
        folder.load()
        server.ready()
        folder.start()
        with Client(server.address, timeout_s=30.0) as client:
            yield client, folder
    finally:
        folder.stop()
        server.stop()


def promote(root: Path, **labels: Release) -> None:
    write_atomically(root / LABELS, json.dumps({label: release.name for label, release in labels.items()}))


def events(log: io.BytesIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]


@pytest.fixture
def root(block_release, other_block_release, tmp_path) -> Path:
    """A folder with both releases, the first one stable."""
    folder = tmp_path / "releases"
    for release in (block_release, other_block_release):
        copy_of(release, folder)
    promote(folder, stable=block_release)
    return folder


def test_twenty_swaps_under_load_fail_no_call_and_mix_no_answer(block_release, other_block_release, tmp_path):
    seen = swaps([block_release, other_block_release], tmp_path, count=20, threads=4)
    assert seen.failures == []
    assert seen.mixed == []
    assert len(seen.swap_s) == 20
    assert len(seen.calls) == 4
    assert min(seen.calls.values()) > 20


def test_a_promotion_in_the_folder_is_followed(root, block_release, other_block_release):
    with serving(root, watch_s=0.05) as (client, _):
        before = client.nearest_items(ASKED, 5)
        promote(root, stable=other_block_release)
        while client.release().name != other_block_release.name:
            pass  # the test's own timeout ends it
        after = client.nearest_items(ASKED, 5)
        held = client.releases()
    assert (before.release.name, after.release.name) == (block_release.name, other_block_release.name)
    assert not np.allclose(before.scores, after.scores)
    assert [(each.name, each.labels) for each in held.releases] == [
        (other_block_release.name, ("stable",)),
        (block_release.name, ()),
    ]


def test_a_damaged_release_is_refused_once_and_the_old_one_goes_on(root, block_release, other_block_release):
    # given: the next release lost a bit
    vectors = root / other_block_release.name / "item_embeddings.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    log = io.BytesIO()
    with serving(root, log) as (client, folder):
        promote(root, stable=other_block_release)
        # when
        for _ in range(3):
            folder.look()
        # then
        assert client.release().name == block_release.name
        (refused,) = client.releases().refused
        assert (refused.name, refused.label) == (other_block_release.name, "stable")
        assert "item_embeddings.npy: damaged" in refused.reason
        assert len(events(log, "release refused")) == 1
        with pytest.raises(ReleaseRefusedError, match="damaged"):
            client.reload_release(other_block_release.name)
        assert client.release().name == block_release.name
        # when: it is whole again
        vectors.write_bytes(whole)
        folder.look()
        # then
        assert client.release().name == other_block_release.name
        assert client.releases().refused == ()


def test_a_release_that_is_still_being_copied_is_taken_when_it_is_whole(root, block_release, other_block_release):
    arriving = root / other_block_release.name
    shutil.move(arriving / "query_tower", root / "later")
    with serving(root) as (client, folder):
        promote(root, stable=other_block_release)
        folder.look()
        assert client.release().name == block_release.name
        shutil.move(root / "later", arriving / "query_tower")
        folder.look()
        assert client.release().name == other_block_release.name


def test_a_roll_back_holds_against_the_folder_until_the_next_reload(root, block_release, other_block_release):
    with serving(root) as (client, folder):
        promote(root, stable=other_block_release)
        folder.look()
        # when
        (held,) = client.roll_back_release().releases
        # then
        assert (held.name, held.labels, held.rolled_back) == (block_release.name, ("stable",), True)
        folder.look()
        assert client.release().name == block_release.name
        with pytest.raises(MissingError, match="a label that had another release before"):
            client.roll_back_release()
        # when
        held = client.reload_release().releases[0]
        # then
        assert (held.name, held.rolled_back) == (other_block_release.name, False)


def test_a_release_loaded_by_name_stays_until_the_folder_says_something_new(root, block_release, other_block_release):
    with serving(root) as (client, folder):
        client.reload_release(other_block_release.fingerprint[:12])
        folder.look()
        assert client.release().name == other_block_release.name
        promote(root, stable=other_block_release)
        folder.look()
        promote(root, stable=block_release)
        folder.look()
        assert client.release().name == block_release.name


def test_an_order_for_a_release_that_is_gone_stops_the_start_and_says_where_it_stands(root, tmp_path):
    orders = tmp_path / "orders.json"
    orders.write_text(json.dumps({"stable": {"release": "gone-7", "over": "", "rolled_back": True}}))
    with pytest.raises(MissingError, match=rf"{orders}: stable: got 'gone-7'"), serving(root, orders_file=orders):
        pass


def test_a_label_of_a_release_that_is_gone_stops_the_start_and_says_where_it_stands(root):
    write_atomically(root / LABELS, json.dumps({"stable": "gone-7"}))
    with pytest.raises(MissingError, match=rf"{root / LABELS}: stable: got 'gone-7'"), serving(root):
        pass


def test_orders_reach_the_other_processes_of_a_server_and_outlive_them(
    root, block_release, other_block_release, tmp_path
):
    shared = {"orders_file": tmp_path / "orders.json"}
    with serving(root, **shared) as (client, folder), serving(root, **shared) as (other_client, other_folder):
        promote(root, stable=other_block_release)
        for each in (folder, other_folder):
            each.look()
        client.roll_back_release()
        other_folder.look()
        assert other_client.release().name == block_release.name
        assert other_client.releases().releases[0].rolled_back
    with serving(root, **shared) as (client, folder):
        assert client.release().name == block_release.name


def test_labels_and_pins_choose_among_several_releases(root, block_release, other_block_release):
    promote(root, stable=block_release, canary=other_block_release, archive=other_block_release)
    with serving(root) as (client, folder):
        stable, canary = client.nearest_items(ASKED, 5), client.nearest_items(ASKED, 5, release_label="canary")
        pinned = client.nearest_items(ASKED, 5, release_pin=other_block_release.fingerprint[:8])
        assert (stable.release.name, canary.release.name) == (block_release.name, other_block_release.name)
        assert (pinned.item_ids, pinned.release) == (canary.item_ids, canary.release)
        assert client.release(release_label="canary").labels == ("canary",)
        with pytest.raises(ReleasePinError, match=r"no label that is served named 'archive'\. .*canary, stable"):
            client.nearest_items(ASKED, 5, release_label="archive")
        with pytest.raises(RequestError, match="release_label: got 'canary' beside a release_pin"):
            client.nearest_items(ASKED, 5, release_label="canary", release_pin=block_release.name)
        with pytest.raises(RequestError, match="no label that this server serves named 'archive'"):
            client.reload_release(label="archive")
        # when: the folder no longer has a canary
        promote(root, stable=block_release)
        folder.look()
        # then
        with pytest.raises(ReleasePinError, match="canary"):
            client.nearest_items(ASKED, 5, release_label="canary")


def test_a_pinned_series_goes_on_with_the_release_before(root, block_release, other_block_release):
    with serving(root) as (client, _):
        pinned = client.nearest_items(ASKED, 5, release_pin=block_release.name)
        client.reload_release(other_block_release.name)
        again = client.nearest_items(ASKED, 5, release_pin=block_release.name)
    np.testing.assert_array_equal(pinned.scores, again.scores)


def test_a_session_keeps_the_release_that_it_began_with(root, block_release, other_block_release):
    liked = [FeedbackItem("item-ü5", FeedbackKind.LIKED)]
    with serving(root) as (client, _), client.session(ASKED, 5) as session:
        first = session.reformulate(liked)
        client.reload_release(other_block_release.name)
        client.reload_release(other_block_release.name)
        second = session.reformulate()
        assert client.nearest_items(ASKED, 5).release.name == other_block_release.name
    assert first.ranking.release == second.ranking.release
    np.testing.assert_array_equal(first.ranking.scores, second.ranking.scores)


def test_a_replaced_release_lives_until_its_calls_end_and_no_longer(root, other_block_release):
    with serving(root) as (client, folder):
        held = folder.releases.retriever()
        alive = weakref.ref(held)
        client.reload_release(other_block_release.name)
        folder.releases.drop("stable")
        assert held.nearest([ASKED], 1)[0].item_ids
        del held
        assert alive() is None


def test_without_labels_the_newest_release_is_served(root, block_release, other_block_release):
    (root / LABELS).unlink()
    for release, year in ((block_release, 2031), (other_block_release, 2030)):
        path = root / release.name / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "created": f"{year}-01-01T00:00:00+00:00"}))
    assert newest(root).name == block_release.name
    with serving(root) as (client, _):
        assert client.release().name == block_release.name


def test_a_broken_file_of_labels_changes_nothing(root, block_release):
    log = io.BytesIO()
    with serving(root, log) as (client, folder):
        (root / LABELS).write_text("{")
        folder.look()
        folder.look()
        assert client.release().name == block_release.name
    assert len(events(log, "folder of releases unusable")) == 1


def test_a_link_that_a_label_names_is_loaded_once_and_followed_when_it_changes(
    root, block_release, other_block_release
):
    current = root / "current"
    current.symlink_to(block_release.name)
    write_atomically(root / LABELS, json.dumps({"stable": "current"}))
    log = io.BytesIO()
    with serving(root, log) as (client, folder):
        held = folder.releases.held()
        for _ in range(3):
            folder.look()
        assert folder.releases.held() is held
        assert events(log, "release loaded") == []
        # when: it points to the other release
        current.unlink()
        current.symlink_to(root / other_block_release.name)
        for _ in range(3):
            folder.look()
        # then
        assert client.release().name == other_block_release.name
        assert len(events(log, "release loaded")) == 1
        assert client.roll_back_release().releases[0].name == block_release.name
        folder.look()
        assert client.release().name == block_release.name


def test_a_link_to_a_release_outside_of_the_folder_is_loaded_once(block_release, tmp_path):
    (tmp_path / "current").symlink_to(block_release.folder)
    log = io.BytesIO()
    with serving(tmp_path, log) as (client, folder):
        for _ in range(3):
            folder.look()
        assert events(log, "release loaded") == []
        held = folder.releases.held()
        client.reload_release("current")
        folder.look()
        assert folder.releases.held() is held


def test_a_label_that_points_outside_of_the_folder_is_refused(root, block_release, other_block_release):
    inner = root / "inner"
    inner.mkdir()
    shutil.move(root / block_release.name, inner)
    write_atomically(inner / LABELS, json.dumps({"stable": f"../{other_block_release.name}"}))
    expected = r"labels\.json: stable: got .*the name of a release in this folder"
    with pytest.raises(ReleaseError, match=expected), serving(inner):
        pass
    write_atomically(inner / LABELS, json.dumps({"stable": block_release.name}))
    log = io.BytesIO()
    with serving(inner, log) as (client, folder):
        write_atomically(inner / LABELS, json.dumps({"stable": f"../{other_block_release.name}"}))
        folder.look()
        assert client.release().name == block_release.name
    assert len(events(log, "folder of releases unusable")) == 1


def test_a_manifest_that_is_nested_too_deeply_neither_stops_the_watch_nor_the_server(root, block_release):
    log = io.BytesIO()
    with serving(root, log) as (client, folder):
        odd = root / "odd"
        odd.mkdir()
        (odd / "manifest.json").write_text("[" * 100_000)
        write_atomically(root / LABELS, json.dumps({"stable": "odd"}))
        folder.look()
        assert client.release().name == block_release.name
        (refused,) = client.releases().refused
        assert "nested too deeply" in refused.reason
        (root / LABELS).unlink()
        folder.look()
        assert events(log, "folder of releases unusable") == []


def test_with_keys_only_signed_releases_are_loaded_at_the_start_and_later(
    root, block_release, other_block_release, tmp_path
):
    write_keys(tmp_path / "ours", tmp_path / "ours.pub")
    write_keys(tmp_path / "other", tmp_path / "other.pub")
    required = {"signature": {"keys": [tmp_path / "ours.pub"]}}
    with pytest.raises(ReleaseError, match="not signed"), serving(root, **required):
        pass
    sign(root / block_release.name / "manifest.json", tmp_path / "ours")
    log = io.BytesIO()
    with serving(root, log, **required) as (client, folder):
        # when: the next one has no signature, then one of an unknown key, then of ours
        promote(root, stable=other_block_release)
        folder.look()
        assert "not signed" in client.releases().refused[0].reason
        with pytest.raises(ReleaseRefusedError, match="not signed"):
            client.reload_release(other_block_release.name)
        sign(root / other_block_release.name / "manifest.json", tmp_path / "other")
        folder.look()
        assert "signature.json: key: got" in client.releases().refused[0].reason
        assert client.release().name == block_release.name
        sign(root / other_block_release.name / "manifest.json", tmp_path / "ours")
        folder.look()
        # then
        assert client.release().name == other_block_release.name
        assert client.release().fingerprint == other_block_release.fingerprint


def test_a_release_that_only_an_arm_names_needs_a_signature_too(root, block_release, other_block_release, tmp_path):
    write_keys(tmp_path / "ours", tmp_path / "ours.pub")
    sign(root / block_release.name / "manifest.json", tmp_path / "ours")
    with serving(root, signature={"keys": [tmp_path / "ours.pub"]}) as (_, folder):
        with pytest.raises(ReleaseError, match="not signed"):
            folder.hold([other_block_release.name])
        assert dict(folder.releases.holding.named) == {}


def test_one_release_is_served_as_it_is_and_not_watched(block_release):
    before = threading.active_count()
    with serving(block_release.folder, watch_s=0.05) as (client, _):
        assert client.release().labels == ("stable",)
        assert client.reload_release().releases[0].name == block_release.name
        assert "watch-releases" not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 8


def test_operators_work_from_the_command_line_too(root, block_release, other_block_release):
    with serving(root) as (client, _):

        def run(*words: str) -> str:
            done = CliRunner().invoke(app, ["release", *words], env={"COLUMNS": "200"}, catch_exceptions=False)
            assert done.exit_code == 0
            return done.stdout

        address = client.target
        assert block_release.name in run("held", address)
        assert "kept to roll back to" in run("reload", address, "--release", other_block_release.name)
        assert "rolled back" in run("roll-back", address)
        assert client.release().name == block_release.name


def test_operators_show_their_token_on_the_command_line(root, block_release, tmp_path):
    key = new_key()
    (tmp_path / "auth.toml").write_text(f'[callers.ops]\nrole = "operate"\nkeys_sha256 = ["{digest_of(key)}"]')
    (tmp_path / "token").write_text(key)
    with serving(root, auth=Auth(file=tmp_path / "auth.toml")) as (client, _):
        asked = ["release", "held", client.target]
        shown = CliRunner().invoke(app, [*asked, "--token-file", str(tmp_path / "token")], env={"COLUMNS": "200"})
        assert block_release.name in shown.stdout
        assert isinstance(CliRunner().invoke(app, asked).exception, UnauthenticatedError)


def test_the_asyncio_client_does_the_same(root, other_block_release, tmp_path):
    async def work(address: str) -> None:
        async with AsyncClient(address, timeout_s=30.0) as client:
            held = await client.reload_release(other_block_release.name)
            assert held == await client.releases()
            assert held.releases[0].labels == (await client.release()).labels == ("stable",)
            done = await client.upsert_items([Upsert("ny", vector=np.ones(8, np.float32))])
            assert (done.added_count, done.release.name) == (1, other_block_release.name)
            assert (await client.delete_items(["ny", "b"])).missing_ids == ("b",)
            assert (await client.catalog()).sequence == 2
            assert (await client.roll_back_release()).releases[0].rolled_back

    with serving(root, catalogue={"folder": tmp_path / "changes"}) as (client, _):
        asyncio.run(work(client.target))
