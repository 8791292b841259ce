"""The headers that an object keeps: taken at a write, given back at a read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ostore.model.errors import Malformed
from ostore.model.versions import META_PREFIX, bounded

_SINGLE = frozenset({"content-type", "content-disposition"})
_LISTS = frozenset({"content-encoding", "content-language", "cache-control"})
_NAMES = frozenset(name.encode() for name in _SINGLE | _LISTS)
_PREFIX = META_PREFIX.encode()
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def kept_headers(lines: Iterable[tuple[bytes, Sequence[bytes]]]) -> Mapping[str, str]:
    """The kept ones among `lines` (a name and its values), names in lower case.

    A value has one character for each octet (ISO 8859-1), so that whatever came
    goes out again. Several lines of a list header are joined (RFC 9110, 5.3).
    Raises Malformed, HeadersTooLarge.
    """
    kept: dict[str, str] = {}
    for key, values in lines:
        lowered = key.lower()
        is_meta = lowered.startswith(_PREFIX)
        if not (is_meta or lowered in _NAMES):
            continue
        name = lowered.decode("latin-1")
        if is_meta and not _TOKEN.fullmatch(name.removeprefix(META_PREFIX)):
            raise Malformed(
                "behind X-Ostore-Meta- must stand a name of letters, digits and -"
            )
        if name in _SINGLE and len(values) > 1:
            raise Malformed(f"{_written(name)} may be given only once")
        value = ", ".join(each.decode("latin-1").strip(" \t") for each in values)
        if _CONTROL.search(value):
            raise Malformed(f"{_written(name)} must not hold control characters")
        if value or is_meta:
            kept[name] = value
    return bounded(kept)


def given_back(kept: Mapping[str, str]) -> dict[str, str]:
    """The lines a read of the object bears, Content-Type always among them."""
    lines = {"Content-Type": "application/octet-stream"}
    for name, value in kept.items():
        octets = value.encode("latin-1")
        lines[_written(name)] = octets.decode("utf-8", "surrogateescape")
    return lines


def _written(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
