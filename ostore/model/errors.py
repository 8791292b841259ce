"""Every error that crosses a room's border, as one family.

    OstoreError
    ├── Malformed            the request itself is wrong: says what, and what is allowed
    │   ├── DigestMismatch   the body is not what its digest promised
    │   └── HeadersTooLarge  more kept headers than a version may have
    ├── NotFound             no such object, version, content or node
    │   └── Deleted          the newest version is a delete marker
    ├── Refused              the state of the store forbids it
    │   ├── AlreadyExists    create-only, and the object is there
    │   └── ConditionFailed  If-Match and its family do not hold
    ├── Unavailable          not now: try again
    │   ├── TooFewNodes      fewer nodes than the write quorum
    │   ├── TooFewShards     fewer than k shards of one layout within reach
    │   ├── OutcomeUnknown   the write may yet appear
    │   ├── MetadataUnavailable
    │   └── BusUnavailable
    ├── NoSpace              the nodes are full
    ├── ClientGone           the peer of a body went away or fell silent
    └── ShardError           between engine and nodes; never reaches a client as such
        ├── ShardMissing     no such shard here (the file is not there)
        ├── ShardRotten      there, but not what it says it is
        ├── ShardRefused     a write that contradicts itself: layout, digest, offset, deadline
        ├── NodeUnreachable  the node did not answer, or its disk failed
        └── NodeFull

The sentence of an error is for the person who caused it; nothing internal goes in.
"""

from __future__ import annotations


class OstoreError(Exception):
    """The parent of all; `str()` of it is one sentence for a person."""


class Malformed(OstoreError):
    """Something in the request is wrong; the sentence says what is allowed."""


class DigestMismatch(Malformed):
    """The body's SHA-256 differs from the one that was promised."""


class HeadersTooLarge(Malformed):
    """The headers to be kept with a version are too large together."""


class NotFound(OstoreError):
    """There is no such object, version, content or node."""


class Deleted(NotFound):
    """The version asked for is a delete marker; `number` is its version."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class Refused(OstoreError):
    """The present state of the store forbids the request."""


class AlreadyExists(Refused):
    """Create-only was asked for, and the object exists."""


class ConditionFailed(Refused):
    """A precondition of the request does not hold."""


class Unavailable(OstoreError):
    """It cannot be done now; the same request may succeed later."""

    retry_after = 1
    """Seconds after which trying again makes sense."""


class TooFewNodes(Unavailable):
    """Fewer nodes are there than a write needs."""

    retry_after = 5


class TooFewShards(Unavailable):
    """Fewer than k shards of any one layout are within reach."""

    retry_after = 5


class OutcomeUnknown(Unavailable):
    """The write was sent and its fate could not be learned: it may yet appear."""


class MetadataUnavailable(Unavailable):
    """The metadata store does not answer."""


class BusUnavailable(Unavailable):
    """The message bus does not answer."""


class NoSpace(OstoreError):
    """The nodes have no room for the content."""


class ClientGone(OstoreError):
    """The other end of a body's connection is gone."""


class ShardError(OstoreError):
    """Something went wrong with one shard on one node."""


class ShardMissing(ShardError):
    """The node does not hold that shard."""


class ShardRotten(ShardError):
    """The node holds the shard, and its bytes are not what they were."""


class ShardRefused(ShardError):
    """A write to a node that contradicts itself, or came too late."""


class NodeUnreachable(ShardError):
    """The node did not answer in time, or its disk failed."""


class NodeFull(ShardError):
    """The node has no room."""
