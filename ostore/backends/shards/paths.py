"""Every path below a storage root is built here, and every name found is read here."""

from __future__ import annotations

import posixpath
import re

import attrs

from ostore.model.errors import Malformed
from ostore.model.layouts import MAX_SHARDS, ShardKey

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(
    r"([0-9a-f]{64})\.(0|[1-9][0-9]?)\.([0-9a-f]{32})(?:\.([1-9][0-9]{0,2}))?"
)

_TAIL = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,15})\.([1-9][0-9]{0,15})\.tail")

FANS = tuple(f"{number:02x}" for number in range(256))
"""Names of the folders below objects/: the first two digits of the hashes in them."""

MAX_COPY = 255
"""The greatest suffix of a name in garbage/."""


def checked_hash(hash: str) -> str:
    """The hash itself. Raises Malformed unless it is 64 hex digits, lower case."""
    if not _HASH.fullmatch(hash):
        raise Malformed("a content hash is 64 hex digits in lower case")
    return hash


def checked_id(text: str) -> str:
    """An upload or layout id itself. Raises Malformed unless 32 hex digits."""
    if not _ID.fullmatch(text):
        raise Malformed("an id is 32 hex digits in lower case")
    return text


def checked_key(key: ShardKey) -> None:
    """Raise Malformed unless that could be a shard."""
    checked_hash(key.hash)
    checked_id(key.layout)
    if not 0 <= key.index < MAX_SHARDS:
        raise Malformed(f"a shard index is 0 to {MAX_SHARDS - 1}")


def parse_shard(name: str) -> ShardKey | None:
    """The shard that a file in objects/ is named after; None for a strange name."""
    found = parse_garbage(name)
    return found[0] if found is not None and found[1] == 0 else None


def parse_garbage(name: str) -> tuple[ShardKey, int] | None:
    """Shard and copy number of a name in garbage/; None for a strange name."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[2]) >= MAX_SHARDS:
        return None
    copy = int(match[4] or 0)
    if copy > MAX_COPY:
        return None
    return ShardKey(match[1], int(match[2]), match[3]), copy


def parse_tail(name: str) -> tuple[str, int, int] | None:
    """Upload, stripe and epoch of the name of a tail; None for another name."""
    match = _TAIL.fullmatch(name)
    return None if match is None else (match[1], int(match[2]), int(match[3]))


def _absolute(path: str) -> str:
    return posixpath.abspath(path)


@attrs.frozen
class Paths:
    """The layout of one storage root; `root` is absolute. Methods raise Malformed."""

    root: str = attrs.field(converter=_absolute)

    @property
    def parent(self) -> str:
        """The folder that holds the root."""
        return posixpath.dirname(self.root)

    @property
    def identity(self) -> str:
        """Node id, boot counter, cluster and epoch."""
        return f"{self.root}/node.json"

    @property
    def lock(self) -> str:
        """The file whose lock says that a process has this root."""
        return f"{self.root}/lock"

    @property
    def draining(self) -> str:
        """A file that is there while the node gives its shards away."""
        return f"{self.root}/draining"

    @property
    def objects(self) -> str:
        """Folders of shards."""
        return f"{self.root}/objects"

    @property
    def temp(self) -> str:
        """Shards that are being written."""
        return f"{self.root}/temp"

    @property
    def garbage(self) -> str:
        """Shards on their way out."""
        return f"{self.root}/garbage"

    def fan(self, hash: str) -> str:
        """The folder of all shards of a content."""
        return f"{self.objects}/{checked_hash(hash)[:2]}"

    def shard(self, key: ShardKey) -> str:
        """The file of a shard."""
        return f"{self.fan(key.hash)}/{_name(key)}"

    def upload(self, upload: str) -> str:
        """The file of a temporary."""
        return f"{self.temp}/{checked_id(upload)}"

    def record(self, upload: str) -> str:
        """What a resumable upload is to become."""
        return f"{self.upload(upload)}.upload"

    def tail(self, upload: str, stripe: int, epoch: int) -> str:
        """The bytes of a stripe that is not complete."""
        return f"{self.upload(upload)}.{stripe:d}.{epoch:d}.tail"

    def discarded(self, key: ShardKey, copy: int) -> str:
        """The file of a shard in garbage; `copy` tells equal ones apart, from 0."""
        if not 0 <= copy <= MAX_COPY:
            raise Malformed(f"garbage keeps at most {MAX_COPY + 1} copies of one shard")
        suffix = f".{copy}" if copy else ""
        return f"{self.garbage}/{_name(key)}{suffix}"


def _name(key: ShardKey) -> str:
    checked_key(key)
    return f"{key.hash}.{key.index}.{key.layout}"
