"""A load generator on the wire of gRPC: rotating requests, the status of every call, closed and open loop, one thread.

`h2load` sends one body over and over, does not read trailers, where gRPC's status stands, and paces calls in ticks of
10 ms. This one rotates bodies, counts statuses, keeps answers, and sends at the times of a Poisson process; latency is
counted from the time at which a call was due, so that a slow server cannot hide behind a waiting generator.

It speaks as much of HTTP/2 (RFC 9113) as a gRPC server needs: it turns off the table of header compression, so that
`grpc-status` comes as plain text.
"""

from __future__ import annotations

import gc
import re
import selectors
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import grpc
import numpy as np
from numpy.typing import NDArray

from twintower.errors import TwintowerError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1
FRAME_BYTES = 16_384
FEW_STREAMS, UNLIMITED = 100, 2**31
"""Streams at once on a connection: before the server has named its limit, and where it has none (RFC 9113, 6.5.2)."""
STATUS = re.compile(rb"grpc-status(?:\x01(\d)|\x02(\d\d))")
CODES = {code.value[0]: code.name for code in grpc.StatusCode}
RESETS = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
"""What gRPC makes of a stream's error code; all others are INTERNAL."""
NO_METADATA: Mapping[str, str] = MappingProxyType({})
UNFINISHED = "UNFINISHED"
CONNECTIONS = 8
GRACE_S = 10.0
SPIN_S = 0.0002


@dataclass(frozen=True)
class Outcome:
    """What became of the calls of one drive; the arrays have one entry for each call, in the order they ended.

    Attributes:
        seconds: for which calls were sent.
        ended_s: `[calls]`, float64, seconds from the start.
        latency_s: `[calls]`, float64, from when the call was due (open loop) or sent (closed loop).
        ok: `[calls]`, bool, whether the status was OK.
        statuses: calls by the name of their status; those that did not end in time are `UNFINISHED`.
        late_s: `[calls sent]`, float64, open loop: how much later than due each call was sent.
        answers: the last answer to each body, by its place: the message's bytes.
    """

    seconds: float
    ended_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    ok: NDArray[np.bool_]
    statuses: Counter[str]
    late_s: NDArray[np.float64]
    answers: dict[int, bytes]

    @property
    def goodput(self) -> float:
        """Calls a second that ended with OK while calls were sent."""
        return int((self.ok & (self.ended_s <= self.seconds)).sum()) / self.seconds

    def latency_ms(self, percentile: float) -> float:
        """Return a percentile (0..100) of the latency of calls that ended with OK, milliseconds; NaN without any."""
        good = self.latency_s[self.ok]
        return float(np.percentile(good, percentile)) * 1000 if len(good) else float("nan")


def closed(
    target: str,
    method: str,
    messages: Sequence[bytes],
    *,
    callers: int,
    seconds: float,
    metadata: Mapping[str, str] = NO_METADATA,
) -> Outcome:
    """Call with so many callers, each of which waits for its answer and calls again.

    Args:
        target: `host:port`.
        method: full name, `/package.Service/Method`.
        messages: serialised requests, taken in turns.
        callers: calls in flight.
        seconds: for which to send.
        metadata: of each call.

    Raises:
        TwintowerError: the server cannot be reached, or ended a connection.
    """
    with _drive(target, method, messages, min(callers, CONNECTIONS), metadata) as drive:
        return drive.closed(callers, seconds)


