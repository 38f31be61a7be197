"""Server settings come from defaults, a file, the command's own options and overrides, in this order."""

from __future__ import annotations

import pytest

from recsys.errors import SettingError
from serving import settings


def test_later_sources_win(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nmax_k = 2\nmax_batch = 3\nworker_threads = 5\n")
    found = settings.load(file, ["max_batch=4"], {"port": 0})
    assert (found.port, found.max_k, found.max_batch, found.worker_threads) == (0, 2, 4, 5)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"--settings: got .*absent\.toml"):
        settings.load(tmp_path / "absent.toml")


@pytest.mark.parametrize("override", ["max_k=0", "no_such=1", "max_k"])
def test_a_wrong_override_is_named(override):
    with pytest.raises(SettingError, match=override.partition("=")[0]):
        settings.load(overrides=[override])


def test_a_setting_of_a_section_may_be_overridden_and_a_wrong_one_is_named_with_those_of_its_section():
    assert settings.load(overrides=["releases.watch_s=0.5"]).releases.watch_s == 0.5
    with pytest.raises(SettingError, match=r"server\.releases: no setting named 'watch'.* Known: labels, orders_file"):
        settings.load(overrides=["releases.watch=1"])
