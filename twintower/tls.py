"""Encrypted connections, the client's side."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from twintower.errors import SettingError, describe


@dataclass(frozen=True)
class ClientTls:
    """How a client connects to an encrypted server.

    Attributes:
        ca: PEM file of the authorities that may vouch for the server; None for those that gRPC ships.
        certificate: PEM file of the client's own certificate, where the server requires one.
        key: PEM file of its private key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what gRPC opens a channel with.

        Raises:
            SettingError: a file is missing or no PEM, or a certificate is without its key.
        """
        if (self.certificate is None) != (self.key is None):
            raise SettingError("tls: got one of certificate and key, expected both or neither.")
        ca, certificate, key = (
            None if path is None else _read(f"tls.{name}", path)
            for name, path in (("ca", self.ca), ("certificate", self.certificate), ("key", self.key))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is not None:
            _check_authorities(context, ca, self.ca)
        if certificate is not None and key is not None:
            _check_pair(context, self.certificate, self.key)
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(path: str, file: Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        raise SettingError(describe(path, str(file), "a file that this process may read")) from None


def _check_authorities(context: ssl.SSLContext, content: bytes, file: Path) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise SettingError(describe("tls.ca", str(file), "certificates as PEM")) from None


def _check_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Refuse a certificate that is no PEM, and a key that is not the certificate's or has a password."""
    try:
        # Without a password OpenSSL would prompt for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingError(describe("tls.key", str(key), f"the key of the certificate {certificate}")) from None
        files = f"{certificate} and {key}"
        expected = "a certificate and its private key as PEM, the key without a password"
        raise SettingError(describe("tls.certificate, tls.key", files, expected)) from None
