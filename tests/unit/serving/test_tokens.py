"""Attribution tokens: given by one process, known by every other of the same log and by nobody else."""

from __future__ import annotations

import stat
from concurrent import futures

import pytest

from recsys.errors import DataError
from serving.exposures.tokens import NO_USER, Tokens, key_in

NOW_US = 1_795_000_000_000_000


def test_a_token_tells_its_moment_to_whoever_has_the_key():
    tokens = Tokens(b"k" * 32)
    assert Tokens(b"k" * 32).read(tokens.new(NOW_US)).time_us == NOW_US
    assert Tokens(b"l" * 32).read(tokens.new(NOW_US)) is None


def test_a_token_tells_whom_it_is_for_to_whoever_has_the_key_and_shows_no_id():
    tokens, other = Tokens(b"k" * 32), Tokens(b"l" * 32)
    token = tokens.new(NOW_US, "user ü")
    assert tokens.read(token).user == Tokens(b"k" * 32).user("user ü")
    assert len({tokens.user("user ü"), other.user("user ü"), tokens.user("user u"), NO_USER}) == 4
    assert tokens.read(tokens.new(NOW_US)).user == NO_USER
    assert "user ü".encode().hex() not in token


def test_two_tokens_of_one_moment_differ():
    tokens = Tokens(b"k" * 32)
    assert len({tokens.new(NOW_US) for _ in range(10_000)}) == 10_000


def test_a_token_with_any_character_changed_is_unknown():
    tokens = Tokens(b"k" * 32)
    token = tokens.new(NOW_US)
    for place, old in enumerate(token):
        for new in {"0", "f", "G", " ", "ü"} - {old}:
            assert tokens.read(token[:place] + new + token[place + 1 :]) is None


@pytest.mark.parametrize("change", [str.upper, lambda token: token + "0", lambda token: token[:-1], lambda _: ""])
def test_a_token_has_one_spelling(change):
    tokens = Tokens(b"k" * 32)
    assert tokens.read(change(tokens.new(NOW_US) + "")) is None


def test_all_that_start_at_once_agree_on_one_key_that_others_cannot_read(tmp_path):
    with futures.ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: key_in(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert keys == {key_in(tmp_path)}


def test_a_damaged_key_is_named(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(DataError, match=r"key: got 5 bytes, expected a key of 32 bytes\. Bring it back"):
        key_in(tmp_path)
