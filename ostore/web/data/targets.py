"""The targets of a node, and the tricks that are none."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from ostore.backends.nodes.records import TARGET
from ostore.model.errors import Malformed

UNKNOWN = "unknown"
"""The label of targets that are not ours."""

MAX_PATH = 1024
"""Bytes of a path as sent."""

FRAMES = TARGET
"""Where conversations begin."""

FIXED = frozenset(
    {
        FRAMES,
        "/shards",
        "/node",
        "/cluster-id",
        "/drain",
        "/sweep",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
)
OPEN = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Targets that need no signature."""

TEMPORARY = "/temp/{uuid}"
UPLOAD = "/uploads/{uuid}"
CONTENT = "/objects/{hash}"
SHARD = "/objects/{hash}.{i}"

ROUTES: Final = (*sorted(FIXED), TEMPORARY, UPLOAD, CONTENT, SHARD)
"""Every target, as the documentation writes it."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)


def match(path: bytes) -> tuple[str, str]:
    """The label of a path as sent, and what stands behind its fixed part.

    The latter is decoded once, to one segment. Raises Malformed for what could lead
    out of its folder if ever it became a path: it never does.
    """
    name = _one_segment(path)
    fixed = path.decode("latin-1")
    if fixed in FIXED:
        return fixed, ""
    if path.startswith(b"/temp/"):
        return TEMPORARY, name
    if path.startswith(b"/uploads/"):
        return UPLOAD, name
    if path.startswith(b"/objects/"):
        return SHARD if "." in name else CONTENT, name
    return UNKNOWN, ""


def label(path: bytes) -> str:
    """The label alone, for counting; never raises."""
    try:
        return match(path)[0]
    except Malformed:
        return UNKNOWN


def _one_segment(path: bytes) -> str:
    """What stands behind the second slash, decoded once. Raises Malformed."""
    if len(path) > MAX_PATH:
        raise Malformed(f"a path has at most {MAX_PATH} bytes")
    if _BAD_ESCAPE.search(path):
        raise Malformed("in a path '%' is followed by two hex digits")
    decoded = unquote_to_bytes(path)
    segments = decoded.split(b"/")
    if _SLASH.search(path) or b"\0" in decoded or not decoded.startswith(b"/"):
        raise Malformed("a path holds no NUL, no backslash and no encoded slash")
    empty = b"" in segments[1:] and path != b"/"
    if empty or b"." in segments or b".." in segments:
        raise Malformed("a path holds no empty segment, no '.' and no '..'")
    if len(segments) > 3:
        raise Malformed("nothing here lies deeper than two segments")
    return segments[2].decode("utf-8", "replace") if len(segments) == 3 else ""
