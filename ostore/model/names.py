"""Names that come from outside: of objects, of shards, of uploads.

An object's name never becomes a path; the names that do become one are hex digits
and a small number, nothing else.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from ostore.model.errors import Malformed
from ostore.model.layouts import MAX_SHARDS

MAX_NAME = 1024
"""Bytes of an object's name in UTF-8."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SHARD = re.compile(r"([0-9a-f]{64})(?:\.(0|[1-9][0-9]?))?")
_UPLOAD = re.compile(r"[0-9a-f]{32}")


def object_name(raw: bytes) -> str:
    """The name in a percent-encoded path, decoded once. Raises Malformed."""
    decoded = raw
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise Malformed("in a name '%' is followed by two hex digits")
        decoded = unquote_to_bytes(raw)
    if not decoded:
        raise Malformed("the name is empty; it has 1 to 1024 bytes")
    if len(decoded) > MAX_NAME:
        raise Malformed(f"the name has {len(decoded)} bytes; 1 to 1024 are allowed")
    if b"\0" in decoded:
        raise Malformed("a name holds no NUL")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a name is percent-encoded UTF-8") from None


def quote_name(name: str) -> str:
    """The name as it stands in a URL's path; slashes stay."""
    return quote(name, safe="/")


def shard_name(text: str) -> tuple[str, int | None]:
    """Hash and index of `<hash>.<index>`, or of `<hash>` alone. Raises Malformed."""
    match = _SHARD.fullmatch(text)
    if match is None or int(match[2] or 0) >= MAX_SHARDS:
        raise Malformed(
            f"a shard is named <64 lower-case hex digits>.<0 to {MAX_SHARDS - 1}>"
        )
    return match[1], None if match[2] is None else int(match[2])


def upload_name(text: str) -> str:
    """The same text when it names an upload. Raises Malformed."""
    if _UPLOAD.fullmatch(text) is None:
        raise Malformed("an upload is named by 32 lower-case hex digits")
    return text


def log_safe(text: str, limit: int = 256) -> str:
    """The text for a log line: one line, no control characters, not too long."""
    shown = text if len(text) <= limit else f"{text[:limit]}…"
    if shown.isprintable():
        return shown
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in shown
    )
