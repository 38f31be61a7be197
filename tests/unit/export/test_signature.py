"""A signature says who wrote a release; without the right one, a release that needs one is refused."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess

import pytest

from recsys.errors import RefusedError, ReleaseError
from recsys.export.release import derive, open_release, publish
from recsys.export.signature import sign, write_keys
from tests.unit.export.test_release import FACTS, fill, fingerprint_of
from twintower.errors import SettingError


@pytest.fixture
def keys(tmp_path):
    """Return a function that makes a pair of key files."""

    def make(name):
        write_keys(tmp_path / name, tmp_path / f"{name}.pub")
        return tmp_path / name, tmp_path / f"{name}.pub"

    return make


@pytest.fixture
def release(tmp_path):
    return publish(tmp_path / "releases", fill)


def test_a_signed_release_opens_with_the_key_and_its_fingerprint_stays(release, keys):
    private, public = keys("ours")
    _, other = keys("other")
    sign(release.folder / "manifest.json", private)
    assert open_release(release.folder, signed_by=[other, public]) == release
    assert open_release(release.folder) == release


def test_a_release_without_a_signature_is_refused_where_one_is_required(release, keys):
    _, public = keys("ours")
    with pytest.raises(ReleaseError, match="not signed, and a signature is required"):
        open_release(release.folder, signed_by=[public])


def test_a_release_that_an_unknown_key_signed_again_is_refused(release, keys):
    private, public = keys("ours")
    sign(release.folder / "manifest.json", private)
    sign(release.folder / "manifest.json", keys("other")[0])
    with pytest.raises(ReleaseError, match=r"signature\.json: key: got '[0-9a-f]{16}', expected one of [0-9a-f]{16}\."):
        open_release(release.folder, signed_by=[public])


def test_a_signature_of_another_release_is_refused(release, keys):
    private, public = keys("ours")
    other = publish(release.folder.parent, lambda folder: (fill(folder), (folder / "items").write_text("x"), FACTS)[-1])
    sign(other.folder / "manifest.json", private)
    shutil.copy(other.folder / "signature.json", release.folder)
    with pytest.raises(ReleaseError, match="the signature does not fit the manifest"):
        open_release(release.folder, signed_by=[public])


@pytest.mark.parametrize("change", [("created", "2999-01-01T00:00:00+00:00"), ("parent", "0" * 64)])
def test_nothing_in_the_manifest_can_be_changed_after_signing_not_even_what_the_fingerprint_leaves_out(
    release, keys, change
):
    private, public = keys("ours")
    path = release.folder / "manifest.json"
    sign(path, private)
    path.write_text(json.dumps(json.loads(path.read_text()) | dict([change]), indent=1))
    open_release(release.folder)
    with pytest.raises(ReleaseError, match="the signature does not fit the manifest"):
        open_release(release.folder, signed_by=[public])


def test_a_part_that_was_changed_together_with_the_manifest_is_refused(release, keys):
    private, public = keys("ours")
    path = release.folder / "manifest.json"
    sign(path, private)
    (release.folder / "items").write_text("a b d")
    table = json.loads(path.read_text())
    table["parts"]["items"]["sha256"] = "44cd80ba5f6e9a2bb6ae4a9b0a1a8a9ab5cba0d1ac2d9bd6bcd2c8a2d6d24f36"
    table["fingerprint"] = fingerprint_of(table)
    path.write_text(json.dumps(table))
    with pytest.raises(ReleaseError, match="the signature does not fit the manifest"):
        open_release(release.folder, signed_by=[public])


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"algorithm": "none", "key": "", "signature": ""}', "[" * 100_000]
)
def test_a_broken_signature_is_refused(release, keys, content):
    _, public = keys("ours")
    (release.folder / "signature.json").write_text(content)
    with pytest.raises(ReleaseError, match=r"signature\.json"):
        open_release(release.folder, signed_by=[public])


def test_a_derived_release_needs_a_signature_of_its_own(release, keys):
    private, public = keys("ours")
    sign(release.folder / "manifest.json", private)
    derived = derive(release, lambda folder: {"item_count": 4})
    with pytest.raises(ReleaseError, match="not signed"):
        open_release(derived.folder, signed_by=[public])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_keys_of_openssl_fit(release, tmp_path):
    private, public = tmp_path / "openssl.pem", tmp_path / "openssl.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    sign(release.folder / "manifest.json", private)
    open_release(release.folder, signed_by=[public])


def test_a_private_key_is_its_owners_alone_and_never_written_over(keys, tmp_path):
    private, _ = keys("ours")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    with pytest.raises(RefusedError, match="exists"):
        keys("ours")
    assert private.read_bytes() == before


def test_a_file_that_is_no_key_is_named(release, keys, tmp_path):
    private, public = keys("ours")
    with pytest.raises(SettingError, match=r"--key: got .*ours\.pub.*expected a PEM file with an Ed25519 private key"):
        sign(release.folder / "manifest.json", public)
    for wrong in (private, tmp_path / "nothing"):
        with pytest.raises(SettingError, match=r"signature\.keys: got .*a PEM file with an Ed25519 public key"):
            open_release(release.folder, signed_by=[public, wrong])
