"""The kinds of values a setting can have: read from text or TOML, described."""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import urlsplit

import attrs

_UNITS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB|TiB)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|min|m|h|d)")
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})"
)
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<address>(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5}))"
    r"/?",
    re.IGNORECASE,
)


class Kind(Protocol):
    """Reads one value; ValueError means that it is not allowed."""

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""

    def read(self, raw: object) -> object:
        """The value of a text (option, environment) or of a TOML value."""


@attrs.frozen
class Address:
    """Where a service listens: a host name or IP address, and a port (0: any free)."""

    host: str
    port: int

    def __str__(self) -> str:
        """host:port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Listen:
    """host:port."""

    allowed = "HOST:PORT with a port from 0 (any free one) to 65535, or [IPv6]:PORT"

    def read(self, raw: object) -> Address:
        """The address."""
        match = _ADDRESS.fullmatch(_text(raw))
        if match is None or int(match["port"]) > 65535:
            raise ValueError
        return Address(match["host"].strip("[]"), int(match["port"]))


class Path:
    """A path; `~` is left to the shell."""

    allowed = "a path"

    def read(self, raw: object) -> str:
        """The path as given."""
        path = _text(raw)
        if not path or not path.isprintable():
            raise ValueError
        return path


@attrs.frozen
class Metadata:
    """Where versions are kept: the role's own way by its word, or `sqlite:PATH`."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The forms."""
        return f"{' or '.join(self.words)} or sqlite:PATH"

    def read(self, raw: object) -> str | None:
        """The path of an SQLite database; None for the role's own way."""
        text = _text(raw)
        if text in self.words:
            return None
        scheme, _, path = text.partition(":")
        if scheme != "sqlite":
            raise ValueError
        return Path().read(path)


class Label:
    """A short name that people gave."""

    allowed = "1 to 64 printable characters"

    def read(self, raw: object) -> str:
        """The name."""
        text = _text(raw).strip()
        if not 1 <= len(text) <= 64 or not text.isprintable():
            raise ValueError
        return text


class Url:
    """Where a service is reached."""

    allowed = "http://HOST:PORT or https://HOST:PORT"

    def read(self, raw: object) -> str:
        """The URL without a slash at its end."""
        match = _URL.fullmatch(_text(raw))
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise ValueError
        return f"{match['scheme'].lower()}://{match['address'].lower()}"


@attrs.frozen
class Server:
    """The URL of a server that we use, user and password included."""

    schemes: tuple[str, ...]
    allowed: str
    bare: str = ""
    """The scheme of a server that is given as host:port alone; empty: not allowed."""

    def read(self, raw: object) -> str:
        """The URL."""
        text = _text(raw)
        if self.bare and "://" not in text:
            text = f"{self.bare}://{text}"
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError
        url = urlsplit(text)  # ValueError for what is no URL
        if url.scheme not in self.schemes or not url.hostname or url.port == 0:
            raise ValueError
        if url.query or url.fragment:
            raise ValueError
        return text


def broker() -> Server:
    """A message broker."""
    return Server(
        ("amqp", "amqps"),
        "amqp://USER:PASSWORD@HOST:PORT/VHOST or the same with amqps:// (of user and"
        " password what is not A-Z, a-z, 0-9, -, ., _ or ~ is percent-encoded)",
    )


def search_server() -> Server:
    """A search server."""
    return Server(
        ("http", "https"),
        "HOST:PORT, http://USER:PASSWORD@HOST:PORT or the same with https:// (user and"
        " password percent-encoded, or left out)",
        "http",
    )


@attrs.frozen
class Several:
    """One or more of a kind: given more than once, or separated by commas."""

    kind: Kind

    @property
    def allowed(self) -> str:
        """What each of them may be."""
        return f"{self.kind.allowed}; several are separated by commas"

    def read(self, raw: object) -> tuple[object, ...]:
        """Each of them; TOML lists are not split again."""
        if isinstance(raw, str):
            raw = [part.strip() for part in raw.split(",")]
        if not isinstance(raw, list) or not raw:
            raise ValueError
        return tuple(self.kind.read(each) for each in raw)


class Switch:
    """on or off."""

    allowed = "on or off"
    words = {"on": True, "true": True, "yes": True, "1": True} | {
        "off": False,
        "false": False,
        "no": False,
        "0": False,
    }

    def read(self, raw: object) -> bool:
        """Whether it is on."""
        if isinstance(raw, bool):
            return raw
        try:
            return self.words[_text(raw).lower()]
        except KeyError:
            raise ValueError from None


@attrs.frozen
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The words."""
        return " or ".join(self.words)

    def read(self, raw: object) -> str:
        """The word."""
        text = _text(raw)
        if text not in self.words:
            raise ValueError
        return text


@attrs.frozen
class Count:
    """A whole number within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The bounds."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, raw: object) -> int:
        """The number."""
        if isinstance(raw, int) and not isinstance(raw, bool):
            number = raw
        elif re.fullmatch("[0-9]{1,9}", text := _text(raw)):
            number = int(text)
        else:
            raise ValueError
        if not self.low <= number <= self.high:
            raise ValueError
        return number


@attrs.frozen
class Duration:
    """A time with its unit, between two others; in seconds once read."""

    low: str
    high: str

    @property
    def allowed(self) -> str:
        """The bounds and the units."""
        return (
            f"a duration from {self.low} to {self.high}, as 500ms, 10s, 10min, 24h, 7d"
        )

    def read(self, raw: object) -> float:
        """Seconds."""
        value = seconds(_text(raw))
        if not seconds(self.low) <= value <= seconds(self.high):
            raise ValueError
        return value


@attrs.frozen
class Size:
    """A number of bytes with its unit, between two others."""

    low: str
    high: str

    @property
    def allowed(self) -> str:
        """The bounds and the units."""
        return f"a size from {self.low} to {self.high}, as 512B, 64KiB, 10MiB, 2GiB"

    def read(self, raw: object) -> int:
        """Bytes; a TOML 0 needs no unit either."""
        value = 0 if raw == 0 and type(raw) is int else size(_text(raw))
        if not size(self.low) <= value <= size(self.high):
            raise ValueError
        return value


def size(text: str) -> int:
    """Bytes of a size such as `512B`, `64KiB`, `10MiB`, `2GiB`, or `0`."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError
    return int(match[1]) * _SIZES[match[2]]


def seconds(text: str) -> float:
    """Seconds of a duration such as `500ms`, `10s`, `10min`, `10m`, `24h` or `7d`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError
    return float(match[1]) * _UNITS[match[2]]


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return raw
