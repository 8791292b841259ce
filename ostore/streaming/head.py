"""The head of a request, read in one piece where nothing about it is unusual."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Fields = Mapping[bytes, Sequence[bytes]]
"""The values of each header in their order; names in lower case."""

LONGEST_LENGTH = 18
"""Digits of a Content-Length; more would be beyond all storage."""

MOST_FIELDS = 500
"""Header lines of one request."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PLAIN = re.compile(
    rb"(%b) ([!-~]++) HTTP/1\.1\r\n((?:%b:[^\x00\r\n]*+\r\n)*+)\r\n" % (_TOKEN, _TOKEN)
)
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"""The characters of a host and a port (RFC 3986, 3.2)."""


class Plain(NamedTuple):
    """A head that is right, and which bytes of what was read come behind it."""

    method: bytes
    target: bytes
    fields: Fields
    length: int
    end: int


def plain(data: bytes, longest: int) -> Plain | None:
    """The head that `data` begins with, if all of it is there and it is plain.

    None is no refusal: whatever is cut, folded, chunked, awaits a 100, is older than
    HTTP/1.1, longer than `longest` or wrong in any way is for the parser that reads
    line by line, which would make the same of this one.
    """
    match = _PLAIN.match(data, 0, longest)
    if match is None:
        return None
    method, target, block = match.groups()
    fields: dict[bytes, list[bytes]] = {}
    lines = block.split(b"\r\n")
    if len(lines) > MOST_FIELDS:
        return None
    del lines[-1]
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    if not right_host(fields) or b"transfer-encoding" in fields or b"expect" in fields:
        return None
    length = 0
    if (lengths := fields.get(b"content-length")) is not None:
        digits = lengths[0]
        if len(lengths) > 1 or not digits.isdigit() or len(digits) > LONGEST_LENGTH:
            return None
        length = int(digits)
    return Plain(method, target, fields, length, match.end())


def right_host(fields: Fields) -> bool:
    """Whether there is one Host, and one that can be any (RFC 9112, 3.2)."""
    hosts = fields.get(b"host")
    return hosts is not None and len(hosts) == 1 and bool(_HOST.fullmatch(hosts[0]))
