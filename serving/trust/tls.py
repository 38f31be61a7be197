"""Encrypted connections, the server's side: certificates are checked before they are used."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from serving.settings import Tls
from serving.trust.reloaded import Read, Reloaded
from twintower.errors import SettingError, describe


def server_credentials(tls: Tls, logger: Any) -> grpc.ServerCredentials:
    """Return what a server listens with; a connection made after the files have changed gets the new certificate.

    Args:
        tls: certificate and key, both given.
        logger: is told when the certificate ends, of changes, and of files that broke.

    Raises:
        SettingError: a file is missing or no PEM, the key is not the certificate's, or a certificate is out of date.
    """

    def make(read: Read) -> grpc.ServerCertificateConfiguration:
        return _configuration(tls, read, logger)

    files = Reloaded(make, "tls", logger)
    given = files.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        before, given = given, files.current()
        return None if given is before else given

    return grpc.dynamic_ssl_server_credentials(given, changed, tls.client_ca is not None)


def _configuration(tls: Tls, read: Read, logger: Any) -> grpc.ServerCertificateConfiguration:
    certificate, key = read("tls.certificate", tls.certificate), read("tls.key", tls.key)
    client_ca = None if tls.client_ca is None else read("tls.client_ca", tls.client_ca)
    leaf = _check_pair(certificate, key, "tls", tls)
    if client_ca is not None:
        _check_dates(_certificates(client_ca, "tls.client_ca", tls.client_ca), "tls.client_ca", tls.client_ca)
    expires = leaf.not_valid_after_utc.isoformat()
    logger.info("certificate", expires=expires, clients="with a certificate" if client_ca else "any")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def _certificates(content: bytes, where: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise SettingError(describe(where, str(path), "certificates as PEM")) from None


def _check_pair(certificate: bytes, key: bytes, where: str, files: Tls) -> x509.Certificate:
    """Return the certificate that a key is the key of."""
    first, *_ = _certificates(certificate, f"{where}.certificate", files.certificate)
    _check_dates([first], f"{where}.certificate", files.certificate)
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        of_key = load_pem_private_key(key, None).public_key().public_bytes(*spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        rule = "a private key as PEM, without a password"
        raise SettingError(describe(f"{where}.key", str(files.key), rule)) from None
    try:
        of_certificate = first.public_key().public_bytes(*spki)
    except (ValueError, UnsupportedAlgorithm):
        rule = "one with a key of a known kind"
        raise SettingError(describe(f"{where}.certificate", str(files.certificate), rule)) from None
    if of_key != of_certificate:
        raise SettingError(describe(f"{where}.key", str(files.key), f"the key of the certificate {files.certificate}"))
    return first


def _check_dates(certificates: Sequence[x509.Certificate], where: str, path: Path) -> None:
    """Refuse certificates of which none is valid at this moment."""
    now = datetime.datetime.now(datetime.UTC)
    if any(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in certificates):
        return
    first = certificates[0]
    dates = f"valid from {first.not_valid_before_utc.isoformat()} to {first.not_valid_after_utc.isoformat()}"
    raise SettingError(f"{where}: got {str(path)!r}, {dates}, expected one that is valid now. Renew it.")
