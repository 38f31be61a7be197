"""The server as a process: its signals, its port, its exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys.export.release import Release
from tests.worlds import copy_of
from twintower.client import Client
from twintower.types import Query, Upsert


@contextmanager
def serving(release: Release, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """A server process that is ready, and a client of it; `folder` gets `port` and `log`."""
    command = [sys.executable, "-m", "serving", str(release.folder), "--port", "0", "--port-file", str(folder / "port")]
    command += options
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with Client(f"127.0.0.1:{port_of(process, folder)}", timeout_s=60.0) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Wait until the log says that the server is ready, and return what the port file says."""
    deadline = time.monotonic() + 120
    while not any(line["event"] == "serving" for line in lines_of(folder)):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int((folder / "port").read_text())


def test_a_server_that_requires_a_signature_starts_with_a_signed_release_only(block_release, tmp_path):
    release, key = copy_of(block_release, tmp_path), tmp_path / "release-key"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "recsys.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert run("release", "keygen", key).returncode == 0
    refused = run("serve", release.folder, "--port", "0", "--require-signature", f"{key}.pub")
    assert (refused.returncode, refused.stderr.count("not signed, and a signature is required")) == (2, 1)
    assert "not signed" in run("release", "verify", release.folder, "--key", f"{key}.pub").stderr
    # when
    assert "signed with key" in run("release", "sign", release.folder, "--key", key).stdout
    # then
    assert run("release", "verify", release.folder, "--key", f"{key}.pub").returncode == 0
    with serving(release, tmp_path, "--require-signature", f"{key}.pub") as (_, client):
        assert client.release().fingerprint == block_release.fingerprint


def test_a_server_answers_and_takes_items_by_features_without_tensorflow(block_release, tmp_path):
    items = pq.read_table(block_release.folder / "items.parquet").slice(4, 1).to_pylist()[0]
    features = {name: items[name] for name in ("taste", "tags", "price", "title", "vector")}
    with serving(block_release, tmp_path, "--set", f"catalogue.folder={tmp_path / 'catalogue'}") as (process, client):
        assert client.nearest_items(Query(entity_id="user 1"), 3).item_ids
        assert client.upsert_items([Upsert("twin", features=features)]).added_count == 1
        assert "tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "log").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_sigterm_lets_running_calls_end_and_the_process_ends_well(block_release, tmp_path):
    # given: a port file of a server that was killed, and four calls that take a while: 1,024 lists of 40 items each
    # with their display columns
    (tmp_path / "port").write_text("1")
    queries = [Query(entity_id=f"user {place % 60}") for place in range(1024)]
    patient = ("--set", "drain_s=100")
    with serving(block_release, tmp_path, *patient) as (process, client), futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.batch_nearest_items, queries, 40, include_metadata=True) for _ in range(4)]
        time.sleep(0.5)
        # when
        process.send_signal(signal.SIGTERM)
        # then
        assert [len(call.result(60)) for call in calls] == [1024] * 4
        assert process.wait(30) == 0
        events = [line["event"] for line in lines_of(tmp_path)]
        assert sorted(events) == ["call"] * 4 + ["draining", "serving", "stopped"]
        assert events[-2:] == ["call", "stopped"]
        assert not (tmp_path / "port").exists()


def test_an_interrupt_from_the_keyboard_is_an_orderly_end_too(block_release, tmp_path):
    with serving(block_release, tmp_path) as (process, client):
        assert client.release().fingerprint == block_release.fingerprint
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_port_in_use_is_one_sentence_and_exit_code_two(block_release):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "serving", str(block_release.folder), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_release_that_does_not_exist_is_one_sentence_and_exit_code_two(tmp_path):
    command = [sys.executable, "-m", "serving", str(tmp_path / "nothing"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


WRONG = (
    ["--port", "70000"],
    ["--set", "worker_threads=0"],
    ["--set", "no_such=1"],
    ["--settings", "absent.toml"],
    ["--set", "auth.file=absent.toml"],
)


@pytest.mark.parametrize("option", WRONG, ids=" ".join)
def test_a_setting_out_of_its_range_is_named_before_anything_is_loaded(block_release, option):
    command = [sys.executable, "-m", "serving", str(block_release.folder), *option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert option[1].partition("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
