"""From the head of a write to what the store is asked for; all refusals known early."""

from __future__ import annotations

import hashlib
import re

from ostore.engine.store import PutRequest
from ostore.model.conditions import WriteCondition
from ostore.model.digest import parse_digest_headers
from ostore.model.errors import Malformed
from ostore.model.names import object_name
from ostore.streaming.resource import Call
from ostore.web.api import parameters
from ostore.web.api.kept import kept_headers

_CONDITIONAL = frozenset({b"if-match", b"if-none-match", b"if-unmodified-since"})
_DIGESTS = frozenset({b"digest", b"content-digest", b"repr-digest"})
UNCONDITIONAL = WriteCondition()
CREATE_ONLY = WriteCondition(create_only=True)
_LABEL = b"ostore idempotency key"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_SOURCE = re.compile(r"(?P<name>[^?]+)(?:\?version=(?P<number>[0-9]{1,19}))?")


def put_request(
    call: Call, name: str, *, create_only: bool, require_digest: bool
) -> PutRequest:
    """What a PUT or POST asks for. Raises Malformed, HeadersTooLarge."""
    if call.header("Content-Range") is not None:
        raise Malformed(
            "Content-Range: a part of an object cannot be written; leave it out and "
            "send the whole, or begin a resumable upload with POST and Size"
        )
    if parameters.version(call) is not None:
        raise Malformed("version: a write makes a new version; leave it out")
    digest = _digest(call)
    if digest is None and require_digest:
        raise Malformed("a Digest is required: 'Digest: SHA-256=<base64 of 32 bytes>'")
    return PutRequest(
        name=name,
        digest=digest,
        size=call.body.length,
        headers=kept_headers(call.request.fields.items()),
        condition=write_condition(call, create_only=create_only),
        put_id=put_id(call, name),
    )


def _digest(call: Call) -> str | None:
    if _DIGESTS.isdisjoint(call.request.fields):
        return None
    return parse_digest_headers(
        _lines(call, "Digest"),
        _lines(call, "Content-Digest"),
        _lines(call, "Repr-Digest"),
    )


def copy_source(call: Call) -> tuple[str, int | None] | None:
    """Name and version that X-Ostore-Copy-From gives; None without it.

    Raises Malformed, also when there is a body.
    """
    text = call.header("X-Ostore-Copy-From")
    if text is None:
        return None
    if call.body.length != 0:
        raise Malformed("X-Ostore-Copy-From goes with an empty body")
    match = _SOURCE.fullmatch(text.strip(" \t"))
    if match is None or not text.isascii():
        raise Malformed(
            "X-Ostore-Copy-From must read '{percent-encoded name}' or "
            "'{percent-encoded name}?version=N'"
        )
    number = None if match["number"] is None else int(match["number"])
    if number == 0:
        raise Malformed("the version in X-Ostore-Copy-From must be a number from 1")
    return object_name(match["name"].encode("ascii")), number


def write_condition(call: Call, *, create_only: bool = False) -> WriteCondition:
    """What must hold of the newest version. Raises Malformed."""
    if _CONDITIONAL.isdisjoint(call.request.fields):
        return CREATE_ONLY if create_only else UNCONDITIONAL
    return WriteCondition.parse(
        call.header("If-Match"),
        call.header("If-None-Match"),
        call.header("If-Unmodified-Since"),
        create_only=create_only,
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
