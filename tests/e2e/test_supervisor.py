"""Several server processes behind one port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.telemetry.reading import read
from tests.e2e.test_process import lines_of
from twintower.client import Client
from twintower.types import Query

AT_MOST_S = 120
PLAN = "[experiments.a]\narms = { control = { share = 0.5 }, b = { share = 0.5 } }\n"
ACCEPTED = "experiments accepted"


def wait_until(reached: Callable[[], bool], group: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + AT_MOST_S
    while not reached():
        assert group.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)


@contextmanager
def serving(releases: Path, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Two workers on one port that are ready; `folder` gets `port` and `log`."""
    command = [sys.executable, "-m", "serving", str(releases), "--port", "0", "--set", "processes=2", *options]
    with (folder / "log").open("wb") as log:
        group = subprocess.Popen([*command, "--port-file", str(folder / "port")], stdout=log, stderr=log)
    try:
        wait_until((folder / "port").exists, group, folder)
        yield group
    finally:
        group.kill()
        group.wait()


def workers_of(group: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{group.pid}/task/{group.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def is_gone(pid: int) -> bool:
    try:
        # A process that has ended may still stand there as a zombie until its new parent asks for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_workers_share_a_port_are_replaced_and_end_with_the_one_that_started_them(block_release, tmp_path):
    # given: two workers on one port, and what one of an earlier server left, which was not ready in the end
    left = tmp_path / "metrics" / f"gauge_livemin_{2**22}.db"
    left.parent.mkdir()
    left.write_bytes(b"")
    options = ("--set", "telemetry.metrics_port=0", "--set", f"telemetry.metrics_folder={left.parent}")
    with serving(block_release.folder, tmp_path, *options) as group:
        assert not left.exists()
        port = int((tmp_path / "port").read_text())
        first, second = workers_of(group)
        with Client(f"127.0.0.1:{port}", timeout_s=60.0) as client:
            assert client.nearest_items(Query(entity_id="user 1"), 3).item_ids

        # when one is killed, then another takes its place, and calls are answered meanwhile and afterwards
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(set(workers_of(group)) - {first, second}) == 1, group, tmp_path)
        found_ready: list[bool] = []

        def replaced() -> bool:
            # The kernel gives the replacement some of the new connections as soon as it listens: it must be ready then.
            for _ in range(20):
                with Client(f"127.0.0.1:{port}", timeout_s=60.0) as client:
                    found_ready.append(client.is_serving())
            return sum(line["event"] == "serving" and "release" in line for line in lines_of(tmp_path)) == 3

        wait_until(replaced, group, tmp_path)
        assert all(found_ready)
        with Client(f"127.0.0.1:{port}", timeout_s=60.0) as client:
            assert client.nearest_items(Query(entity_id="user 1"), 3).item_ids
        (served,) = (line for line in lines_of(tmp_path) if "processes" in line)
        # One port shows what both processes counted: the call before the death and the one after it.
        assert read(served["metrics"]).total("recsys_rpc_duration_seconds_count", rpc="NearestItems") == 2
        (died,) = (line for line in lines_of(tmp_path) if line["event"] == "worker died")
        assert died["exit_code"] == -signal.SIGKILL

        # when the one that started them is killed, then they end, too
        left = workers_of(group)
        group.kill()
        group.wait()
        deadline = time.monotonic() + AT_MOST_S
        while not all(is_gone(pid) for pid in left):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_workers_that_still_load_end_at_once_with_their_supervisor_and_leave_no_folder(block_release, tmp_path):
    # given: workers that load for ever, as reading this pipe does
    os.mkfifo(tmp_path / "auth.toml")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "serving", str(block_release.folder), "--port", "0", "--set", "processes=2"]
    command += ["--set", f"auth.file={tmp_path / 'auth.toml'}"]
    group = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(workers_of(group)) == 2, group, tmp_path)
    left = workers_of(group)
    for pid in left:
        wait_until(lambda pid=pid: "libarrow" in Path(f"/proc/{pid}/maps").read_text(), group, tmp_path)
    assert list(scratch.iterdir())
    # when
    group.kill()
    group.wait()
    # then
    deadline = time.monotonic() + AT_MOST_S
    while not all(is_gone(pid) for pid in left) or list(scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_that_serve_remove_the_folder_of_a_supervisor_that_was_killed(block_release, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    with serving(block_release.folder, tmp_path) as group:
        left = workers_of(group)
        assert list(scratch.iterdir())
    deadline = time.monotonic() + AT_MOST_S
    while not all(is_gone(pid) for pid in left) or list(scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_worker_follows_the_experiment_file_and_ends_well_on_sigterm(block_release, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    options = ("--set", f"experiments.file={plan}", "--set", "experiments.look_s=0.1")
    with serving(block_release.folder.parent, tmp_path, *options) as group:
        plan.write_text(PLAN + "traffic_rate = 0.1\n")
        wait_until(lambda: [line["event"] for line in lines_of(tmp_path)].count(ACCEPTED) == 4, group, tmp_path)
        group.send_signal(signal.SIGTERM)
        assert group.wait(AT_MOST_S) == 0
    events = [line["event"] for line in lines_of(tmp_path)]
    assert events.count("stopped") == 2
    assert "worker killed" not in events
    assert not (tmp_path / "port").exists()


def test_a_release_that_no_worker_can_serve_is_told_once(tmp_path):
    command = [sys.executable, "-m", "serving", str(tmp_path / "nothing"), "--port", "0", "--set", "processes=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=AT_MOST_S, check=False)
    assert done.returncode == 2
    assert done.stderr.count("nothing") == 1
    assert "Traceback" not in done.stderr
