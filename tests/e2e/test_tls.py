"""Encrypted connections over real gRPC: who is let in, and what is told of wrong files."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest

from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings, Tls
from tests.certificates import DAY, NOW, Authority
from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_wire import log_lines, running
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import SettingError, UnavailableError
from twintower.tls import ClientTls
from twintower.types import Query

EAST = Query(vector=np.array([1, 0], np.float32))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="module")
def ca(authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.write(tmp_path_factory.mktemp("authority") / "ca.pem")


def test_a_client_that_trusts_the_authority_is_answered_also_from_asyncio(authority, ca, tmp_path):
    certificate, key = authority.issue(tmp_path)
    with running(ExactRetriever(), tls=Tls(certificate=certificate, key=key)) as server:
        with Client(server.address, timeout_s=10.0, tls=ClientTls(ca)) as client:
            assert client.nearest_items(EAST, k=1).item_ids == ("a",)

        async def ask() -> tuple[str, ...]:
            async with AsyncClient(server.address, timeout_s=10.0, tls=ClientTls(ca)) as client:
                return (await client.nearest_items(EAST, k=1)).item_ids

        assert asyncio.run(ask()) == ("a",)


def test_a_client_without_encryption_or_of_another_authority_is_not_let_in_and_is_told_why(authority, tmp_path):
    certificate, key = authority.issue(tmp_path)
    stranger = Authority.make("stranger").write(tmp_path / "stranger.pem")
    with running(ExactRetriever(), tls=Tls(certificate=certificate, key=key)) as server:
        for tls in (None, ClientTls(stranger)):
            with Client(server.address, timeout_s=5.0, tls=tls) as client, pytest.raises(UnavailableError):
                client.release()
        with (
            Client(server.address, tls=ClientTls(stranger)) as client,
            pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.wait_until_ready(0.1)


def test_with_a_client_authority_only_clients_with_its_certificate_are_let_in(authority, ca, tmp_path):
    certificate, key = authority.issue(tmp_path)
    own, own_key = authority.issue(tmp_path, "client")
    other, other_key = Authority.make("stranger").issue(tmp_path, "other")
    with running(ExactRetriever(), tls=Tls(certificate=certificate, key=key, client_ca=ca)) as server:
        with Client(server.address, timeout_s=10.0, tls=ClientTls(ca, own, own_key)) as client:
            assert client.nearest_items(EAST, k=1).item_ids == ("a",)
        for tls in (ClientTls(ca), ClientTls(ca, other, other_key)):
            with Client(server.address, timeout_s=5.0, tls=tls) as client, pytest.raises(UnavailableError):
                client.release()


def test_a_new_certificate_is_used_by_new_connections_and_a_broken_one_is_not(authority, ca, tmp_path):
    log = io.BytesIO()
    certificate, key = authority.issue(tmp_path)
    with running(ExactRetriever(), log=log, tls=Tls(certificate=certificate, key=key)) as server:

        def answered(trusted: Path) -> bool:
            with Client(server.address, timeout_s=2.0, tls=ClientTls(trusted)) as client:
                return client.is_serving()

        assert answered(ca)
        # given: the certificate without its key yet, as between two writes
        second = Authority.make("second")
        second_ca = second.write(tmp_path / "second-ca.pem")
        (tmp_path / "new").mkdir()
        new_certificate, new_key = second.issue(tmp_path / "new")
        certificate.write_bytes(new_certificate.read_bytes())
        # then: the old pair counts
        assert answered(ca)
        assert not answered(second_ca)
        # when: the key comes, too
        key.write_bytes(new_key.read_bytes())
        assert answered(second_ca)
        assert not answered(ca)
        broken = [line for line in log_lines(log, 1) if line["level"] == "error"]
    assert len(broken) == 1
    assert "the key of the certificate" in broken[0]["reason"]


def refused(tls: Tls) -> str:
    with pytest.raises(SettingError) as caught:
        Server(ServerSettings(port=0, tls=tls), make_logger(io.BytesIO()))
    return str(caught.value)


def test_an_expired_certificate_is_refused_at_the_start_with_its_dates(authority, tmp_path):
    certificate, key = authority.issue(tmp_path, start=NOW - 9 * DAY, end=NOW - 2 * DAY)
    told = refused(Tls(certificate=certificate, key=key))
    assert told.startswith(f"tls.certificate: got '{certificate}', valid from ")
    assert f"{NOW - 2 * DAY:%Y-%m-%dT%H:%M:%S}" in told


def test_a_certificate_of_tomorrow_is_refused(authority, tmp_path):
    certificate, key = authority.issue(tmp_path, start=NOW + DAY, end=NOW + 2 * DAY)
    assert "one that is valid now" in refused(Tls(certificate=certificate, key=key))


def test_files_that_are_missing_or_wrong_are_named_by_their_setting(authority, ca, tmp_path):
    certificate, key = authority.issue(tmp_path)
    _, other_key = authority.issue(tmp_path, "other")
    absent, garbage = tmp_path / "absent.pem", tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert refused(Tls(certificate=absent, key=key)).startswith(f"tls.certificate: got '{absent}'")
    assert refused(Tls(certificate=certificate, key=absent)).startswith(f"tls.key: got '{absent}'")
    assert refused(Tls(certificate=garbage, key=key)).startswith(f"tls.certificate: got '{garbage}'")
    assert refused(Tls(certificate=certificate, key=garbage)).startswith(f"tls.key: got '{garbage}'")
    assert refused(Tls(certificate=certificate, key=tmp_path)).startswith("tls.key: got ")
    assert refused(Tls(certificate=certificate, key=other_key)).startswith(f"tls.key: got '{other_key}'")
    assert refused(Tls(certificate=certificate, key=key, client_ca=garbage)).startswith("tls.client_ca: got ")


def test_a_client_s_files_are_checked_before_it_connects(authority, ca, tmp_path):
    certificate, key = authority.issue(tmp_path)
    _, other_key = authority.issue(tmp_path, "other")
    for tls, named in (
        (ClientTls(tmp_path / "absent.pem"), "tls.ca"),
        (ClientTls(key), "tls.ca"),
        (ClientTls(ca, certificate), "certificate and key"),
        (ClientTls(ca, certificate, other_key), "tls.key"),
    ):
        with pytest.raises(SettingError, match=named):
            Client("127.0.0.1:1", tls=tls)
