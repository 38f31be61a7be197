"""Files are whole or not there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from recsys.errors import RefusedError, StorageError
from recsys.files import exclusive, save_array, sha256, stamp, storage, write_atomically

SMALL_DISK = (
    "import resource, signal, sys\n"
    "from pathlib import Path\n"
    "import numpy as np\n"
    "from recsys.errors import StorageError\n"
    "from recsys.files import save_array, storage\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
    "try:\n"
    "    with storage(Path(sys.argv[1])):\n"
    "        save_array(Path(sys.argv[1]) / 'a.npy', np.zeros(20_000))\n"
    "except StorageError as error:\n"
    "    print('refused:', error)\n"
)


def test_an_array_that_does_not_fit_is_an_error_and_never_a_short_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", SMALL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert "cannot write" in done.stdout


def test_tensorflow_s_own_full_disk_is_the_same_error(tmp_path):
    from recsys.stack import tf

    with pytest.raises(StorageError, match="cannot write"), storage(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")


def test_a_name_that_is_too_long_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write \(File name too long\)"), storage(tmp_path):
        (tmp_path / ("v" * 300)).mkdir()


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ZeroDivisionError), storage(tmp_path):
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError), storage(tmp_path):
        (tmp_path / "nothing").read_text()


def test_an_array_comes_back(tmp_path):
    save_array(tmp_path / "a.npy", np.arange(5))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


def test_a_digest_of_an_array_tells_type_shape_and_content_apart():
    array = np.arange(6, dtype=np.int32)
    others = [array[::-1], array.reshape(2, 3), array.view(np.float32), array[:5]]
    assert len({sha256(each) for each in (array, *others)}) == 5
    assert sha256(array) == sha256(np.repeat(array, 2)[::2])


def test_a_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "text"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


def test_a_folder_has_one_holder_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from recsys.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held')"
    )
    with exclusive(tmp_path):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert second.returncode == 1
    assert RefusedError.__name__ in second.stderr
    third = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert third.stdout.strip() == "held"


def test_a_stamp_changes_with_any_file_below(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a").write_text("1")
    before = stamp([tmp_path])
    assert stamp([tmp_path]) == before
    (tmp_path / "shards" / "b").write_text("2")
    assert stamp([tmp_path]) != before
