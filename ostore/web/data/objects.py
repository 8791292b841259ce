"""Shards over HTTP: one content's, and one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from ostore.backends.nodes.protocol import holding_to_json
from ostore.backends.shards.reading import Reader
from ostore.backends.shards.store import ShardStore
from ostore.erasure.framing import Frame, FrameParser
from ostore.model.errors import (
    Malformed,
    Refused,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import ShardKey
from ostore.model.names import shard_name
from ostore.streaming.problem import Problem
from ostore.streaming.resource import Call, Resource
from ostore.web.data import parameters
from ostore.web.data.answers import send_json
from ostore.web.data.parameters import Query
from ostore.web.data.reading import send_bytes, send_frames, send_table

MAX_SMALL = 2 << 20
"""Bytes of a shard that comes in one request."""
MAX_FRAMES = 256
"""Frames of such a shard."""

FoundRotten = Callable[[ShardKey], None]
"""Told of each shard that a reader found rotten."""


class _Held(Resource):
    """What the two kinds of target have in common; made for one request."""

    def __init__(self, store: ShardStore, name: str, found_rotten: FoundRotten) -> None:
        self._store = store
        self._name = name
        self._found_rotten = found_rotten

    async def _discard(self, call: Call, index: int | None, hash: str) -> None:
        query = Query(call, "layout", "token", "epoch")
        layout, token = query.id("layout"), query.text("token")
        if "token" in query:
            if index is None or not layout:
                raise Malformed("a token is for one shard of one layout")
            key = ShardKey(hash, index, layout)
            if not await self._store.discard(key, token, query.number("epoch")):
                raise Refused("the shard is not condemned, or was renewed since")
        elif "epoch" in query:
            raise Malformed("an epoch is for what a token is for")
        else:
            moved = [
                await self._condemn_and_discard(key)
                for key in await self._store.held(hash)
                if index in (None, key.index) and layout in ("", key.layout)
            ]
            if not any(moved):
                raise ShardMissing("there is no such shard here")
        call.reply.send(204)

    async def _condemn_and_discard(self, key: ShardKey) -> bool:
        """Whether it was there. Raises Refused when it was renewed meanwhile."""
        with suppress(ShardMissing):
            if await self._store.discard(key, await self._store.condemn(key)):
                return True
        if key in await self._store.held(key.hash):
            raise Refused("the shard was renewed meanwhile")
        return False


class ContentResource(_Held):
    """All shards of one content that are here."""

    allowed = ("GET", "HEAD", "POST", "DELETE")

    async def get(self, call: Call) -> None:
        """What is held of it."""
        Query(call)
        holding = await self._store.find(self._hash())
        send_json(call.reply, holding_to_json(holding))

    async def post(self, call: Call) -> None:
        """Renew or restore, as `do` says."""
        query = Query(call, "do", "layout")
        hash, layout = self._hash(), query.id("layout")
        if query.text("do") == "renew" and layout:
            holding = await self._store.renew(hash, layout)
        elif query.text("do") == "restore" and not layout:
            holding = await self._store.restore(hash)
        else:
            raise Malformed("a content is asked for do=renew&layout= or do=restore")
        send_json(call.reply, holding_to_json(holding))

    async def delete(self, call: Call) -> None:
        """Move them into garbage."""
        await self._discard(call, None, self._hash())

    def _hash(self) -> str:
        return shard_name(self._name)[0]


class ShardResource(_Held):
    """One shard, in one layout or several."""

    allowed = ("GET", "HEAD", "POST", "DELETE")

    async def get(self, call: Call) -> None:
        """Its bytes, frames of it, or its table."""
        query = Query(call, "layout", "stripes", "part", "bad")
        layout, stripes = query.id("layout"), query.stripes()
        if query.text("part") not in ("", "index"):
            raise Malformed("the part of a shard is index")
        if query.text("bad") not in ("", "1"):
            raise Malformed("bad is 1, or left out")
        key = await self._newest(layout)
        try:
            reader = await self._store.open(key, bad=query.text("bad") == "1")
            try:
                await self._send(call, reader, stripes, "part" in query)
            finally:
                await reader.close()
        except ShardRotten:
            self._found_rotten(key)
            raise

    async def post(self, call: Call) -> None:
        """Store, condemn, erase, check or mark it, as `do` says."""
        query = Query(call, "do", "layout", "deadline", "age", "epoch", "first")
        do, layout = query.text("do"), query.id("layout")
        hash, index = self._shard()
        if "epoch" in query and do not in ("condemn", "erase"):
            raise Malformed("an epoch is for do=condemn and do=erase")
        if "first" in query and do != "check":
            raise Malformed("first is for do=check")
        if do == "put" and not layout:
            await self._put(call, query)
            return
        key = ShardKey(hash, index, layout)
        if do == "condemn" and layout:
            order = (query.age(), query.number("epoch"))
            send_json(call.reply, {"token": await self._store.condemn(key, *order)})
        elif do == "erase" and layout:
            order = (query.age(), query.number("epoch"))
            send_json(call.reply, {"bytes": await self._store.erase(key, *order)})
        elif do == "check" and layout:
            await self._check(call, key, query.number("first") or 0)
        elif do == "bad" and layout:
            await self._store.mark_bad(key)
            call.reply.send(204)
        else:
            raise Malformed(
                "a shard is asked for do=put, or with layout= for do=condemn, do=erase, "
                "do=check or do=bad"
            )

    async def delete(self, call: Call) -> None:
        """Move it into garbage."""
        hash, index = self._shard()
        await self._discard(call, index, hash)

    async def _check(self, call: Call, key: ShardKey, first: int) -> None:
        try:
            size, following = await self._store.check(key, first)
        except ShardRotten:
            self._found_rotten(key)
            raise
        send_json(call.reply, {"bytes": size, "next": following})

    def _shard(self) -> tuple[str, int]:
        hash, index = shard_name(self._name)
        if index is None:
            raise Malformed("a shard is named <hash>.<index>")
        return hash, index

    async def _newest(self, layout: str) -> ShardKey:
        """The shard in that layout, or in the one that was renewed last."""
        hash, index = self._shard()
        if layout:
            return ShardKey(hash, index, layout)
        holding = await self._store.find(hash)
        found = [facts for facts in holding.shards if facts.index == index]
        if not found:
            raise ShardMissing("there is no such shard here")
        return min(found, key=lambda facts: facts.age).key

    async def _send(
        self,
        call: Call,
        reader: Reader,
        stripes: tuple[int, int] | None,
        index: bool,
    ) -> None:
        if index:
            await send_table(call, reader)
        elif parameters.wants_frames(call):
            await send_frames(call, reader, stripes)
        elif stripes is not None:
            raise Malformed("stripes= is for Accept: application/x-ostore-frames")
        else:
            await send_bytes(call, reader)

    async def _put(self, call: Call, query: Query) -> None:
        hash, index = self._shard()
        layout = parameters.layout_header(call)
        digest = parameters.digest_header(call)
        deadline, age = query.deadline(), query.age()
        if digest is None:
            raise Malformed("Digest is missing")
        if not parameters.sends_frames(call):
            raise Malformed("the body must be frames")
        frames = await self._frames(call)
        headers = b"".join(frame.header() for frame in frames)
        if hashlib.sha256(headers).digest() != digest:
            raise ShardRefused("the frames are not those of the digest")
        key = ShardKey(hash, index, layout.id)
        await self._store.put_small(key, layout, frames, deadline, age)
        call.reply.send(201)

    async def _frames(self, call: Call) -> Sequence[Frame]:
        length = call.body.length
        if length is None:
            raise Problem(411, "Content-Length is missing", slug="length-required")
        parser = FrameParser()
        frames: list[Frame] = []
        while length <= MAX_SMALL and (piece := await call.body.read()):
            frames += parser.feed(piece)
            if len(frames) > MAX_FRAMES:
                break
        if length > MAX_SMALL or len(frames) > MAX_FRAMES:
            detail = (
                f"a shard in one request has at most {MAX_SMALL} bytes "
                f"and {MAX_FRAMES} frames"
            )
            raise Problem(413, detail, slug="shard-refused")
        parser.finish()
        return frames
