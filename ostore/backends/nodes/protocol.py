"""What both ends of a data node's HTTP share: names, JSON forms, errors.

The requests themselves are described in docs/data-api.md.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from ostore.model.errors import (
    Malformed,
    NodeFull,
    NodeUnreachable,
    Refused,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import MAX_SHARDS, Holding, Layout, ShardFacts

FRAMES = "application/x-ostore-frames"
"""The media type of a body made of frames."""
TABLE = "application/x-ostore-table"
"""The media type of a stripe table."""

LAYOUT = "X-Ostore-Layout"
NODE = "X-Ostore-Node"
"""Asked: the id of the node that is meant. Answered: the id of the one that spoke."""
NOW = "X-Ostore-Now"
"""Answered: unix seconds by the node's clock, with milliseconds."""
BOOT = "X-Ostore-Boot"
"""Answered with a refused date: counter and chance of the node's boot."""
FACTS = "X-Ostore-Facts"
"""Answered with a shard's table: the JSON object of the shard."""
HELD = "Upload-Offset"
"""Bytes of blocks held by a temporary."""

MAX_ANSWER = 8 << 20
"""Bytes of a JSON answer that a caller reads."""
MAX_TABLE = 64 << 20
"""Bytes of a stripe table that a caller reads: contents of about 5 TiB."""
MAX_DETAIL = 500
"""Characters of a problem's sentence that a caller keeps."""

ERRORS: Final[Mapping[str, tuple[int, type[ShardError] | type[Refused]]]] = {
    "shard-missing": (404, ShardMissing),
    "shard-rotten": (410, ShardRotten),
    "shard-refused": (400, ShardRefused),
    "node-full": (507, NodeFull),
    "node-unreachable": (503, NodeUnreachable),
    "node-refused": (409, Refused),
}
"""Problem type -> status, and the error that it stands for at either end."""

_STATES = frozenset({"have", "none", "unsure"})
_SHARD_STATES = frozenset({"whole", "bad", "garbage"})
_HASH = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"SHA-256=([A-Za-z0-9+/]{43}=)", re.IGNORECASE)


def problem_of(error: Exception) -> tuple[int, str] | None:
    """Status and problem type of an error that has one here."""
    for slug, (status, kind) in ERRORS.items():
        if isinstance(error, kind):
            return status, slug
    return None


def error_of(status: int, body: bytes) -> Exception:
    """The error that an answer stands for; NodeUnreachable when it is none of ours."""
    try:
        problem = json.loads(body)
        slug = str(problem["type"]).removeprefix("urn:ostore:problem:")
        detail = str(problem["detail"])[:MAX_DETAIL]
        return ERRORS[slug][1](detail)
    except (ValueError, KeyError, TypeError, RecursionError):
        return NodeUnreachable(f"the node answered {status}")


def digest_header(digest: bytes) -> str:
    """A SHA-256 as `Digest` says it (RFC 3230)."""
    return f"SHA-256={base64.b64encode(digest).decode('ascii')}"


def parse_digest(text: str) -> bytes:
    """The SHA-256 in a `Digest`. Raises Malformed."""
    match = _DIGEST.fullmatch(text.strip())
    if match is None:
        raise Malformed("Digest must read 'SHA-256=<base64>'")
    return base64.b64decode(match[1])


def facts_to_json(facts: ShardFacts) -> dict[str, Any]:
    """The JSON object of one shard."""
    layout = facts.layout
    return {
        "hash": facts.hash,
        "index": facts.index,
        "layout": layout.id,
        "k": layout.data,
        "m": layout.parity,
        "size": layout.size,
        "bytes": facts.bytes,
        "age": round(facts.age, 3),
        "state": facts.state,
    }


def facts_from_json(shown: Any) -> ShardFacts:
    """Read what facts_to_json() gave. Raises NodeUnreachable."""
    try:
        header = (
            f"k={int(shown['k'])}; m={int(shown['m'])}; size={int(shown['size'])};"
            f" id={shown['layout']}"
        )
        layout = _unread(shown) or Layout.parse(header)
        facts = ShardFacts(
            hash=str(shown["hash"]),
            index=int(shown["index"]),
            layout=layout,
            bytes=int(shown["bytes"]),
            age=float(shown["age"]),
            state=str(shown["state"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, Malformed):
        raise NodeUnreachable("the node's answer is no shard") from None
    known = facts.state in _SHARD_STATES and _HASH.fullmatch(facts.hash) is not None
    most = layout.shards if layout.data else MAX_SHARDS
    possible = 0 <= facts.index < most and facts.bytes >= 0 and isfinite(facts.age)
    if not (known and possible):
        raise NodeUnreachable("the node's answer is no shard")
    return facts


def _unread(shown: Any) -> Layout | None:
    """The layout of a file whose footer could not be read: only its id is known."""
    if shown["k"] or shown["state"] == "whole":
        return None
    return Layout(0, 0, 0, str(shown["layout"]))


def holding_to_json(holding: Holding) -> dict[str, Any]:
    """The JSON object that answers what a node holds of a content."""
    return {
        "state": holding.state,
        "shards": [facts_to_json(facts) for facts in holding.shards],
    }


def holding_from_json(shown: Any) -> Holding:
    """Read what holding_to_json() gave. Raises NodeUnreachable."""
    try:
        state, shards = str(shown["state"]), list(shown["shards"])
    except (KeyError, TypeError):
        raise NodeUnreachable("the node's answer is no holding") from None
    if state not in _STATES:
        raise NodeUnreachable("the node's answer is no holding")
    return Holding(state, tuple(facts_from_json(each) for each in shards))


def list_from_json(shown: Any) -> Sequence[ShardFacts]:
    """The page of shards that `GET /shards` answered. Raises NodeUnreachable."""
    try:
        shards = list(shown["shards"])
    except (KeyError, TypeError):
        raise NodeUnreachable("the node's answer is no list of shards") from None
    return [facts_from_json(each) for each in shards]
