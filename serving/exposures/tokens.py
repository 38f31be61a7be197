"""Attribution tokens: any process of a log tells without a lookup whether one was given, and when."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
from pathlib import Path

from recsys.errors import DataError, describe, verbatim
from recsys.files import storage

KEY_BYTES, TIME_BYTES, RANDOM_BYTES, HASH_BYTES = 32, 7, 8, 9
BODY_BYTES = TIME_BYTES + RANDOM_BYTES
TOKEN_CHARACTERS = 2 * (BODY_BYTES + HASH_BYTES)


class Tokens:
    """Gives and reads tokens: the moment, a random number, and a keyed hash of both, in hex digits.

    `BLAKE2b-72(moment random; key)`, see RFC 7693. The random number tells tokens of one microsecond apart and need not
    be a secret: without the key nobody can hash it.

    Args:
        key: at least 16 bytes that only the servers of one log know.
    """

    def __init__(self, key: bytes) -> None:
        self._start = hashlib.blake2b(key=key, digest_size=HASH_BYTES)

    def new(self, time_us: int) -> str:
        """Return a token.

        Args:
            time_us: when the list is shown, microseconds since 1970.
        """
        return self._hashed(time_us.to_bytes(TIME_BYTES, "big") + random.getrandbits(8 * RANDOM_BYTES).to_bytes(8))

    def time_us(self, token: str) -> int | None:
        """Return the moment of a token, microseconds since 1970; None for what is no token of this key."""
        if len(token) != TOKEN_CHARACTERS:
            return None
        try:
            body = bytes.fromhex(token[: 2 * BODY_BYTES])
        except ValueError:
            return None
        # As a whole: one token has one spelling, or the reader of the log would not know it again.
        if not hmac.compare_digest(self._hashed(body).encode(), token.encode()):
            return None
        return int.from_bytes(body[:TIME_BYTES], "big")

    def _hashed(self, body: bytes) -> str:
        digest = self._start.copy()
        digest.update(body)
        return (body + digest.digest()).hex()


def key_in(folder: Path) -> bytes:
    """Return the key of a log, which the first server makes: all processes that start at once agree on one.

    Args:
        folder: of the log, existing.

    Raises:
        DataError: the file of the key holds something else.
        StorageError: it cannot be made or read.
    """
    path = folder / "key"
    with storage(folder):
        if not path.exists():
            _make(path)
        content = path.read_bytes()
    if len(content) != KEY_BYTES:
        advice = "Bring it back from a copy; without it events about lists that were shown before are lost."
        raise DataError(describe(str(path), verbatim(f"{len(content)} bytes"), f"a key of {KEY_BYTES} bytes", advice))
    return content


def _make(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{random.getrandbits(32)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # not a rename, which would replace the key of another process
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
