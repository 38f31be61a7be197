"""Who calls: the auth file, API keys and JWTs.

An auth file names callers with API keys, or trusts the tokens of an issuer, or both:

    [callers.shop]
    role = "read"                                  # read, write or operate; each includes those before it
    keys_sha256 = ["9f86d081884c7d65..."]          # `recsys auth new-key shop` prints it; two while a key is replaced
    quota = { queries_per_s = 500, burst = 1000 }  # may be left out

    [jwt]
    issuer = "https://login.example"
    audience = "recommendations"
    algorithms = ["RS256"]
    keys = "jwks.json"                             # beside this file: a JWKS, or one public key as PEM
    role_claim = "role"                            # a role, or a list of which the highest counts
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, field_validator

from recsys.registry import parse, settings
from serving.trust.quotas import Quota
from serving.trust.reloaded import Read
from serving.trust.rules import Role
from twintower.errors import SettingError, UnauthenticatedError, describe

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
KEY_PREFIX = "rsk_"
LEEWAY_S = 30
MOST_VERIFIED = 10_000
MAX_SUBJECT_LETTERS = 256
ADVICE = "Send the metadata 'authorization: Bearer <API key or JWT>'."

RoleName = Literal["read", "write", "operate"]


@settings()
class KeyHolder:
    """A caller with API keys.

    Attributes:
        role: what it may do.
        keys_sha256: SHA-256 of each key, 64 hexadecimal digits.
        quota: what it may use; without one there is no limit.
    """

    role: RoleName
    keys_sha256: tuple[str, ...] = Field(min_length=1)
    quota: Quota | None = None


@settings()
class Issuer:
    """Whose JWTs are believed. Their `sub`, 1 to 256 printable letters, is the caller's name; they must expire.

    Attributes:
        issuer: their `iss`.
        audience: one of their `aud`.
        algorithms: of the signature; only those with a public key.
        keys: a JWKS or PEM file of public keys, beside the auth file unless its path is absolute.
        role_claim: the claim that holds a role, or several of which the highest counts; others are passed over.
        quota: what each caller may use; without one there is no limit.
    """

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"], ...] = (
        Field(min_length=1)
    )
    keys: Path
    role_claim: str = "role"
    quota: Quota | None = None


@settings()
class AuthFile:
    """Everything that an auth file says.

    Attributes:
        callers: those with API keys, by name: letters, digits, '_' and '-'.
        jwt: whose tokens are believed besides.
    """

    callers: dict[str, KeyHolder] = Field(default_factory=dict)
    jwt: Issuer | None = None

    @field_validator("callers")
    @classmethod
    def _plain_names(cls, callers: dict[str, KeyHolder]) -> dict[str, KeyHolder]:
        for name in callers:
            if not NAME.fullmatch(name):
                raise ValueError(f"names of at most 64 letters, digits, '_' and '-', not {name!r}")
        return callers


@dataclass(frozen=True)
class Caller:
    """Somebody who may call.

    Attributes:
        name: as in the auth file; of a JWT `jwt:` and its `sub`.
        role: the highest that it has.
        quota: what it may use; None for no limit.
    """

    name: str
    role: Role
    quota: Quota | None


class Callers:
    """Everybody whom one auth file lets in. Safe for calls from several threads.

    Args:
        path: the auth file.
        read: reads files.

    Raises:
        SettingError: a file is missing, not TOML, no key, or breaks a rule.
    """

    def __init__(self, path: Path, read: Read) -> None:
        try:
            tables = tomllib.loads(read("auth.file", path).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SettingError(f"{path}: not TOML: {error}.") from None
        file: AuthFile = parse(AuthFile, tables, str(path))
        if not file.callers and file.jwt is None:
            raise SettingError(f"{path}: got nobody, expected [callers.<name>] or [jwt]: nobody could call.")
        self._holders = _holders(file.callers, path)
        self._tokens = Tokens(file.jwt, path, read) if file.jwt else None
        self._verified: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, token: str) -> Caller:
        """Return who brings a token; it is verified once and then remembered until it expires.

        Args:
            token: an API key or a JWT.

        Raises:
            UnauthenticatedError: it is not one of those, or has expired.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = self._verified.get(digest)
        if found is None or found[1] <= time.time():
            found = self._verify(token, digest)
            if len(self._verified) >= MOST_VERIFIED:
                self._verified.clear()
            self._verified[digest] = found
        return found[0]

    def _verify(self, token: str, digest: bytes) -> tuple[Caller, float]:
        # The time of a look-up depends on a hash of the token, which tells nothing about the keys.
        found = self._holders.get(digest)
        if found is not None:
            return found, float("inf")
        if self._tokens is not None and token.count(".") == 2:
            return self._tokens.verify(token)
        raise UnauthenticatedError(f"authorization: the token is not accepted. {ADVICE}")


