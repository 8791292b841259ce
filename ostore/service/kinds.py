"""The kinds of values a setting can have: read from text or TOML, described."""

from __future__ import annotations

import re
from typing import Protocol

import attrs

_UNITS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|min|m|h|d)")
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})"
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


class Metadata:
    """Where versions are kept: `sqlite`, or `sqlite:PATH`."""

    allowed = "sqlite or sqlite:PATH"

    def read(self, raw: object) -> str | None:
        """The path of the database; None for the usual place under the root."""
        text = _text(raw)
        if text == "sqlite":
            return None
        scheme, _, path = text.partition(":")
        if scheme != "sqlite":
            raise ValueError
        return Path().read(path)


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
