"""Where the service is."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

import attrs

from ostore.cli.failures import Misused


@attrs.frozen
class Endpoint:
    """Where the service is."""

    tls: bool
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From a URL, or from host:port. Raises Misused."""
        try:
            url: SplitResult = urlsplit(text if "://" in text else f"http://{text}")
            port = url.port
        except ValueError:
            raise _bad_endpoint(text) from None
        extra = url.path.rstrip("/") or url.query or url.fragment or url.username
        if url.scheme not in ("http", "https") or not url.hostname or extra:
            raise _bad_endpoint(text)
        tls = url.scheme == "https"
        return cls(tls, url.hostname, port or (443 if tls else 80))

    @property
    def authority(self) -> str:
        """Host and port as `http.client` sends them in Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def _bad_endpoint(text: str) -> Misused:
    return Misused(
        f"endpoint {text!a} cannot be used: allowed is http://HOST:PORT or "
        "https://HOST:PORT"
    )
