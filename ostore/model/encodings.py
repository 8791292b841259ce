"""Content codings: which one a client is given (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

IDENTITY = "identity"
OFFERED = ("zstd", "gzip")
"""What bodies can be coded in, the better one first."""
LEAST = 256
"""Bytes of a body below which coding does not pay."""

_ELEMENT = re.compile(
    r"(?P<coding>[!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:[ \t]*;[ \t]*[qQ]=(?P<q>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_COMPRESSED = re.compile(
    r"(?:image/(?!svg|bmp|x-ms-bmp|vnd\.adobe|x-portable|tiff)|video/|audio/(?!wav|x-wav|midi|basic)|font/woff"
    r"|application/(?:[a-z0-9.+-]*(?:zip|gzip|zstd|compressed|7z|rar|xz|bzip2?|lz4|lzma)"
    r"|pdf|epub|java-archive|vnd\.openxmlformats|vnd\.oasis|x-xz|x-tgz|ogg|mp4))",
    re.IGNORECASE,
)


def choose(header: str | None, offered: tuple[str, ...] = OFFERED) -> str | None:
    """The coding for a client that sent this Accept-Encoding; None: none will do."""
    return next(iter(taken(header, offered)), None)


def taken(header: str | None, offered: tuple[str, ...] = OFFERED) -> tuple[str, ...]:
    """What a client that sent this Accept-Encoding takes, the best first.

    The greatest quality wins; among equals the one offered first, and a coding before
    identity. What breaks the syntax is passed over, as if it were not there. Without
    the header everything is taken, and identity is the best.
    """
    if header is None:
        return (IDENTITY, *offered)
    asked: dict[str, float] = {}
    for part in header.split(","):
        match = _ELEMENT.fullmatch(part.strip(" \t"))
        if match is not None:
            coding = match["coding"].lower()
            coding = "gzip" if coding == "x-gzip" else coding
            asked[coding] = float(match["q"] or 1)
    others = asked.get("*", 0.0)
    qualities = {coding: asked.get(coding, others) for coding in offered}
    # Identity is refused by name or by `*;q=0` alone; otherwise it is the last resort.
    qualities[IDENTITY] = asked.get(IDENTITY, asked.get("*", 0.001) or 0.0)
    best = sorted(qualities, key=qualities.__getitem__, reverse=True)
    return tuple(coding for coding in best if qualities[coding] > 0)


def worth_coding(headers: Mapping[str, str], size: int) -> bool:
    """Whether a body with these kept headers may shrink.

    Not what has a Content-Encoding, a type that is compressed, or few bytes.
    """
    return size >= LEAST and may_shrink(headers)


def may_shrink(headers: Mapping[str, str]) -> bool:
    """Whether a content with these kept headers is not known to be compressed."""
    if "content-encoding" in headers:
        return False
    return _COMPRESSED.match(headers.get("content-type", "").strip()) is None