def opened(
    target: str,
    method: str,
    messages: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    timeout_s: float | None = None,
    seed: int = 0,
    metadata: Mapping[str, str] = NO_METADATA,
    connections: int = CONNECTIONS,
) -> Outcome:
    """Call at the times of a Poisson process, whatever becomes of earlier calls.

    Args:
        target: `host:port`.
        method: full name, `/package.Service/Method`.
        messages: serialised requests, taken in turns.
        rate: calls a second on average.
        seconds: for which to send.
        timeout_s: each call's deadline, seconds, which the server gets to know; None for none.
        seed: of the times.
        metadata: of each call.
        connections: that the calls are spread over.

    Raises:
        TwintowerError: the server cannot be reached, or ended a connection.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(1, round(rate * seconds)))
    if timeout_s is not None:
        metadata = {**metadata, "grpc-timeout": f"{round(timeout_s * 1000)}m"}
    with _drive(target, method, messages, connections, metadata) as drive:
        return drive.opened(np.cumsum(gaps).tolist(), seconds)


class _Connection:
    """One HTTP/2 connection: frames out of requests, ends of calls out of frames."""

    def __init__(self, target: str, headers: bytes) -> None:
        host, _, port = target.rpartition(":")
        try:
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=GRACE_S)
        except OSError as error:
            raise TwintowerError(f"{target}: {error}. Is the server running?") from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._target, self._headers = target, headers
        self._out, self._in = bytearray(), bytearray()
        self._stream, self._window, self._first_window, self._received = 1, WINDOW, WINDOW, 0
        self._max_streams = FEW_STREAMS
        self._waiting: deque[tuple[int, float, bytes]] = deque()
        self._calls: dict[int, tuple[int, float]] = {}
        self._answers: dict[int, bytes] = {}
        ours = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
        self._out += PREFACE
        self._out += frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in ours))
        self._widen(LARGEST_WINDOW - WINDOW)
        self.flush()

    def call(self, place: int, due_s: float, body: bytes) -> None:
        """Send one request now, or as soon as the server allows so many bytes."""
        self._waiting.append((place, due_s, body))
        self._send_waiting()

    def ended(self) -> Iterator[tuple[int, float, str, bytes]]:
        """Read what has come; yield place, due time, status and answer of every call that has ended."""
        try:
            read = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            raise TwintowerError(f"{self._target}: the connection broke: {error}.") from None
        if not read:
            raise TwintowerError(f"{self._target}: the server closed the connection.")
        self._in += read
        buffer, position, length = bytes(self._in), 0, len(self._in)
        while length - position >= 9:
            size = int.from_bytes(buffer[position : position + 3], "big")
            if length - position - 9 < size:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big")
            payload = buffer[position + 9 : position + 9 + size]
            position += 9 + size
            if kind == DATA:
                self._answers[stream] = self._answers.get(stream, b"") + payload
                self._received += size
            elif (kind == HEADERS and flags & END_STREAM) or kind == RST_STREAM:
                if stream in self._calls:  # a call whose deadline passed ends twice
                    yield (*self._calls.pop(stream), status_of(kind, payload), self._answers.pop(stream, b"")[5:])
            elif kind != HEADERS:
                self._obey(kind, flags, stream, payload)
        del self._in[:position]
        if self._received > LARGEST_WINDOW // 2:
            self._widen(self._received)
            self._received = 0
        self._send_waiting()

    def flush(self) -> bool:
        """Send what is to be sent; tell whether all of it is gone."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            return False
        except OSError as error:
            raise TwintowerError(f"{self._target}: the connection broke: {error}.") from None
        return True

    def _obey(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            named = dict(struct.iter_unpack(">HI", payload))
            self._first_window = named.get(INITIAL_WINDOW_SIZE, self._first_window)
            self._max_streams = named.get(MAX_CONCURRENT_STREAMS, UNLIMITED)
            self._out += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise TwintowerError(f"{self._target}: the server sent the connection away: {payload[8:].decode()}.")

    def _send_waiting(self) -> None:
        while self._waiting and len(self._waiting[0][2]) <= self._window and len(self._calls) < self._max_streams:
            place, due_s, body = self._waiting.popleft()
            if len(body) > self._first_window:
                raise TwintowerError(
                    f"a request of {len(body)} bytes, but the server takes {self._first_window} at once."
                )
            self._window -= len(body)
            self._calls[self._stream] = (place, due_s)
            self._out += frame(HEADERS, END_HEADERS, self._stream, self._headers)
            for start in range(0, len(body), FRAME_BYTES):
                flags = END_STREAM if start + FRAME_BYTES >= len(body) else 0
                self._out += frame(DATA, flags, self._stream, body[start : start + FRAME_BYTES])
            self._stream += 2

    def _widen(self, count: int) -> None:
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", count))


class _Drive:
    """Connections, and what has become of the calls on them."""

    def __init__(self, connections: Sequence[_Connection], bodies: Sequence[bytes]) -> None:
        self._connections, self._bodies = connections, bodies
        # Not epoll, which waits whole milliseconds: calls would be sent up to one too late.
        self._selector = selectors.SelectSelector()
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._sent = 0
        self._ended: list[tuple[float, float, bool]] = []
        self._late: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._answers: dict[int, bytes] = {}

    def closed(self, callers: int, seconds: float) -> Outcome:
        """See `closed` of the module."""
        start = time.perf_counter()
        for place in range(callers):
            self._call(self._connections[place % len(self._connections)], time.perf_counter())
        while (now := time.perf_counter()) < start + seconds:
            for connection, count in self._turn(start, start + seconds - now):
                for _ in range(count):
                    self._call(connection, time.perf_counter())
        return self._outcome(start, seconds)

    def opened(self, due: Sequence[float], seconds: float) -> Outcome:
        """See `opened` of the module; `due` are seconds from the start."""
        start = time.perf_counter()
        for place, each in enumerate(due):
            at = start + each
            while (left := at - time.perf_counter()) > 0:
                # Sleeping shorter than this takes longer than asked for.
                for _ in self._turn(start, left if left > SPIN_S else 0.0):
                    pass
            self._late.append(time.perf_counter() - at)
            self._call(self._connections[place % len(self._connections)], at)
            if place % 16 == 15:  # a generator that is behind must not forget to read
                for _ in self._turn(start, 0.0):
                    pass
        return self._outcome(start, seconds)

    def _call(self, connection: _Connection, due_s: float) -> None:
        place = self._sent % len(self._bodies)
        connection.call(place, due_s, self._bodies[place])
        self._sent += 1

    def _turn(self, start: float, wait_s: float) -> Iterator[tuple[_Connection, int]]:
        """Send, wait for something to come at most so long, and yield connections with how many calls ended there."""
        for connection in self._connections:
            events = selectors.EVENT_READ if connection.flush() else selectors.EVENT_READ | selectors.EVENT_WRITE
            if self._selector.get_key(connection.socket).events != events:
                self._selector.modify(connection.socket, events, connection)
        for key, _ in self._selector.select(wait_s):
            count = 0
            for place, due_s, status, answer in key.data.ended():
                now = time.perf_counter()
                self._ended.append((now - start, now - due_s, status == "OK"))
                self._statuses[status] += 1
                if status == "OK":
                    self._answers[place] = answer
                count += 1
            yield key.data, count

    def _outcome(self, start: float, seconds: float) -> Outcome:
        """Wait a while for the calls in flight."""
        given_up = time.perf_counter() + GRACE_S
        while len(self._ended) < self._sent and time.perf_counter() < given_up:
            for _ in self._turn(start, 0.1):
                pass
        if left := self._sent - len(self._ended):
            self._statuses[UNFINISHED] = left
        self._selector.close()
        ended = np.array(self._ended, np.float64).reshape(-1, 3)
        return Outcome(
            seconds,
            ended[:, 0],
            ended[:, 1],
            ended[:, 2].astype(bool),
            self._statuses,
            np.array(self._late, np.float64),
            self._answers,
        )


@contextmanager
def _drive(
    target: str, method: str, messages: Sequence[bytes], connections: int, metadata: Mapping[str, str]
) -> Iterator[_Drive]:
    """Open connections while the block runs, without the pauses of garbage collection."""
    headers = header_block(target, method, {name: value.encode() for name, value in metadata.items()})
    bodies = [with_prefix(message) for message in messages]
    opened: list[_Connection] = []
    gc.disable()
    try:
        opened.extend(_Connection(target, headers) for _ in range(connections))
        yield _Drive(opened, bodies)
    finally:
        gc.enable()
        for connection in opened:
            connection.socket.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def header_block(target: str, method: str, metadata: Mapping[str, bytes]) -> bytes:
    """Return the header block of a call, uncompressed.

    Args:
        target: `host:port`.
        method: full name, `/package.Service/Method`.
        metadata: of the call; any bytes, also those that no client library would send.
    """
    fields = {":method": b"POST", ":scheme": b"http", ":path": method.encode(), ":authority": target.encode()}
    fields |= {"te": b"trailers", "content-type": b"application/grpc", **metadata}
    return b"".join(b"\0" + _string(name.encode()) + _string(value) for name, value in fields.items())


def with_prefix(message: bytes) -> bytes:
    """Return a message as it stands in DATA frames: uncompressed, after its length."""
    return struct.pack(">BI", 0, len(message)) + message


def _string(content: bytes) -> bytes:
    """Return a string literal of a header block (RFC 7541, 5.1 and 5.2)."""
    if len(content) < 127:
        return bytes([len(content)]) + content
    length, left = bytearray([127]), len(content) - 127
    while left >= 128:
        length.append(left % 128 + 128)
        left //= 128
    return bytes([*length, left]) + content


def status_of(kind: int, payload: bytes) -> str:
    """Return the name of the status in the last frame of a stream."""
    if kind == RST_STREAM:
        return RESETS.get(int.from_bytes(payload, "big"), "INTERNAL")
    found = STATUS.search(payload)
    return CODES[int(found[1] or found[2])] if found else "UNKNOWN"
