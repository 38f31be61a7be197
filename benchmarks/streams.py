"""Streams opened by hand on one HTTP/2 connection: headers without a request, metadata of any bytes, floods.

No client library sends these. `python -m benchmarks.streams` is an attacker in a process of its own:

    python -m benchmarks.streams 127.0.0.1:50051 /grpc.health.v1.Health/Watch --rate 1200 --seconds 5 --empty-request
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from benchmarks.wire import (
    ACK,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    frame,
    header_block,
    status_of,
    with_prefix,
)

NO_FIELDS: Mapping[str, bytes] = MappingProxyType({})
TICK_S = 0.005
"""An attacker sends as many streams as are due this often."""


class Streams:
    """Streams on one connection, which send only what they are made to send.

    Args:
        target: `host:port`.
        window: bytes of each answer that may be sent; 0 stops every answer.

    Attributes:
        ended: status of each stream that has ended, by its number.
        messages: what has come of answers, by stream.
        is_open: whether the server has kept the connection.
    """

    def __init__(self, target: str, window: int = WINDOW) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._socket = target, socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._next = bytearray(), 1
        self.ended: dict[int, str] = {}
        self.messages: dict[int, bytes] = {}
        self.is_open = True
        ours = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, window))
        self._send(PREFACE + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in ours)))

    def open(self, method: str, metadata: Mapping[str, bytes] = NO_FIELDS, request: bytes | None = None) -> int:
        """Open a stream and return its number; without a request only its headers are sent, and it stays open."""
        stream, self._next = self._next, self._next + 2
        frames = frame(HEADERS, END_HEADERS, stream, header_block(self._target, method, metadata))
        if request is not None:
            frames += frame(DATA, END_STREAM, stream, with_prefix(request))
        self._send(frames)
        return stream

    def send(self, stream: int, request: bytes) -> None:
        """Send a request on an open stream, which stays open."""
        self._send(frame(DATA, 0, stream, with_prefix(request)))

    def send_part(self, stream: int, request: bytes) -> None:
        """Send all but the last byte of a request."""
        self._send(frame(DATA, 0, stream, with_prefix(request)[:-1]))

    def reset(self, stream: int) -> None:
        """Cancel a stream."""
        self._send(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def read(self, wait_s: float) -> None:
        """Take in what comes within that many seconds."""
        until = time.monotonic() + wait_s
        while self.is_open and (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                read = self._socket.recv(1 << 18)
            except TimeoutError:
                return
            except OSError:
                read = b""
            self.is_open = bool(read)
            self._take(read)

    def wait(self, stream: int, wait_s: float = 20.0) -> str:
        """Return the status that a stream ends with; empty where it has not ended in time."""
        until = time.monotonic() + wait_s
        while self.is_open and stream not in self.ended and time.monotonic() < until:
            self.read(0.02)
        return self.ended.get(stream, "")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, frames: bytes) -> None:
        try:
            self._socket.settimeout(10)
            self._socket.sendall(frames)
        except OSError:
            self.is_open = False

    def _take(self, read: bytes) -> None:
        self._in += read
        while len(self._in) >= 9 and len(self._in) >= 9 + (size := int.from_bytes(self._in[:3], "big")):
            kind, flags, stream = self._in[3], self._in[4], int.from_bytes(self._in[5:9], "big")
            payload = bytes(self._in[9 : 9 + size])
            del self._in[: 9 + size]
            if kind == DATA:
                self.messages[stream] = self.messages.get(stream, b"") + payload
            elif (kind == HEADERS and flags & END_STREAM) or kind == RST_STREAM:
                self.ended.setdefault(stream, status_of(kind, payload))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self._send(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                self.is_open = False


def flood(
    target: str,
    method: str,
    *,
    rate: float,
    seconds: float,
    token: str = "",
    request: bytes | None = None,
    resets: bool = False,
) -> Counter[str]:
    """Open streams on one connection at a rate, whatever becomes of them; return how many ended with which status.

    Args:
        target: `host:port`.
        method: full name.
        rate: streams a second.
        seconds: for which to open them.
        token: of the caller; empty for none.
        request: sent on each stream; None for headers only.
        resets: each stream is cancelled as soon as it is open.
    """
    metadata = {"authorization": f"Bearer {token}".encode()} if token else NO_FIELDS
    streams, opened, started = Streams(target), 0, time.monotonic()
    while streams.is_open and (passed := time.monotonic() - started) < seconds:
        for _ in range(opened, int(passed * rate)):
            stream = streams.open(method, metadata, request)
            opened += 1
            if resets:
                streams.reset(stream)
        streams.read(TICK_S)
    counts = Counter(streams.ended.values())
    counts["open"] = opened - counts.total()
    counts["connection kept"] = int(streams.is_open)
    streams.close()
    return counts


def main(
    target: str,
    method: str,
    rate: Annotated[float, typer.Option(help="Streams a second.")] = 1200.0,
    seconds: Annotated[float, typer.Option(help="For which to open them.")] = 5.0,
    token: Annotated[str, typer.Option(help="Of the caller.")] = "",
    empty_request: Annotated[bool, typer.Option(help="Send a request without fields on each.")] = False,
    resets: Annotated[bool, typer.Option(help="Cancel each as soon as it is open.")] = False,
) -> None:
    """Open streams on one connection; print as JSON how many ended with which status."""
    request = b"" if empty_request else None
    done = flood(target, method, rate=rate, seconds=seconds, token=token, request=request, resets=resets)
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    typer.run(main)
