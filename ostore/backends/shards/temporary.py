"""One temporary, what it is to become, and what is wrong with a request for it."""

from __future__ import annotations

import attrs

from ostore.erasure.draft import ShardDraft
from ostore.model.errors import NodeUnreachable, Refused, ShardRefused
from ostore.model.layouts import Layout, ShardKey


class WrongOffset(Refused):
    """The bytes would not stand behind those that are held."""

    def __init__(self, held: int) -> None:
        super().__init__(f"the temporary holds {held} bytes")
        self.held = held


class TooLong(ShardRefused):
    """More bytes than the temporary was to have; it is gone."""


@attrs.frozen
class Commit:
    """What a temporary is to become.

    The id in `layout` may be empty for plain bytes. `digest` is SHA-256 over the frame
    headers of a framed temporary, over the bytes of a plain one; `deadline` is in
    seconds since 1970, `age` in seconds.
    """

    hash: str
    index: int
    layout: Layout
    digest: bytes | None = None
    deadline: float | None = None
    age: float = 0.0

    def key(self, layout: Layout) -> ShardKey:
        """The shard's name."""
        return ShardKey(self.hash, self.index, layout.id)


@attrs.define(eq=False)
class Temporary:
    """What is known of one beside its file, from which all but the limit can be read.

    A framed one is a shard's file without its trailer, a plain one plain.HEAD and the
    bytes. `framed` is None before the first byte.
    """

    uuid: str
    limit: int | None
    touched: float
    draft: ShardDraft = attrs.field(factory=ShardDraft)
    plain: int = 0
    framed: bool | None = None
    busy: bool = False
    gone: bool = False

    @property
    def held(self) -> int:
        """Bytes of the sender, without the headers of frames."""
        return self.plain or self.draft.block_bytes

    def become(self, framed: bool) -> None:
        """Be of that kind from now on. Raises Refused when it is of the other."""
        if self.framed not in (None, framed):
            kind = "frames" if self.framed else "plain bytes"
            raise Refused(f"the temporary holds {kind}")
        self.framed = framed

    def admit(self, more: int) -> None:
        """See to it that `more` bytes may follow. Raises NodeUnreachable, TooLong."""
        if self.gone:
            raise NodeUnreachable("the temporary was removed meanwhile")
        if self.limit is not None and self.held + more > self.limit:
            raise TooLong(f"the temporary was to have {self.limit} bytes")
