"""The resumable uploads of one data service, as docs/data-api.md describes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from ostore.backends.nodes.asking import COMMIT, Ask, Exchange, Peer, Told
from ostore.backends.nodes.download import RemoteStream
from ostore.backends.nodes.naming import checked, checked_id, naming
from ostore.backends.nodes.protocol import (
    FRAMES,
    LAYOUT,
    MAX_TABLE,
    digest_header,
)
from ostore.backends.nodes.sending import Sending
from ostore.erasure.framing import Frame
from ostore.interfaces import IUploads, IUploadSink
from ostore.model.errors import NodeUnreachable, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.model.resuming import ROW, Tail, UploadState
from ostore.streaming.clock import Clock

MAX_TAIL = 2 << 20
"""Bytes of a tail that a caller reads."""


def state_to_json(state: UploadState) -> dict[str, Any]:
    """The JSON object of an upload's state."""
    return {
        "epoch": state.epoch,
        "settled": state.settled,
        "active": state.active,
        "record": state.record,
        "rows": base64.b64encode(state.rows).decode("ascii"),
        "tails": [[tail.stripe, tail.epoch, tail.length] for tail in state.tails],
        "outcome": state.outcome,
        "granted": state.granted,
    }


def state_from_json(shown: Any) -> UploadState:
    """Read what state_to_json() gave. Raises NodeUnreachable."""
    try:
        rows = base64.b64decode(shown["rows"], validate=True)
        outcome = shown["outcome"]
        state = UploadState(
            int(shown["epoch"]),
            int(shown["settled"]),
            bool(shown["active"]),
            str(shown["record"]),
            rows,
            tuple(Tail(*map(int, tail)) for tail in shown["tails"]),
            None if outcome is None else str(outcome),
            bool(shown["granted"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise NodeUnreachable("the node's answer is no state of an upload") from None
    if len(rows) % ROW or state.epoch < 0 or state.settled < 0:
        raise NodeUnreachable("the node's answer is no state of an upload")
    return state


def stripes_from_json(shown: Any) -> int:
    """The number of frames that an answer tells. Raises NodeUnreachable."""
    try:
        return int(shown["stripes"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise NodeUnreachable("the node's answer is no number of stripes") from None


@implementer(IUploads)
class RemoteUploads:
    """The resumable uploads of one node; made by HttpNodes, holds nothing.

    What must not arrive twice goes on connections of its own.
    """

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock

    # Anybody

    async def begin(self, upload: str, record: str, expiry: float) -> None:
        """A new upload, durable."""
        await self._order(upload, "begin", record.encode(), expiry=f"{expiry:.3f}")

    async def look(self, upload: str) -> UploadState:
        """What is held, durably."""
        ask = Ask(
            "GET",
            f"/uploads/{checked_id(upload)}",
            repeatable=True,
            patience=COMMIT,
            limit=MAX_TABLE,
        )
        return state_from_json((await self._peer.ask(ask)).json())

    async def claim(self, upload: str, epoch: int) -> UploadState:
        """Ask to be the one who writes."""
        return state_from_json((await self._order(upload, "claim", epoch=epoch)).json())

    async def frames(self, upload: str, first: int, stop: int) -> RemoteStream:
        """Frames that are held."""

        async def begin(number: int) -> Exchange:
            target = f"/uploads/{checked_id(upload)}?stripes={number}-{stop - 1}"
            ask = Ask("GET", target, {"Accept": FRAMES}, repeatable=True)
            return await self._peer.answered(ask)

        async def doubt() -> None:
            await self.look(upload)

        return RemoteStream(begin, doubt, lambda _: True, self._clock, first, stop)

    async def tail(self, upload: str, stripe: int, epoch: int) -> bytes:
        """The bytes of a tail."""
        target = f"/uploads/{checked_id(upload)}?tail={stripe:d}&epoch={epoch:d}"
        ask = Ask("GET", target, repeatable=True, limit=MAX_TAIL)
        return (await self._peer.ask(ask)).body

    async def remove(self, upload: str, epoch: int | None = None) -> None:
        """Drop all of it."""
        query = "" if epoch is None else f"?epoch={epoch:d}"
        target = f"/uploads/{checked_id(upload)}{query}"
        await self._peer.ask(Ask("DELETE", target, repeatable=True))

    # The claimant

    async def renew(self, upload: str, epoch: int) -> int:
        """Go on under the same claim; the number of durable frames."""
        told = await self._order(upload, "renew", repeatable=True, epoch=epoch)
        return stripes_from_json(told.json())

    async def cut(self, upload: str, epoch: int, stripes: int) -> None:
        """Forget all frames but the first ones."""
        await self._order(upload, "cut", repeatable=True, epoch=epoch, stripes=stripes)

    async def settle(self, upload: str, epoch: int, record: str) -> None:
        """Note that this node holds all there is."""
        body = record.encode()
        await self._order(upload, "settle", body, repeatable=True, epoch=epoch)

    async def open(self, upload: str, epoch: int, first: int) -> RemoteUploadSink:
        """A sink for frames; nothing is asked before the first comes."""
        return RemoteUploadSink(self, self._peer, self._clock, upload, epoch, first)

    async def add_tail(
        self, upload: str, epoch: int, stripe: int, at: int, data: bytes
    ) -> None:
        """Append to the tail of that stripe."""
        await self._order(upload, "tail", data, epoch=epoch, stripe=stripe, at=at)

    async def commit(
        self,
        upload: str,
        epoch: int,
        key: ShardKey,
        layout: Layout,
        deadline: float | None,
    ) -> None:
        """Name the temporary as a shard."""
        name = checked(key, layout)
        query = await naming(self._peer, deadline, 0.0)
        target = f"/uploads/{checked_id(upload)}?do=commit&epoch={epoch:d}&as={name}"
        headers = {LAYOUT: layout.header()}
        ask = Ask("POST", target + query, headers, repeatable=True, patience=COMMIT)
        await self._peer.ask(ask)

    async def finish(self, upload: str, epoch: int, outcome: str) -> None:
        """Keep the outcome alone."""
        await self._order(upload, "finish", outcome.encode(), epoch=epoch)

    async def release(self, upload: str, epoch: int) -> None:
        """Let others claim it at once."""
        await self._order(upload, "release", repeatable=True, epoch=epoch)

    async def _order(
        self,
        upload: str,
        do: str,
        body: bytes = b"",
        *,
        repeatable: bool = False,
        **query: int | str,
    ) -> Told:
        target = f"/uploads/{checked_id(upload)}?do={do}"
        target += "".join(f"&{name}={value}" for name, value in query.items())
        headers: Mapping[str, str] = {}
        if body:
            headers = {"Digest": digest_header(hashlib.sha256(body).digest())}
        ask = Ask(
            "POST",
            target,
            headers,
            [body] if body else (),
            repeatable=repeatable,
            fresh=not repeatable,
            patience=COMMIT,
            limit=MAX_TABLE,
        )
        return await self._peer.ask(ask)


@implementer(IUploadSink)
class RemoteUploadSink(Sending):
    """Frames of one part on their way to one node; used by one Share."""

    def __init__(
        self,
        uploads: RemoteUploads,
        peer: Peer,
        clock: Clock,
        upload: str,
        epoch: int,
        first: int,
    ) -> None:
        super().__init__(peer, clock)
        self._uploads = uploads
        self._upload = upload
        self._epoch = epoch
        self._frames = first

    async def write(self, frame: Frame) -> None:
        """Send one frame, once the one before has left."""
        await self._ready()
        if frame.number != self._frames:
            raise ShardRefused(f"frame {frame.number} stands where {self._frames} must")
        await self._send(frame.header(), frame)
        self._frames += 1
        self._rest()

    async def sync(self) -> int:
        """Make durable what was sent; the number of frames held."""
        self._stop_resting()
        sent = self._exchange is not None
        await self._settled()
        if sent:
            return self._frames
        return await self._uploads.renew(self._upload, self._epoch)

    async def close(self) -> None:
        """Cut what is under way."""
        self._stop_resting()
        self._failed(NodeUnreachable("the part has ended"))

    def _ask(self) -> Ask:
        target = f"/uploads/{self._upload}?epoch={self._epoch}&first={self._frames}"
        frames = {"Content-Type": FRAMES}
        return Ask("PATCH", target, frames, streams=True, patience=COMMIT)

    def _took(self, told: Told) -> None:
        if stripes_from_json(told.json()) != self._frames:
            raise NodeUnreachable("the node took less than was sent")
