"""One shard of a resumable upload, as it is written on one node."""

from __future__ import annotations

import attrs

from ostore.erasure.framing import Frame
from ostore.interfaces import IUploads, IUploadSink
from ostore.model.errors import ShardRefused


@attrs.define(eq=False)
class Share:
    """Owned by a Session; used for one part after the other."""

    upload: str
    epoch: int
    node: str
    uploads: IUploads
    sink: IUploadSink | None = None
    dirty: bool = False

    async def write(self, frame: Frame) -> None:
        """Append one frame."""
        if self.sink is None:
            self.sink = await self.uploads.open(self.upload, self.epoch, frame.number)
        self.dirty = True
        await self.sink.write(frame)

    async def save(self, stripes: int, tail_at: int, tail: bytes) -> None:
        """Make durable what was written, and add to the tail."""
        if self.dirty and self.sink is not None:
            held = await self.sink.sync()
            if held != stripes:
                raise ShardRefused(f"the node holds {held} stripes, not {stripes}")
            self.dirty = False
        if tail:
            await self.uploads.add_tail(self.upload, self.epoch, stripes, tail_at, tail)

    async def close(self) -> None:
        """Close the sink; whatever it fails with."""
        sink, self.sink, self.dirty = self.sink, None, False
        if sink is not None:
            await sink.close()
