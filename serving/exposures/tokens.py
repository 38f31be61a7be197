"""Attribution tokens: any process of a log tells without a lookup whether one was given, and when."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
from pathlib import Path
from typing import NamedTuple

from recsys.errors import DataError
from recsys.files import storage
from twintower.errors import describe, verbatim

KEY_BYTES, TIME_BYTES, RANDOM_BYTES, USER_BYTES, HASH_BYTES = 32, 7, 8, 8, 9
BODY_BYTES = TIME_BYTES + RANDOM_BYTES + USER_BYTES
TOKEN_CHARACTERS = 2 * (BODY_BYTES + HASH_BYTES)
NO_USER = bytes(USER_BYTES)


class Attribution(NamedTuple):
    """What a token says of its list.

    Attributes:
        time_us: when the list was shown, microseconds since 1970.
        user: whom the list was for, as `Tokens.user` names them.
    """

    time_us: int
    user: bytes


class Tokens:
    """Gives and reads tokens: the moment, a random number, the user, and a keyed hash of all three, in hex digits.

    `BLAKE2b-72(moment random user; key)`, see RFC 7693. The random number tells tokens of one microsecond apart and
    need not be a secret: without the key nobody can hash it. The user is a keyed hash, too: a token does not show an
    id, only which tokens are for the same user.

    Args:
        key: at least 16 bytes that only the servers of one log know.
    """

    def __init__(self, key: bytes) -> None:
        self._start = hashlib.blake2b(key=key, digest_size=HASH_BYTES)
        self._user_start = hashlib.blake2b(key=key, digest_size=USER_BYTES, person=b"user")

    def new(self, time_us: int, user_id: str = "") -> str:
        """Return a token.

        Args:
            time_us: when the list is shown, microseconds since 1970.
            user_id: whom it is for; empty where unknown.
        """
        moment, chance = time_us.to_bytes(TIME_BYTES, "big"), random.getrandbits(8 * RANDOM_BYTES).to_bytes(8)
        return self._hashed(moment + chance + self.user(user_id))

    def user(self, user_id: str) -> bytes:
        """Return what stands for a user in tokens: a keyed hash; `NO_USER` for an empty id."""
        if not user_id:
            return NO_USER
        digest = self._user_start.copy()
        digest.update(user_id.encode())
        return digest.digest()

    def read(self, token: str) -> Attribution | None:
        """Return what a token says; None for what is no token of this key."""
        if len(token) != TOKEN_CHARACTERS:
            return None
        try:
            body = bytes.fromhex(token[: 2 * BODY_BYTES])
        except ValueError:
            return None
        # As a whole: one token has one spelling, or the reader of the log would not know it again.
        if not hmac.compare_digest(self._hashed(body).encode(), token.encode()):
            return None
        return Attribution(int.from_bytes(body[:TIME_BYTES], "big"), body[-USER_BYTES:])

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
