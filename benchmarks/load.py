"""What a measurement of a server needs around it: cores, `h2load`, an empty server, memory of processes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import wire
from twintower.errors import TwintowerError

H2LOAD = shutil.which("h2load")
CONNECTIONS = 8
LISTENING = "0A"
"""The state in `/proc/net/tcp` and `tcp6`."""
WARM_UP_RATE = 0.2
"""Share of a block that is driven before it counts."""


def calls_per_s(target: str, method: str, messages: Sequence[bytes], *, callers: int, seconds: float) -> float:
    """Return how many calls a second a number of callers gets answered, each waiting for its answer.

    `h2load` sends the first message over and over; where it is not installed, the generator of `benchmarks.wire` sends
    all of them in turns.

    Args:
        target: `host:port`.
        method: full name, `/package.Service/Method`.
        messages: serialised requests.
        callers: calls in flight.
        seconds: that are measured, after a warm-up.

    Raises:
        TwintowerError: calls failed.
    """
    warm_up_s = WARM_UP_RATE * seconds
    if H2LOAD is None:
        wire.closed(target, method, messages, callers=callers, seconds=warm_up_s)
        return wire.closed(target, method, messages, callers=callers, seconds=seconds).goodput
    connections = min(callers, CONNECTIONS)
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(messages[0])) + messages[0])
        body.flush()
        command = [H2LOAD, "-c", str(connections), "-m", str(callers // connections), "-t", "1"]
        command += ["-D", f"{seconds * 1000:.0f}ms", "--warm-up-time", f"{warm_up_s * 1000:.0f}ms", "-d", body.name]
        command += ["-H", "te: trailers", "-H", "content-type: application/grpc", f"http://{target}{method}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds * 2 + 60).stdout
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    if done is None or int(done[1]) == 0 or any(int(done[place]) for place in (2, 3, 4)):
        raise TwintowerError(f"h2load against {method}: {done[0] if done else said.strip()[-500:]}.")
    return int(done[1]) / seconds


@contextmanager
def bare_server(threads: int, scratch: Path) -> Iterator[str]:
    """Run `benchmarks.bare_server` while the block runs; yield its address."""
    port_file = scratch / "bare.port"
    command = [sys.executable, "-m", "benchmarks.bare_server", str(port_file), str(threads)]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        while not port_file.exists():
            if server.poll() is not None:
                raise TwintowerError(f"the empty server ended with code {server.returncode}.")
            time.sleep(0.05)
        yield f"127.0.0.1:{port_file.read_text(encoding='ascii').strip()}"
    finally:
        server.kill()
        server.wait()


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, in the order of their start."""
    try:
        told = [each.read_text(encoding="ascii") for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it, or a thread of it, has ended
        told = []
    own = [int(child) for each in told for child in each.split()]
    return [pid, *(found for child in sorted(own) for found in family(child))]


def memory_of(pid: int) -> tuple[int, int]:
    """Return a process's resident set, and that with shared pages divided by those who share them, bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    resident, proportional = (re.search(rf"^{name}: +(\d+) kB", rollup, re.M) for name in ("Rss", "Pss"))
    return int(resident[1]) * 1024, int(proportional[1]) * 1024


def listens(pid: int, address: str) -> bool:
    """Tell whether a process holds a socket that listens on the port of `host:port`."""
    port = int(address.rpartition(":")[2])
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))  # gRPC listens on IPv6 for IPv4, too
    rows = [line.split() for table in tables for line in table.read_text(encoding="ascii").splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port}
    try:
        held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it has ended
        return False
    return any(f"socket:[{inode}]" in held for inode in inodes)
