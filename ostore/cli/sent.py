"""What became of bytes that were sent, and how they are to be sent."""

from __future__ import annotations

import attrs

from ostore.cli.failures import Damaged, Failure, Refused
from ostore.cli.remote import Remote, Version, hash_of


@attrs.frozen
class Sent:
    """A version that was written, and how: `put`, `resumable` or `instant`."""

    version: Version
    way: str


@attrs.frozen
class Limits:
    """How large a file is sent in one request, and how large a piece of others."""

    threshold: int
    piece: int
    instant: bool = True


def damaged(name: str, error: Refused) -> Failure:
    """What a refusal means where the bytes were right when they left."""
    if error.slug == "digest-mismatch":
        return Damaged(f"{name}: damaged on the way; nothing was stored")
    return error


def checked(remote: Remote, name: str, version: Version, hash: str) -> Version:
    """The version, which must have this content; a wrong one is removed again."""
    if hash_of(version) == hash:
        return version
    remote.erase(name, version["version"])
    raise Damaged(
        f"{name}: what the service stored is not what was sent; "
        f"version {version['version']} was removed again"
    )
