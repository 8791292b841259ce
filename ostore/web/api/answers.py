"""What the answers of the api have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from ostore.model.digest import digest_header, repr_digest_header
from ostore.model.versions import Version
from ostore.streaming.reply import Reply
from ostore.web.api.kept import given_back

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=1024)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def encode(value: Any) -> bytes:
    """One line of JSON in UTF-8."""
    return _ENCODER.encode(value).encode() + b"\n"


def send_json(
    reply: Reply, status: int, value: Any, headers: Mapping[str, str] | None = None
) -> None:
    """A whole answer of JSON."""
    reply.send(
        status, {"Content-Type": "application/json", **(headers or {})}, encode(value)
    )


def naming(version: Version) -> dict[str, str]:
    """The header lines that name a version and its content."""
    return {"ETag": f'"{version.hash}"', "X-Ostore-Version": str(version.number)}


def written(version: Version) -> dict[str, str]:
    """The header lines of the answer to a write.

    Repr-Digest is not among them: there it would be about the answer's own body.
    """
    return {**naming(version), "Digest": digest_header(version.hash)}


def describing(version: Version) -> dict[str, str]:
    """The header lines of a read, but for those that tell its length."""
    headers = given_back(version.headers)
    headers.update(written(version))
    headers["Repr-Digest"] = repr_digest_header(version.hash)
    headers["Last-Modified"] = _date(version.created // 1000)
    headers["Accept-Ranges"] = "bytes"
    return headers


def coded(version: Version, coding: str) -> dict[str, str]:
    """The header lines of a read in a content coding.

    Digests are left out: they would be about the coded bytes (RFC 9530, 3.1).
    """
    headers = describing(version)
    for name in ("Digest", "Repr-Digest"):
        del headers[name]
    headers["ETag"] = f'"{version.hash}-{coding}"'
    headers["Content-Encoding"] = coding
    return headers
