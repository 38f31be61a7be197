"""The auth file: what it lets in, and what is told of wrong ones."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.logs import make_logger
from serving.trust.callers import Callers
from serving.trust.reloaded import Reloaded
from serving.trust.rules import Role
from twintower.errors import SettingError, UnauthenticatedError

# printf %s abc | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
# printf %s '' | sha256sum
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SHOP = {"callers": {"shop": {"role": "write", "keys_sha256": [EMPTY, ABC]}}}
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = {"issuer": "https://login", "audience": "recsys", "algorithms": ["ES256"], "keys": "jwks.json"}
JWT = {"jwt": ISSUER}


def written(folder: Path, tables: Any) -> Path:
    path = folder / "auth.toml"
    path.write_text(tables if isinstance(tables, str) else tomli_w.dumps(tables))
    return path


def opened(folder: Path, tables: Any) -> Callers:
    path = written(folder, tables)
    return Reloaded(lambda read: Callers(path, read), "auth", make_logger(io.BytesIO())).current()


def jwks(folder: Path, *keys: Any, **changes: Any) -> None:
    """Write the public keys with the ids 0, 1, ..."""
    listed = [
        json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key())) | {"kid": str(place)} | changes
        for place, key in enumerate(keys)
    ]
    (folder / "jwks.json").write_text(json.dumps({"keys": listed}))


def token(key: Any = KEY, algorithm: str = "ES256", headers: dict[str, str] | None = None, **changes: Any) -> str:
    claims = {"sub": "ann", "iss": "https://login", "aud": "recsys", "exp": time.time() + 600, "role": "read"}
    kept = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers=headers)


def refused(folder: Path, tables: Any) -> str:
    with pytest.raises(SettingError) as caught:
        opened(folder, tables)
    return str(caught.value)


def test_a_key_is_known_by_its_sha_256_also_a_second_one(tmp_path):
    caller = opened(tmp_path, SHOP).caller("abc")
    assert (caller.name, caller.role, caller.quota) == ("shop", Role.WRITE, None)


@pytest.mark.parametrize("key", ["abd", "ABC", "abc ", ABC, "a.b.c", "ü\ud800", "x" * 10_000])
def test_another_key_is_not_known(tmp_path, key):
    callers = opened(tmp_path, SHOP)
    for _ in range(2):
        with pytest.raises(UnauthenticatedError):
            callers.caller(key)


def test_a_jwt_of_the_issuer_is_its_subject_with_the_role_of_its_claim(tmp_path):
    jwks(tmp_path, KEY)
    caller = opened(tmp_path, JWT).caller(token(role="operate"))
    assert (caller.name, caller.role) == ("jwt:ann", Role.OPERATE)


@pytest.mark.parametrize(
    ("claim", "role"),
    [
        (["audit", "read", "write"], Role.WRITE),
        ("admin", Role.NOBODY),
        ("nobody", Role.NOBODY),
        (None, Role.NOBODY),
        (7, Role.NOBODY),
        ([["operate"], {}], Role.NOBODY),
    ],
)
def test_the_highest_known_role_of_a_claim_counts(tmp_path, claim, role):
    jwks(tmp_path, KEY)
    assert opened(tmp_path, JWT).caller(token(role=claim)).role is role


WRONG = {
    "another audience": {"aud": "shop"},
    "another issuer": {"iss": "https://else"},
    "expired": {"exp": 1},
    "no end": {"exp": None},
    "no subject": {"sub": None},
    "no audience": {"aud": None},
    "not yet": {"nbf": time.time() + 86_400},
    "another key": {"key": ec.generate_private_key(ec.SECP256R1())},
    "no signature": {"key": None, "algorithm": "none"},
    "a shared secret": {"key": "s" * 64, "algorithm": "HS256"},
    "another kind of key": {"key": ed25519.Ed25519PrivateKey.generate(), "algorithm": "EdDSA"},
    "another key id": {"headers": {"kid": "7"}},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG.keys())
def test_any_other_jwt_is_not_accepted(tmp_path, changes):
    jwks(tmp_path, KEY)
    with pytest.raises(UnauthenticatedError):
        opened(tmp_path, JWT).caller(token(**changes))


def test_the_public_key_is_no_shared_secret(tmp_path):
    # the classic forgery: sign with the public key's text, and say HS256
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "jwks.json").write_bytes(public)
    callers = opened(tmp_path, JWT)
    assert callers.caller(token()).name == "jwt:ann"
    claims = token().split(".")[1]
    hs256 = jwt.get_algorithm_by_name("HS256")
    head = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}')
    signed = head + b"." + claims.encode()
    forged = signed + b"." + jwt.utils.base64url_encode(hs256.sign(signed, public))
    with pytest.raises(UnauthenticatedError):
        callers.caller(forged.decode())


def test_a_jwt_that_was_verified_once_ends_all_the_same(tmp_path):
    jwks(tmp_path, KEY)
    callers = opened(tmp_path, JWT)
    # 30 s of leeway: this one is accepted for about a second yet
    ending = token(exp=time.time() - 29)
    assert callers.caller(ending).name == "jwt:ann"
    time.sleep(1.2)
    with pytest.raises(UnauthenticatedError, match="expired"):
        callers.caller(ending)


def test_one_of_several_keys_is_chosen_by_its_id(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    jwks(tmp_path, KEY, other)
    callers = opened(tmp_path, JWT)
    assert callers.caller(token(key=other, headers={"kid": "1"})).name == "jwt:ann"
    with pytest.raises(UnauthenticatedError):
        callers.caller(token(key=other, headers={"kid": "0"}))
    with pytest.raises(UnauthenticatedError):
        callers.caller(token())


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.text(), st.binary().map(lambda raw: ".".join([raw.decode("latin-1")] * 3))))
def test_no_token_is_more_than_not_accepted(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "any-token"
    folder.mkdir(exist_ok=True)
    jwks(folder, KEY)
    with pytest.raises(UnauthenticatedError):
        opened(folder, SHOP | JWT).caller("x" + text)


def test_a_header_of_brackets_is_only_not_accepted(tmp_path):
    jwks(tmp_path, KEY)
    head = jwt.utils.base64url_encode(b"[" * 100_000).decode()
    with pytest.raises(UnauthenticatedError):
        opened(tmp_path, JWT).caller(f"{head}.e30.e30")


BROKEN = {
    "": "got nobody",
    "x = [": "not TOML",
    'callers.shop = {role = "boss", keys_sha256 = []}': "callers.shop.role: got 'boss'",
    "callers.shop = {role = 'read'}": "callers.shop.keys_sha256: got nothing, expected a value",
    "callers.shop = {role = 'read', keys_sha256 = []}": "callers.shop.keys_sha256",
    f"callers.shop = {{rôle = 'read', keys_sha256 = ['{ABC}']}}": "not TOML",
    f"callers.shop = {{role = 'read', key = '{ABC}'}}": "callers.shop: no setting named 'key'. Known: keys_sha256",
    f"callers.'a b' = {{role = 'read', keys_sha256 = ['{ABC}']}}": "not 'a b'",
    f"callers.shop = {{role = 'read', keys_sha256 = ['{ABC}', '{ABC}']}}": "the same key as 'shop'",
    f"callers.shop = {{role = 'read', keys_sha256 = ['{ABC}'], quota = {{queries_per_s = 0, burst = 1}}}}": (
        "callers.shop.quota.queries_per_s: got 0"
    ),
    tomli_w.dumps(JWT): "jwt.keys: got",
    tomli_w.dumps({"jwt": ISSUER | {"algorithms": ["HS256"]}}): "jwt.algorithms.0: got 'HS256'",
}


@pytest.mark.parametrize(("text", "told"), BROKEN.items(), ids=BROKEN.values())
def test_a_wrong_auth_file_is_refused_with_the_place_and_the_rule(tmp_path, text, told):
    assert told in refused(tmp_path, text)


def test_a_key_that_was_written_in_place_of_its_digest_is_not_shown(tmp_path):
    told = refused(tmp_path, {"callers": {"shop": {"role": "read", "keys_sha256": ["rsk_secret"]}}})
    assert "callers.shop.keys_sha256[0]: expected 64 hexadecimal digits" in told
    assert "rsk_secret" not in told


def test_files_of_keys_hold_public_keys_for_signatures_only(tmp_path):
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwk = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(rsa.generate_private_key(65537, 2048)))
    shared = {"kty": "oct", "k": "c2VjcmV0", "kid": "1"}
    for content in (
        private,
        b"{}",
        b"[]",
        b'{"keys": []}',
        json.dumps({"keys": [jwk]}).encode(),
        json.dumps({"keys": [shared]}).encode(),
        b"\xff",
    ):
        (tmp_path / "jwks.json").write_bytes(content)
        assert "jwt.keys: got" in refused(tmp_path, JWT)


def test_two_keys_with_one_id_are_refused(tmp_path):
    jwks(tmp_path, KEY, ec.generate_private_key(ec.SECP256R1()), kid="same")
    assert "same 'kid'" in refused(tmp_path, JWT)


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path):
    log, path = io.BytesIO(), written(tmp_path, SHOP)
    callers = Reloaded(lambda read: Callers(path, read), "auth", make_logger(log))
    assert callers.current().caller("abc").name == "shop"
    # given: a file in the middle of being written, and then none
    path.write_text("[callers.shop")
    assert [callers.current().caller("abc").name for _ in range(3)] == ["shop"] * 3
    path.unlink()
    assert callers.current().caller("abc").name == "shop"
    # when: the caller is gone
    written(tmp_path, {"callers": {"other": {"role": "read", "keys_sha256": [EMPTY]}}})
    with pytest.raises(UnauthenticatedError):
        callers.current().caller("abc")
    # then: each change is told once
    assert [json.loads(line)["level"] for line in log.getvalue().splitlines()] == ["error", "error", "info"]


def test_a_changed_file_of_keys_counts(tmp_path):
    jwks(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    path = written(tmp_path, JWT)
    callers = Reloaded(lambda read: Callers(path, read), "auth", make_logger(io.BytesIO()))
    with pytest.raises(UnauthenticatedError):
        callers.current().caller(token())
    jwks(tmp_path, KEY)
    assert callers.current().caller(token()).name == "jwt:ann"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_subject_is_a_name_that_can_be_printed_or_refused(tmp_path_factory, subject):
    folder = tmp_path_factory.mktemp("auth")
    jwks(folder, KEY)
    try:
        name = opened(folder, JWT).caller(token(sub=subject)).name
    except UnauthenticatedError as error:
        assert not subject.isprintable() or not 1 <= len(subject) <= 256
        str(error).encode()
    else:
        assert name == f"jwt:{subject}"
        assert name.isprintable()


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "\ud800",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\x1b[31mb",
        "a\u202eb",
        "a\u2028b",
        "a\x7fb",
        "a\x9bb",
        "x" * 257,
        7,
        ["a"],
        None,
    ],
)
def test_a_subject_that_is_no_name_is_refused_with_the_rule_or_as_no_token(tmp_path, subject):
    jwks(tmp_path, KEY)
    with pytest.raises(UnauthenticatedError):
        opened(tmp_path, JWT).caller(token(sub=subject))
