"""`/objects/{name}`: one object."""

from __future__ import annotations

from collections.abc import Awaitable

import attrs

from ostore.engine.store import Begun, ObjectStore
from ostore.model.conditions import WriteCondition
from ostore.model.errors import Malformed, NotFound
from ostore.model.names import quote_name
from ostore.model.versions import Version
from ostore.streaming.pools import Workers
from ostore.streaming.resource import Call, Resource
from ostore.web.api import parameters
from ostore.web.api.answers import send_json, written
from ostore.web.api.reading import read_object
from ostore.web.api.writing import (
    copy_source,
    put_id,
    put_request,
    write_condition,
)


class ObjectResource(Resource):
    """The verbs of one name; made by the router for one request."""

    allowed = ("GET", "HEAD", "PUT", "POST", "DELETE")

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        workers: Workers,
        *,
        require_digest: bool,
        instant_upload: bool,
    ) -> None:
        self._instant_upload = instant_upload
        self._store = store
        self._workers = workers
        self._name = name
        self._require_digest = require_digest

    def get(self, call: Call) -> Awaitable[None]:
        """The object, or its head alone."""
        return read_object(call, self._store, self._name, self._workers)

    async def put(self, call: Call) -> None:
        """A new version, of the body or of another object's content."""
        source = copy_source(call)
        if source is None:
            await self._write(call, create_only=False)
            return
        request = put_request(call, self._name, create_only=False, require_digest=False)
        version = await self._store.copy(request, *source)
        send_json(call.reply, 200, version.to_json(), written(version))

    async def post(self, call: Call) -> None:
        """The first version: 409 when the object exists. With Size: an upload."""
        if call.header("X-Ostore-Copy-From") is not None:
            raise Malformed("X-Ostore-Copy-From goes with PUT")
        size = parameters.size(call)
        if size is not None:
            await self._begin(call, size)
            return
        await self._write(call, create_only=True)

    async def delete(self, call: Call) -> None:
        """A delete marker, or with `version` that version removed for good."""
        number = parameters.version(call)
        condition = write_condition(call)
        made_by = put_id(call, self._name)
        if number is not None:
            await self._check(number, condition)
            await self._store.purge(self._name, number)
            call.reply.send(204)
            return
        marker = await self._store.delete(self._name, made_by, condition)
        headers = {"X-Ostore-Version": str(marker.number)}
        send_json(call.reply, 200, marker.to_json(), headers)

    async def _write(self, call: Call, *, create_only: bool) -> None:
        request = put_request(
            call,
            self._name,
            create_only=create_only,
            require_digest=self._require_digest,
        )
        version = await self._store.put(request, call.body)
        headers = written(version)
        if create_only:
            headers["Location"] = f"/objects/{quote_name(self._name)}"
        send_json(call.reply, 201 if create_only else 200, version.to_json(), headers)

    async def _begin(self, call: Call, size: int) -> None:
        """A resumable upload, or the version at once where nothing is to be sent."""
        if call.body.length != 0:
            raise Malformed(
                "Size begins a resumable upload, and goes with an empty body: send the "
                "bytes to the Location of the answer"
            )
        request = attrs.evolve(
            put_request(
                call, self._name, create_only=False, require_digest=self._require_digest
            ),
            size=size,
        )
        made: Version | Begun | None = None
        if size == 0:
            made = await self._store.put(request, call.body)
        elif self._instant_upload:
            made = await self._store.instant(request)
        if made is None:
            made = await self._store.begin_upload(request, size)
        if isinstance(made, Version):
            send_json(call.reply, 200, made.to_json(), written(made))
            return
        headers = {
            "Location": f"/temp/{made.token}",
            "Upload-Offset": "0",
            "Upload-Length": str(size),
        }
        call.reply.send(201, headers)

    async def _check(self, number: int, condition: WriteCondition) -> None:
        """A condition on a removal is about that version, which never changes."""
        if condition == WriteCondition():
            return
        found = await self._store.versions_of(self._name, number - 1, 1)
        if not found or found[0].number != number:
            raise NotFound("there is no such version of the object")
        etag = None if found[0].deleted else found[0].hash
        condition.check(etag, found[0].created / 1000)
