"""Where a broker is: its URL, and the endpoint that leads there."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

import attrs
from cryptography import x509
from OpenSSL.crypto import X509
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)

from ostore.model.errors import Malformed

PORTS: Final = {"amqp": 5672, "amqps": 5671}
ALLOWED: Final = "allowed is amqp://user:password@host:port/vhost, or amqps://…"
REACH_TIMEOUT: Final = 3.0
"""Seconds until a TCP connection that nobody accepts is given up."""


@attrs.frozen
class Broker:
    """One URL, taken apart; `str()` of it has no user and no password."""

    tls: bool
    host: str
    port: int
    vhost: str
    user: str
    password: str = attrs.field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{'amqps' if self.tls else 'amqp'}://{host}:{self.port}/{vhost}"


def parse(url: str) -> Broker:
    """The broker of a URL. Raises Malformed, which never repeats the password.

    User, password and vhost are percent-encoded; they are guest, guest and / where
    the URL has none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise Malformed(
            f"the URL of a broker has a bad host or port; {ALLOWED}"
        ) from None
    if parts.scheme not in PORTS:
        raise Malformed(f"the URL of a broker begins otherwise; {ALLOWED}")
    if not parts.hostname or port == 0:
        raise Malformed(f"the URL of a broker names no host or port; {ALLOWED}")
    path = parts.path.removeprefix("/")
    if parts.query or parts.fragment or "/" in path:
        raise Malformed(
            f"the URL of a broker goes on behind its vhost (a / in it is %2F); {ALLOWED}"
        )
    return Broker(
        parts.scheme == "amqps",
        parts.hostname,
        port or PORTS[parts.scheme],
        _decoded("vhost", path or "/"),
        _decoded("user", parts.username or "guest"),
        _decoded("password", "guest" if parts.password is None else parts.password),
    )


def _decoded(what: str, text: str) -> str:
    try:
        plain = unquote_to_bytes(text).decode()
    except UnicodeError:
        plain = "\0"
    if "\0" in plain or len(plain.encode()) > 255:
        raise Malformed(
            f"the {what} in the URL of a broker is percent-encoded UTF-8 of at most"
            " 255 bytes and without NUL"
        )
    return plain


def trust(ca: bytes | None) -> Any:
    """Trust in these PEM certificates; None (the system's) without. Malformed."""
    if ca is None:
        return None
    try:
        found = x509.load_pem_x509_certificates(ca)
    except ValueError:
        raise Malformed("the CA file holds no certificate in PEM") from None
    kept = [Certificate(X509.from_cryptography(each)) for each in found]  # type: ignore[no-untyped-call]  # untyped in Twisted
    return trustRootFromCertificates(kept)  # type: ignore[no-untyped-call]  # untyped in Twisted


def endpoint(
    reactor: Any,
    broker: Broker,
    root: Any,
) -> IStreamClientEndpoint:
    """The way to the broker; with TLS its certificate is checked against its host."""
    plain = HostnameEndpoint(reactor, broker.host, broker.port, timeout=REACH_TIMEOUT)
    if not broker.tls:
        return plain
    return wrapClientTLS(optionsForClientTLS(broker.host, trustRoot=root), plain)
