"""Server settings come from defaults, a file, the command's own options and overrides, in this order."""

from __future__ import annotations

import pytest

from serving import settings
from twintower.errors import SettingError


def test_later_sources_win(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nmax_k = 2\nmax_batch = 3\nworker_threads = 5\n")
    found = settings.load(file, ["max_batch=4"], {"port": 0})
    assert (found.port, found.max_k, found.max_batch, found.worker_threads) == (0, 2, 4, 5)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"--settings: got .*absent\.toml"):
        settings.load(tmp_path / "absent.toml")


@pytest.mark.parametrize("override", ["max_k=0", "no_such=1", "max_k", "auth.file=1", "tls=1"])
def test_a_wrong_override_is_named(override):
    with pytest.raises(SettingError, match=override.partition("=")[0]):
        settings.load(overrides=[override])


def test_settings_of_a_section_are_named_with_it(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("[telemetry]\nmetrics_port = 9464\n")
    assert settings.load(file, ["telemetry.recall_rate=0.5"]).telemetry.metrics_port == 9464
    with pytest.raises(SettingError, match=r"server\.telemetry: no setting named 'metrics_prt'\. Did you mean"):
        settings.load(file, ["telemetry.metrics_prt=1"])
    with pytest.raises(SettingError, match=r"server\.telemetry\.traces_endpoint: got 'here', expected .*http"):
        settings.load(file, ["telemetry.traces_endpoint='here'"])


def test_sections_come_from_a_file_and_from_overrides(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('[tls]\ncertificate = "a.pem"\nkey = "a.key"\n[auth]\nfile = "auth.toml"\n')
    found = settings.load(file, ["tls.key=b.key"])
    assert (str(found.tls.certificate), str(found.tls.key), str(found.auth.file)) == ("a.pem", "b.key", "auth.toml")


def test_an_unknown_setting_of_a_section_is_told_with_those_of_that_section():
    with pytest.raises(SettingError, match=r"server\.tls: no setting named 'certificat'. Did you mean 'certificate'"):
        settings.load(overrides=["tls.certificat=a.pem"])


@pytest.mark.parametrize("overrides", [["tls.certificate=a"], ["tls.key=a"], ["tls.client_ca=a"]])
def test_a_certificate_needs_its_key_and_client_certificates_need_both(overrides):
    with pytest.raises(SettingError, match=r"server\.tls: got .*, expected .*certificate and key"):
        settings.load(overrides=overrides)


def test_a_setting_of_a_section_may_be_overridden_and_a_wrong_one_is_named_with_those_of_its_section():
    assert settings.load(overrides=["releases.watch_s=0.5"]).releases.watch_s == 0.5
    with pytest.raises(SettingError, match=r"server\.releases: no setting named 'watch'.* Known: labels, orders_file"):
        settings.load(overrides=["releases.watch=1"])
