"""From the head of a write to what the store is asked for; all refusals known early."""

from __future__ import annotations

import hashlib
import re

from ostore.engine.store import PutRequest
from ostore.model.conditions import WriteCondition
from ostore.model.digest import parse_digest_headers
from ostore.model.errors import Malformed
from ostore.streaming.resource import Call
from ostore.web.api.kept import kept_headers

_LABEL = b"ostore idempotency key"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_LATER = (
    ("X-Ostore-Copy-From", "copies between names"),
    ("Content-Range", "writes of a part of an object"),
)


def put_request(
    call: Call, name: str, *, create_only: bool, require_digest: bool
) -> PutRequest:
    """What a PUT or POST asks for. Raises Malformed, and Problem for large headers."""
    for header, what in _LATER:
        if call.header(header) is not None:
            raise Malformed(f"{header}: {what} are not available in this version")
    digest = parse_digest_headers(
        _lines(call, "Digest"),
        _lines(call, "Content-Digest"),
        _lines(call, "Repr-Digest"),
    )
    if digest is None and require_digest:
        raise Malformed("a Digest is required: 'Digest: SHA-256=<base64 of 32 bytes>'")
    return PutRequest(
        name=name,
        digest=digest,
        size=call.body.length,
        headers=kept_headers(call.request.requestHeaders.getAllRawHeaders()),
        condition=write_condition(call, create_only=create_only),
        put_id=put_id(call, name),
    )


def write_condition(call: Call, *, create_only: bool = False) -> WriteCondition:
    """What must hold of the newest version. Raises Malformed."""
    return WriteCondition.parse(
        call.header("If-Match"), call.header("If-None-Match"), create_only=create_only
    )


def put_id(call: Call, name: str) -> str | None:
    """The write's id from Idempotency-Key and name; None without. Raises Malformed."""
    key = call.header("Idempotency-Key")
    if key is None:
        return None
    if _KEY.fullmatch(key) is None:
        raise Malformed("Idempotency-Key has 1 to 255 printable ASCII characters")
    labelled = b"\0".join((_LABEL, name.encode(), key.encode()))
    return hashlib.sha256(labelled).hexdigest()[:32]


def _lines(call: Call, name: str) -> list[str]:
    value = call.header(name)
    return [] if value is None else [value]
