"""Temporaries over HTTP."""

from __future__ import annotations

from ostore.backends.nodes.protocol import HELD, LAYOUT
from ostore.backends.shards.temporaries import Temporaries
from ostore.backends.shards.temporary import Commit
from ostore.model.errors import Malformed
from ostore.model.names import shard_name, upload_name
from ostore.streaming.resource import Call, Resource
from ostore.web.data import parameters
from ostore.web.data.parameters import Query


class TemporaryResource(Resource):
    """One temporary, or for POST any name; made by the router for one request."""

    allowed = ("POST", "PATCH", "PUT", "GET", "HEAD", "DELETE")

    def __init__(self, temporaries: Temporaries, name: str) -> None:
        self._temporaries = temporaries
        self._name = name

    async def post(self, call: Call) -> None:
        """A new temporary: 201 and its uuid."""
        query = Query(call, "uuid")
        size = parameters.number_header(call, "Size")
        uuid = await self._temporaries.create(size, query.id("uuid"))
        headers = {"Content-Type": "text/plain", "Location": f"/temp/{uuid}"}
        call.reply.send(201, headers, uuid.encode("ascii"))

    async def patch(self, call: Call) -> None:
        """Append the body: 204 and what is held now."""
        Query(call)
        offset = parameters.number_header(call, HELD)
        if offset is None:
            raise Malformed(f"{HELD} is missing")
        framed = parameters.sends_frames(call)
        held = await self._temporaries.append(
            upload_name(self._name), offset, framed, call.body.read, call.body.length
        )
        call.reply.send(204, {HELD: str(held)})

    async def put(self, call: Call) -> None:
        """Name it as a shard: 201 and the layout."""
        query = Query(call, "as", "deadline", "age")
        hash, index = shard_name(query.text("as"))
        if index is None:
            raise Malformed("as= names a shard: <hash>.<index>")
        commit = Commit(
            hash,
            index,
            parameters.layout_header(call),
            parameters.digest_header(call),
            query.deadline(),
            query.age(),
        )
        layout = await self._temporaries.commit(upload_name(self._name), commit)
        call.reply.send(201, {LAYOUT: layout.header()})

    async def head(self, call: Call) -> None:
        """How many bytes are held."""
        Query(call)
        held = str(self._temporaries.held(upload_name(self._name)))
        call.reply.headers["Content-Type"] = "application/octet-stream"
        call.reply.headers.update({"Content-Length": held, HELD: held})
        await call.reply.finish()

    async def get(self, call: Call) -> None:
        """The bytes that are held."""
        Query(call)
        held = await self._temporaries.open(upload_name(self._name))
        try:
            length = str(held.length)
            piece = await held.read()
            call.reply.headers["Content-Type"] = "application/octet-stream"
            call.reply.headers.update({"Content-Length": length, HELD: length})
            while piece:
                await call.reply.write(bytes(piece))
                piece = await held.read()
            await call.reply.finish()
        finally:
            held.close()

    async def delete(self, call: Call) -> None:
        """204, also when there was none."""
        Query(call)
        await self._temporaries.remove(upload_name(self._name))
        call.reply.send(204)
