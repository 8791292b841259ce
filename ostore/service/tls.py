"""Certificates: what a service shows, and whom it believes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from ostore.service.failing import StartError
from ostore.service.settings import Settings

T = TypeVar("T")


class Certificates:
    """The files that the `tls-` settings name, read once. Raises StartError."""

    def __init__(self, settings: Settings) -> None:
        self._own: dict[str, Any] = {}
        self._authority: Any = None
        self.authorities: bytes | None = None
        """What `tls-ca` holds, for those who read certificates themselves."""
        if settings.tls_certificate is not None and settings.tls_key is not None:
            certificate, *chain = _read(
                "tls-certificate",
                settings.tls_certificate,
                x509.load_pem_x509_certificates,
                "a PEM certificate, its chain behind it",
            )
            key = _read(
                "tls-key",
                settings.tls_key,
                lambda data: load_pem_private_key(data, None),
                "a PEM key without a passphrase",
            )
            if key.public_key() != certificate.public_key():
                raise StartError(
                    f"tls-key {settings.tls_key} is not the key of tls-certificate "
                    f"{settings.tls_certificate}: allowed is its own"
                )
            self._own = {
                "privateKey": key,
                "certificate": certificate,
                "extraCertChain": chain,
            }
        if settings.tls_ca is not None:
            authorities = _read(
                "tls-ca",
                settings.tls_ca,
                x509.load_pem_x509_certificates,
                "one or more PEM certificates",
            )
            self._authority = _trust(authorities)
            self.authorities = Path(settings.tls_ca).read_bytes()

    @property
    def trust(self) -> Any:
        """Who vouches for servers: the file's authorities, else the system's."""
        if self._authority is not None:
            return self._authority
        return platformTrust()  # type: ignore[no-untyped-call] # Twisted has none

    def server(self, *, mutual: bool) -> CertificateOptions | None:
        """For a listening port; None without a certificate.

        `mutual`: with an authority, only callers that it vouches for are let in.
        """
        if not self._own:
            return None
        if mutual and self._authority is not None:
            return CertificateOptions(**self._own, trustRoot=self._authority)
        return CertificateOptions(**self._own)

    def client(self, host: str) -> Any:
        """For a connection to `host`, showing our own certificate if there is one."""
        return optionsForClientTLS(
            host, trustRoot=self.trust, extraCertificateOptions=self._own or None
        )


def _trust(authorities: list[x509.Certificate]) -> Any:
    # By way of DER: what it makes of it is what pyOpenSSL's store takes.
    known = [Certificate.load(each.public_bytes(Encoding.DER)) for each in authorities]
    return trustRootFromCertificates(known)  # type: ignore[no-untyped-call] # as above


def _read(key: str, path: str, parse: Callable[[bytes], T], allowed: str) -> T:
    try:
        return parse(Path(path).read_bytes())
    except OSError as error:
        raise StartError(
            f"{key} {path} cannot be read ({error.strerror}): allowed is {allowed}"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError(f"{key} {path} is not {allowed}") from None
