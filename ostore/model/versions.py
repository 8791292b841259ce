"""Versions of a name: what was written, and what is about to be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import attrs

from ostore.model.conditions import WriteCondition
from ostore.model.digest import hex_to_base64
from ostore.model.errors import HeadersTooLarge
from ostore.model.layouts import Layout

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
META_PREFIX = "x-ostore-meta-"
MAX_KEPT = 8192
"""Bytes of all kept names and values of one version."""


def bounded(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The kept headers as they are. Raises HeadersTooLarge above MAX_KEPT."""
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_KEPT:
        raise HeadersTooLarge(
            "Content-Type, Content-Encoding, Content-Disposition, Content-Language, "
            f"Cache-Control and X-Ostore-Meta-* may take {MAX_KEPT} bytes in all"
        )
    return headers


def as_text(value: str) -> str:
    """A header value as a person reads it.

    Kept values have one character for each octet that came; most octets are UTF-8.
    """
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


@attrs.frozen
class NewVersion:
    """A version that wants to be written; the store adds number and time.

    `headers` have lower-case names, and values of one character for each octet
    (ISO 8859-1). `put_id` (32 hex digits) makes a repeat of
    the same write find the version that the first one made. `degraded` lists the
    shard indices that were not durable when the version was written.
    """

    name: str
    put_id: str
    hash: str = ""
    size: int = 0
    deleted: bool = False
    bucket: str = ""
    headers: Mapping[str, str] = NO_HEADERS
    layout: Layout | None = None
    degraded: tuple[int, ...] = ()
    condition: WriteCondition = attrs.field(factory=WriteCondition)


@attrs.frozen
class Version:
    """One version of a name as the metadata store keeps it.

    `created` is in milliseconds since 1970, strictly growing within a name.
    """

    name: str
    number: int
    hash: str
    size: int
    created: int
    deleted: bool = False
    put_id: str = ""
    bucket: str = ""
    headers: Mapping[str, str] = NO_HEADERS
    layout: Layout | None = None
    degraded: tuple[int, ...] = ()

    @property
    def created_text(self) -> str:
        """RFC 3339 in UTC with milliseconds."""
        seconds, milliseconds = divmod(self.created, 1000)
        return f"{_to_the_second(seconds)}.{milliseconds:03d}Z"

    def to_json(self) -> dict[str, Any]:
        """The JSON object of a version, as every face shows it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "version": self.number,
            "size": self.size,
            "hash": "" if self.deleted else hex_to_base64(self.hash),
            "created": self.created_text,
            "deleted": self.deleted,
        }
        if "content-type" in self.headers:
            shown["content_type"] = as_text(self.headers["content-type"])
        metadata = {
            key.removeprefix(META_PREFIX): as_text(value)
            for key, value in self.headers.items()
            if key.startswith(META_PREFIX)
        }
        if metadata:
            shown["metadata"] = metadata
        return shown


@attrs.frozen
class Page:
    """A page of a listing: items and prefixes in name order (UTF-8 bytes).

    `next` goes into `after` for the page that follows; None at the end.
    """

    items: tuple[Version, ...]
    prefixes: tuple[str, ...] = ()
    next: str | None = None


@attrs.frozen
class Degraded:
    """A content that versions say lacks shards; `marks` are (bucket, name, number)."""

    hash: str
    layout: Layout
    missing: tuple[int, ...]
    marks: tuple[tuple[str, str, int], ...]


@attrs.frozen
class ClusterFacts:
    """What the metadata store and every node's root agree on."""

    id: str
    epoch: int


@attrs.frozen
class Lease:
    """The right to run the cluster's maintenance, until `until` (seconds since 1970).

    `epoch` is the cluster's: it grows each time the lease changes hands.
    """

    owner: str
    epoch: int
    until: float


@attrs.frozen
class Note:
    """A small JSON object that services share; `mark` changes with each change."""

    value: Mapping[str, Any]
    mark: str
