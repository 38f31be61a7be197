"""Signatures of releases: who wrote a release, where its fingerprint only shows that it is whole.

A signature is Ed25519 (RFC 8032) over the bytes of `manifest.json`, which names the SHA-256 of every part. It stands
beside the manifest in `signature.json` and is no part of the fingerprint: a release can be signed after it was written.
Keys are PEM files as `openssl genpkey -algorithm ed25519` writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import ConfigDict, Field

from recsys.documents import read_json
from recsys.errors import RefusedError, ReleaseError
from recsys.files import storage, write_atomically
from twintower.errors import SettingError, describe

SIGNATURE = "signature.json"
CONTEXT = b"twintower-recsys release manifest\n"
"""Stands before what is signed, so that a signature made for something else is none."""


@dataclass(frozen=True)
class Signature:
    """What `signature.json` holds.

    Attributes:
        algorithm: always `ed25519`.
        key: the first 16 hex digits of the SHA-256 of the public key, to find the right one by.
        signature: 128 hex digits.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    algorithm: Literal["ed25519"]
    key: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]


def write_keys(private: Path, public: Path) -> None:
    """Make a pair of keys and write both files, the private one readable by its owner only.

    Raises:
        RefusedError: one of the files exists.
        StorageError: writing failed.
    """
    key = Ed25519PrivateKey.generate()
    contents = {
        private: (0o600, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        public: (0o644, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    }
    for path in contents:
        if path.exists():
            raise RefusedError(f"{path}: exists. Name another file, so that no key is lost.")
    for path, (mode, content) in contents.items():
        with storage(path.parent), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)


def sign(manifest: Path, key_file: Path) -> Signature:
    """Sign a manifest: write `signature.json` beside it, over an older one.

    Args:
        manifest: the file, of a release that was checked.
        key_file: PEM with an Ed25519 private key, without a password.

    Raises:
        SettingError: the key cannot be read.
        StorageError: writing failed.
    """
    key = _private_key(key_file)
    made = Signature("ed25519", key_id(key.public_key()), key.sign(CONTEXT + manifest.read_bytes()).hex())
    write_atomically(manifest.with_name(SIGNATURE), json.dumps(asdict(made), indent=1) + "\n")
    return made


def check(folder: Path, manifest: bytes, key_files: Sequence[Path]) -> str:
    """Check that one of the keys has signed a release, and return the id of that key.

    Args:
        folder: the release, with its `signature.json`.
        manifest: the content of its manifest.
        key_files: PEM with an Ed25519 public key each, at least one.

    Raises:
        ReleaseError: there is no signature, it is of another key, or of another manifest.
        SettingError: a key cannot be read.
    """
    keys = {key_id(key): key for key in map(_public_key, key_files)}
    path = folder / SIGNATURE
    if not path.is_file():
        raise ReleaseError(
            f"{folder}: not signed, and a signature is required. Sign it on the machine that wrote it, with "
            "`recsys release sign FOLDER --key FILE`."
        )
    found = read_json(path, Signature, "Sign the release again.")
    if found.key not in keys:
        advice = "Sign the release with a key that is trusted here, or add the public key to signature.keys."
        raise ReleaseError(describe(f"{path}: key", found.key, f"one of {', '.join(sorted(keys))}", advice))
    try:
        keys[found.key].verify(bytes.fromhex(found.signature), CONTEXT + manifest)
    except InvalidSignature:
        raise ReleaseError(
            f"{path}: the signature does not fit the manifest: one of the two was changed. Do not use this release; "
            "take another copy, or write and sign it again."
        ) from None
    return found.key


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hex digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        advice = "Make one with `recsys release keygen`."
        raise SettingError(describe("--key", str(path), "a PEM file with an Ed25519 private key, no password", advice))
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        advice = "Make one with `recsys release keygen`."
        raise SettingError(describe("signature.keys", str(path), "a PEM file with an Ed25519 public key", advice))
    return key
