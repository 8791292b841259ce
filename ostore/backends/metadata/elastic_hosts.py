"""Where the search servers are, and which of them to ask next."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from ostore.model.errors import Malformed

LONGEST_REST = 30.0
"""Seconds for which a host that keeps failing is left out at most."""

_ALLOWED = "it must read host:port or http[s]://[user:password@]host[:port][/path]"


@attrs.define(eq=False)
class Host:
    """One server; `name` is what people are told, `authorization` is nobody's business.

    It rests for 1, 2, 4 … 30 s after failures one behind the other.
    """

    name: str
    url: str
    authorization: str | None = attrs.field(default=None, repr=False)
    failures: int = 0
    resting_until: float = 0.0

    def failed(self, now: float) -> None:
        """Let it rest."""
        if now >= self.resting_until:
            self.failures += 1
        rest = min(2.0 ** (self.failures - 1), LONGEST_REST)
        self.resting_until = now + rest

    def answered(self) -> None:
        """It is well."""
        self.failures, self.resting_until = 0, 0.0


class Hosts:
    """Takes turns among the hosts that do not rest."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        if not hosts:
            raise Malformed(f"no search server is named: {_ALLOWED}")
        self._hosts = list(hosts)
        self._turn = 0

    def pick(self, now: float) -> Host:
        """The next one; when all rest, the one that has rested longest."""
        self._turn += 1
        turned = [
            self._hosts[(self._turn + i) % len(self._hosts)]
            for i in range(len(self._hosts))
        ]
        for host in turned:
            if host.resting_until <= now:
                return host
        return min(turned, key=lambda host: host.resting_until)

    def __str__(self) -> str:
        return ", ".join(host.name for host in self._hosts)


def parse_hosts(texts: Sequence[str], api_key: str | None = None) -> list[Host]:
    """Read hosts; `api_key` is sent where an address has no user of its own.

    Raises Malformed, which never repeats a password.
    """
    return [_parse(text.strip(), api_key) for text in texts]


def _parse(text: str, api_key: str | None) -> Host:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port, host = parts.port, parts.hostname
    except ValueError:
        raise Malformed(f"a search server's address is malformed: {_ALLOWED}") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query:
        raise Malformed(f"a search server's address is malformed: {_ALLOWED}")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise Malformed(f"a search server's address is malformed: {_ALLOWED}")
    shown = f"[{host}]" if ":" in host else host
    name = f"{shown}:{port or 9200}"
    url = f"{parts.scheme}://{name}{parts.path.rstrip('/')}"
    authorization = None
    if parts.username is not None:
        user = unquote_to_bytes(parts.username)
        password = unquote_to_bytes(parts.password or "")
        authorization = f"Basic {b64encode(user + b':' + password).decode()}"
    elif api_key:
        authorization = f"ApiKey {api_key}"
    return Host(name, url, authorization)