class Tokens:
    """The JWTs of one issuer.

    Args:
        issuer: whose.
        path: the auth file.
        read: reads files.

    Raises:
        SettingError: the file of keys is missing or holds none.
    """

    def __init__(self, issuer: Issuer, path: Path, read: Read) -> None:
        self._issuer = issuer
        file = path.parent / issuer.keys
        self._keys = _public_keys(read(f"{path}.jwt.keys", file), f"{path}.jwt.keys", file)

    def verify(self, token: str) -> tuple[Caller, float]:
        """Return who brings a JWT, and when that ends, in seconds since 1970.

        Raises:
            UnauthenticatedError: it is not the issuer's, not for this audience, has expired, or has no subject.
        """
        issuer = self._issuer
        try:
            claims = jwt.decode(
                token,
                self._key(jwt.get_unverified_header(token).get("kid")),
                algorithms=list(issuer.algorithms),
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            expires = float(claims["exp"]) + LEEWAY_S
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("authorization: the token has expired. Bring a newer one.") from error
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise UnauthenticatedError(f"authorization: the token is not accepted. {ADVICE}") from error
        subject = claims["sub"]
        if not (isinstance(subject, str) and subject.isprintable() and 1 <= len(subject) <= MAX_SUBJECT_LETTERS):
            rule = f"1 to {MAX_SUBJECT_LETTERS} letters that can be printed"
            raise UnauthenticatedError(f"authorization: the token's subject is no name, expected {rule}. {ADVICE}")
        return Caller(f"jwt:{subject}", _highest(claims.get(issuer.role_claim)), issuer.quota), expires

    def _key(self, key_id: object) -> Any:
        """Return the key of an id; a key without one, or the only one of a token without one, is everybody's."""
        if key_id in self._keys:
            return self._keys[key_id]
        if len(self._keys) == 1 and (key_id is None or None in self._keys):
            return next(iter(self._keys.values()))
        raise jwt.InvalidKeyError("no key of this id")


def new_key() -> str:
    """Return a fresh API key: 256 random bits after a prefix that scanners for secrets can find."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Return what an auth file says of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _holders(callers: dict[str, KeyHolder], path: Path) -> dict[bytes, Caller]:
    holders: dict[bytes, Caller] = {}
    for name, holder in callers.items():
        caller = Caller(name, Role[holder.role.upper()], holder.quota)
        for place, digest in enumerate(holder.keys_sha256):
            where = f"{path}.callers.{name}.keys_sha256[{place}]"
            if not DIGEST.fullmatch(digest.lower()):
                # Not shown: it may be the key itself.
                advice = "`recsys auth new-key` prints one."
                raise SettingError(f"{where}: expected 64 hexadecimal digits, the SHA-256 of a key. {advice}")
            key = bytes.fromhex(digest)
            if key in holders:
                raise SettingError(f"{where}: the same key as {holders[key].name!r}, expected one of its own.")
            holders[key] = caller
    return holders


def _public_keys(content: bytes, where: str, file: Path) -> dict[str | None, Any]:
    """Return the keys of a JWKS file by id, or the one of a PEM file."""
    if content.lstrip().startswith(b"-----BEGIN"):
        try:
            return {None: load_pem_public_key(content)}
        except (ValueError, UnsupportedAlgorithm):
            raise SettingError(describe(where, str(file), "a public key as PEM, not a private one")) from None
    try:
        listed = [each for each in json.loads(content)["keys"] if each.get("use", "sig") == "sig"]
        usable = [each for each in listed if each["kty"] in ("RSA", "EC", "OKP")]
        private = any("d" in each for each in usable)
        keys = {each.get("kid"): jwt.PyJWK(each).key for each in usable}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, jwt.PyJWTError):
        raise SettingError(describe(where, str(file), "a JWKS (JSON) or one public key (PEM)")) from None
    if private or not keys or len(keys) < len(usable):
        rule = "public keys for signatures: at least one, none private, no two with the same 'kid'"
        raise SettingError(describe(where, str(file), rule))
    return keys


def _highest(claim: object) -> Role:
    named: Iterable[object] = claim if isinstance(claim, list) else [claim]
    known = {role.name.lower(): role for role in Role if role is not Role.NOBODY}
    return max((known[name] for name in named if isinstance(name, str) and name in known), default=Role.NOBODY)
