"""The files of a ScaNN index come from outside: none of them runs anything or names another file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ReleaseError
from recsys.indexes.scann import Scann
from tests.unit.indexes.test_scann import clustered

VECTORS = clustered(300)


@pytest.fixture(params=[{}, {"leaves": 1}, {"quantisation": "none"}, {"leaves": 1, "quantisation": "none"}], ids=str)
def index(request, tmp_path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    Scann(brute_force_below=0, **request.param).build(VECTORS, folder)
    return folder


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "taken")


def seal_again(index: Path) -> None:
    """Let the description of an index name all files beside it."""
    path = index / "index.json"
    sizes = {file.name: file.stat().st_size for file in index.iterdir() if file != path}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file_bytes": sizes}))


def test_what_was_built_is_loaded_and_finds_what_it_should(index):
    found = Scann().load(index, VECTORS).search(VECTORS[:1], 1, leaves_to_search=300, reorder_k=300)
    assert found.item_rows.tolist() == [[int(np.argmax(VECTORS @ VECTORS[0]))]]


def test_no_pickle_is_read(index, tmp_path):
    (index / "scann_docids.pkl").write_bytes(pickle.dumps(Code(tmp_path / "target")))
    seal_again(index)
    assert Scann().load(index, VECTORS).search(VECTORS[:1], 1).item_rows.shape == (1, 1)
    assert not (tmp_path / "target").exists()


def test_a_file_that_the_description_does_not_name_is_refused(index):
    (index / "scann_docids.pkl").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"scann_docids\.pkl: got a file, expected no further file"):
        Scann().load(index, VECTORS)


@pytest.mark.parametrize(
    "path", ["/etc/hostname.npy", "../vectors.npy", "\\057etc/x.npy", 'a.npy" asset_path: "/b.npy']
)
def test_no_file_outside_of_the_folder_is_named(index, path):
    assets = index / "scann_assets.pbtxt"
    text = assets.read_text()
    name = text.split('asset_path: "')[1].split('"')[0]
    assets.write_text(text.replace(name, path))
    seal_again(index)
    with pytest.raises(ReleaseError, match=r"scann_assets\.pbtxt: got .*a list of files of this folder"):
        Scann().load(index, VECTORS)


def test_the_settings_name_no_file(index):
    from scann.proto.scann_pb2 import ScannConfig

    path = index / "scann_config.pb"
    settings = ScannConfig.FromString(path.read_bytes())
    settings.partitioning.partitioner_prefix = "/etc/hostname"
    path.write_bytes(settings.SerializeToString())
    seal_again(index)
    with pytest.raises(ReleaseError, match=r"scann_config\.pb: got '/etc/hostname', expected "):
        Scann().load(index, VECTORS)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"text"])
@pytest.mark.parametrize("name", ["scann_config.pb", "scann_assets.pbtxt"])
def test_a_broken_file_is_refused(index, name, content):
    (index / name).write_bytes(content)
    seal_again(index)
    with pytest.raises(ReleaseError):
        Scann().load(index, VECTORS).search(VECTORS[:1], 1)
