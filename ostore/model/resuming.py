"""Resumable uploads: what lies beside their temporaries, and what is decided by it.

An upload lies on k + m nodes: a temporary each, with the record. Who goes on with it
claims it on a majority of them with a growing epoch. What is written under an epoch is
written by one claimant alone, and only once the upload is *settled* under that epoch on
a write quorum: each of those nodes holds every stripe and the tail that the claim
found. So among the nodes of the highest settled epoch, one holds what the others hold
or more, and all that was ever acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ostore.model.conditions import EntityTags, WriteCondition
from ostore.model.errors import Malformed, OstoreError, Refused, Unavailable
from ostore.model.versions import Version

STRIPE = 1 << 20
ROW = 13
"""Bytes of a stripe's row in a table."""


class WrongPart(Refused):
    """The part does not begin where the upload ends; `held` is where that is."""

    def __init__(self, held: int) -> None:
        super().__init__(f"the upload holds {held} bytes: the next part begins there")
        self.held = held


class Busy(Refused):
    """Another request writes this upload; `held` bytes are kept, if that is known."""

    def __init__(self, message: str, held: int | None = None) -> None:
        super().__init__(message)
        self.held = held


class TooMuch(OstoreError):
    """More bytes than the upload was to have; it is gone."""


class Paused(Unavailable):
    """The upload cannot go on now; `held` bytes are kept, if that is known."""

    def __init__(self, message: str, held: int | None = None) -> None:
        super().__init__(message)
        self.held = held


@attrs.frozen
class Tail:
    """The bytes of an unfinished stripe that a node holds."""

    stripe: int
    epoch: int
    length: int


@attrs.frozen
class UploadState:
    """What a node says of an upload.

    `granted` answers a claim; `active`: the standing claimant wrote a moment ago.
    `epoch` is the highest granted, `settled` the one under which its frames were last
    settled (0: never). `rows` has ROW bytes for each durable frame. `outcome` is
    set once the upload is finished.
    """

    epoch: int
    settled: int
    active: bool
    record: str
    rows: bytes = b""
    tails: tuple[Tail, ...] = ()
    outcome: str | None = None
    granted: bool = False

    @property
    def stripes(self) -> int:
        """Durable frames."""
        return len(self.rows) // ROW

    def tail(self, stripe: int) -> int:
        """Bytes of that stripe's tail, as far as the settled epoch wrote it."""
        return max(
            (
                tail.length
                for tail in self.tails
                if tail.stripe == stripe and tail.epoch == self.settled
            ),
            default=0,
        )


@attrs.frozen
class UploadRecord:
    """What an upload is to become, and where it lies: shard index -> node id.

    `replaced` nodes had a shard that was begun anew elsewhere; they may still hold it.
    """

    name: str
    size: int
    data: int
    parity: int
    quorum: int
    nodes: Mapping[int, str]
    put_id: str
    digest: str | None = None
    bucket: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    condition: WriteCondition = attrs.field(factory=WriteCondition)
    replaced: tuple[str, ...] = ()

    @property
    def everywhere(self) -> Sequence[str]:
        """All nodes that may hold something of it."""
        return list(dict.fromkeys([*self.nodes.values(), *self.replaced]))

    @property
    def shards(self) -> int:
        """All of them, k + m."""
        return self.data + self.parity

    @property
    def stripes(self) -> int:
        """How many the whole content has."""
        return -(-self.size // STRIPE)

    @property
    def majority(self) -> int:
        """Nodes that have to grant a claim.

        Few enough are left out that they cannot be a write quorum among themselves.
        """
        most = self.shards // 2 + 1
        return max(most, self.data, self.shards - self.quorum + 1)

    def moved(self, index: int, node: str) -> UploadRecord:
        """With that shard on another node."""
        left = self.nodes.get(index, "")
        gone = dict.fromkeys([*self.replaced, left])
        return attrs.evolve(
            self,
            nodes={**self.nodes, index: node},
            replaced=tuple(each for each in gone if each and each != node),
        )

    def offset(self, stripes: int, tail: int = 0) -> int:
        """Bytes held in so many stripes and a tail."""
        return min(stripes * STRIPE, self.size) + tail

    def to_json(self) -> str:
        """The text that nodes keep."""
        shown = attrs.asdict(self, recurse=False)
        shown["nodes"] = {str(index): node for index, node in self.nodes.items()}
        shown["headers"] = dict(self.headers)
        shown["condition"] = {
            "if_match": _shown_tags(self.condition.if_match),
            "if_none_match": _shown_tags(self.condition.if_none_match),
            "create_only": self.condition.create_only,
            "if_unmodified_since": self.condition.if_unmodified_since,
        }
        return json.dumps(shown, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> UploadRecord:
        """Read what to_json() gave. Raises Malformed."""
        try:
            shown: dict[str, Any] = json.loads(text)
            condition = shown["condition"]
            return cls(
                **{
                    **shown,
                    "nodes": {int(i): str(n) for i, n in shown["nodes"].items()},
                    "replaced": tuple(map(str, shown.get("replaced", ()))),
                    "condition": WriteCondition(
                        _read_tags(condition["if_match"]),
                        _read_tags(condition["if_none_match"]),
                        bool(condition["create_only"]),
                        condition["if_unmodified_since"],
                    ),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Malformed("this is no record of an upload") from None


def outcome_to_json(version: Version) -> str:
    """What a finished upload keeps of its version."""
    return json.dumps(
        {
            "name": version.name,
            "number": version.number,
            "hash": version.hash,
            "size": version.size,
            "created": version.created,
            "bucket": version.bucket,
            "headers": dict(version.headers),
        },
        separators=(",", ":"),
    )


def outcome_from_json(text: str) -> Version:
    """Read what outcome_to_json() gave. Raises Malformed."""
    try:
        return Version(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise Malformed("this is no outcome of an upload") from None


def _shown_tags(tags: EntityTags | None) -> Any:
    if tags is None:
        return None
    return {"any": tags.any, "strong": sorted(tags.strong), "weak": sorted(tags.weak)}


def _read_tags(shown: Any) -> EntityTags | None:
    if shown is None:
        return None
    return EntityTags(
        bool(shown["any"]), frozenset(shown["strong"]), frozenset(shown["weak"])
    )
