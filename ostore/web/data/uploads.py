"""`/uploads/{uuid}`: a resumable upload as it lies on this node."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from ostore.backends.nodes.protocol import FRAMES
from ostore.backends.nodes.uploads import state_to_json
from ostore.backends.shards.uploads import Uploads
from ostore.erasure.framing import FrameParser
from ostore.model.errors import Malformed, ShardRefused
from ostore.model.layouts import ShardKey
from ostore.model.names import shard_name, upload_name
from ostore.streaming.problem import Problem
from ostore.streaming.resource import Call, Resource
from ostore.web.data import parameters
from ostore.web.data.answers import send_json
from ostore.web.data.parameters import Query

MAX_BODY = 2 << 20
"""Bytes of a record, an outcome or a piece of a tail."""

Order = Callable[[Call, Query], Awaitable[None]]


class UploadResource(Resource):
    """One upload; made by the router for one request."""

    allowed = ("POST", "PATCH", "GET", "HEAD", "DELETE")

    def __init__(self, uploads: Uploads, name: str) -> None:
        self._uploads = uploads
        self._upload = upload_name(name)
        self._orders: dict[str, tuple[Order, tuple[str, ...]]] = {
            "begin": (self._begin, ("expiry",)),
            "claim": (self._claim, ("epoch",)),
            "renew": (self._renew, ("epoch",)),
            "cut": (self._cut, ("epoch", "stripes")),
            "settle": (self._settle, ("epoch",)),
            "tail": (self._tail, ("epoch", "stripe", "at")),
            "commit": (self._commit, ("epoch", "as", "deadline")),
            "finish": (self._finish, ("epoch",)),
            "release": (self._release, ("epoch",)),
        }

    async def get(self, call: Call) -> None:
        """What is held; some of its frames, or a tail."""
        query = Query(call, "stripes", "tail", "epoch")
        stripes, tail = query.stripes(), query.number("tail")
        if stripes is not None and parameters.wants_frames(call):
            await self._send_frames(call, *stripes)
        elif tail is not None:
            epoch = query.needed("epoch")
            data = await self._uploads.tail(self._upload, tail, epoch)
            call.reply.send(200, {"Content-Type": "application/octet-stream"}, data)
        elif stripes is None:
            send_json(call.reply, state_to_json(await self._uploads.look(self._upload)))
        else:
            raise Malformed(f"stripes= is for Accept: {FRAMES}")

    async def patch(self, call: Call) -> None:
        """Append frames and make them durable."""
        query = Query(call, "epoch", "first")
        epoch, first = query.needed("epoch"), query.needed("first")
        if not parameters.sends_frames(call):
            raise Malformed("the body must be frames")
        sink = await self._uploads.open(self._upload, epoch, first)
        try:
            parser = FrameParser(first)
            while piece := await call.body.read():
                for frame in parser.feed(piece):
                    await sink.write(frame)
            parser.finish()
            held = await sink.sync()
        finally:
            await sink.close()
        send_json(call.reply, {"stripes": held})

    async def post(self, call: Call) -> None:
        """Whatever `do` says."""
        do = (call.query.get("do") or [""])[0]
        if do not in self._orders:
            raise Malformed(f"do= is one of {', '.join(self._orders)}")
        order, known = self._orders[do]
        await order(call, Query(call, "do", *known))

    async def delete(self, call: Call) -> None:
        """Drop all of it; 204, also when there was none."""
        query = Query(call, "epoch")
        await self._uploads.remove(self._upload, query.number("epoch"))
        call.reply.send(204)

    # Orders

    async def _begin(self, call: Call, query: Query) -> None:
        expiry = query.seconds("expiry")
        record = _text(await self._body(call))
        await self._uploads.begin(self._upload, record, expiry)
        call.reply.send(201)

    async def _claim(self, call: Call, query: Query) -> None:
        state = await self._uploads.claim(self._upload, query.needed("epoch"))
        send_json(call.reply, state_to_json(state))

    async def _renew(self, call: Call, query: Query) -> None:
        held = await self._uploads.renew(self._upload, query.needed("epoch"))
        send_json(call.reply, {"stripes": held})

    async def _cut(self, call: Call, query: Query) -> None:
        epoch, stripes = query.needed("epoch"), query.needed("stripes")
        await self._uploads.cut(self._upload, epoch, stripes)
        call.reply.send(204)

    async def _settle(self, call: Call, query: Query) -> None:
        record = _text(await self._body(call))
        await self._uploads.settle(self._upload, query.needed("epoch"), record)
        call.reply.send(204)

    async def _tail(self, call: Call, query: Query) -> None:
        epoch, stripe = query.needed("epoch"), query.needed("stripe")
        data = await self._body(call)
        if not data:
            raise Malformed("the body must be bytes of the tail")
        at = query.needed("at")
        await self._uploads.add_tail(self._upload, epoch, stripe, at, data)
        call.reply.send(204)

    async def _commit(self, call: Call, query: Query) -> None:
        hash, index = shard_name(query.text("as"))
        if index is None:
            raise Malformed("as= names a shard: <hash>.<index>")
        layout = parameters.layout_header(call)
        key = ShardKey(hash, index, layout.id)
        epoch, deadline = query.needed("epoch"), query.deadline()
        await self._uploads.commit(self._upload, epoch, key, layout, deadline)
        call.reply.send(201)

    async def _finish(self, call: Call, query: Query) -> None:
        outcome = _text(await self._body(call))
        await self._uploads.finish(self._upload, query.needed("epoch"), outcome)
        call.reply.send(204)

    async def _release(self, call: Call, query: Query) -> None:
        await self._uploads.release(self._upload, query.needed("epoch"))
        call.reply.send(204)

    # Bodies

    async def _send_frames(self, call: Call, first: int, last: int) -> None:
        """The head waits for the first frame, so that errors stay clean."""
        stream = await self._uploads.frames(self._upload, first, last + 1)
        try:
            frame = await stream.read()
            call.reply.headers["Content-Type"] = FRAMES
            while frame is not None:
                await call.reply.write(frame.header() + bytes(frame.block))
                frame = await stream.read()
            await call.reply.finish()
        finally:
            await stream.close()

    async def _body(self, call: Call) -> bytes:
        """All of it, as its Digest says. Raises Problem, Malformed, ShardRefused."""
        digest = parameters.digest_header(call)
        if digest is None:
            raise Malformed("Digest is missing")
        body = b""
        while piece := await call.body.read():
            body += piece
            if len(body) > MAX_BODY:
                detail = f"this body has at most {MAX_BODY} bytes"
                raise Problem(413, detail, slug="shard-refused")
        if hashlib.sha256(body).digest() != digest:
            raise ShardRefused("the body is not that of the digest")
        return body


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Malformed("the body must be UTF-8") from None
