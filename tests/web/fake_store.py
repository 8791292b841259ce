"""An ObjectStore in memory, with handles for what may go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast

import attrs
from twisted.internet.interfaces import IReactorTime

from ostore.engine.jobbook import JobBook
from ostore.engine.resuming import Progress
from ostore.engine.store import Begun, PutRequest
from ostore.interfaces import IMetadataStore
from ostore.model.conditions import WriteCondition
from ostore.model.errors import Deleted, DigestMismatch, NotFound
from ostore.model.versions import Note, Page, Version
from ostore.streaming.clock import Clock

CREATED = 1_700_000_000_123
"""Milliseconds since 1970 of the first version; each later one adds a second."""


class Body(Protocol):
    """What a PUT reads from."""

    async def read(self) -> bytes:
        """The next piece, empty at the end."""
        ...


@attrs.define(slots=False)
class FakeStream:
    """Pieces of a content; `fail_after` bytes it raises `error`."""

    content: bytes
    piece: int
    fail_after: int | None = None
    error: Exception | None = None
    given: int = 0
    closed: bool = False

    async def read(self) -> bytes:
        """The next piece."""
        if self.fail_after is not None and self.given >= self.fail_after:
            assert self.error is not None
            raise self.error
        piece = self.content[self.given : self.given + self.piece]
        self.given += len(piece)
        return piece

    async def pieces(self) -> Sequence[bytes]:
        """The next two pieces, as far as there are any."""
        first = await self.read()
        if self.fail_after is not None and self.given >= self.fail_after:
            return [first] if first else []
        return [piece for piece in (first, await self.read()) if piece]

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


@attrs.define(slots=False)
class FakeObject:
    """A version that was opened."""

    store: FakeStore
    version: Version

    async def reach(self) -> None:
        """Whether there are shards enough."""
        if self.store.read_error is not None and self.version.size:
            raise self.store.read_error

    async def read(self, start: int, stop: int) -> FakeStream:
        """The bytes from `start` up to `stop`."""
        if self.store.read_error is not None:
            raise self.store.read_error
        content = self.store.contents[self.version.hash][start:stop]
        stream = FakeStream(
            content, self.store.piece, self.store.fail_after, self.store.stream_error
        )
        self.store.streams.append(stream)
        return stream


class FakeNotes:
    """The part of a metadata store that keeps notes."""

    def __init__(self) -> None:
        self.notes: dict[str, Note] = {}

    async def note(self, key: str) -> Note | None:
        """The note, or None."""
        return self.notes.get(key)

    async def set_note(self, key: str, value: Mapping[str, Any], mark: str) -> bool:
        """Replace the note that bears the mark."""
        known = self.notes.get(key)
        if mark != ("" if known is None else known.mark):
            return False
        self.notes[key] = Note(json.loads(json.dumps(value)), f"{mark}x")
        return True


def job_book() -> JobBook:
    """A book of jobs that nobody runs."""
    clock = Clock(cast("IReactorTime", None), time.monotonic, time.time)
    notes = cast("IMetadataStore", FakeNotes())
    return JobBook(notes, clock, os.urandom, ["orphans", "garbage"])


@attrs.define(slots=False)
class FakeUploads:
    """One upload; whatever is asked of it gives `outcome`, or raises it."""

    outcome: Progress | Exception = Progress(0, 10)
    parts: list[tuple[str, int, bytes, int | None]] = attrs.field(factory=list)
    given_up: list[str] = attrs.field(factory=list)

    async def held(self, token: str) -> Progress:
        """How much is held."""
        return self._give()

    async def part(
        self, token: str, first: int, body: Body, length: int | None
    ) -> Progress:
        """Take a part; a refusal comes before its body is read."""
        progress = self._give()
        content = b""
        while piece := await body.read():
            content += piece
        self.parts.append((token, first, content, length))
        return progress

    async def give_up(self, token: str) -> None:
        """Note it."""
        self._give()
        self.given_up.append(token)

    def _give(self) -> Progress:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@attrs.define(slots=False)
class FakeStore:
    """Names and versions in a dict, contents by hash."""

    names: dict[str, list[Version]] = attrs.field(factory=dict)
    contents: dict[str, bytes] = attrs.field(factory=dict)
    puts: list[PutRequest] = attrs.field(factory=list)
    streams: list[FakeStream] = attrs.field(factory=list)
    locations: dict[str, dict[int, str]] = attrs.field(factory=dict)
    not_ready: list[str] = attrs.field(factory=list)
    piece: int = 65536
    put_error: Exception | None = None
    open_error: Exception | None = None
    read_error: Exception | None = None
    fail_after: int | None = None
    stream_error: Exception | None = None
    list_error: Exception | None = None
    list_error_after: int = 0
    pages: list[tuple[tuple[str, int], int]] = attrs.field(factory=list)
    failed_bodies: list[Exception] = attrs.field(factory=list)
    moments: int = 0
    uploads: FakeUploads = attrs.field(factory=FakeUploads)
    begun: list[tuple[PutRequest, int]] = attrs.field(factory=list)
    high: dict[str, int] = attrs.field(factory=dict)
    drained: list[bool] = attrs.field(factory=list)
    jobs: JobBook = attrs.field(factory=job_book)

    async def put(self, request: PutRequest, body: Body) -> Version:
        """Store what `body` gives."""
        self.puts.append(request)
        if self.put_error is not None:
            raise self.put_error
        content = b""
        try:
            while piece := await body.read():
                content += piece
        except Exception as error:
            self.failed_bodies.append(error)
            raise
        hash = hashlib.sha256(content).hexdigest()
        if request.digest not in (None, hash):
            raise DigestMismatch("the body is not what its digest promised")
        if known := self._made_by(request.name, request.put_id):
            return known
        request.condition.check(self._etag(request.name))
        self.contents[hash] = content
        return self._add(
            request.name, hash, len(content), request.headers, request.put_id
        )

    async def instant(self, request: PutRequest) -> Version | None:
        """A version of a content that is there."""
        if self.put_error is not None:
            raise self.put_error
        hash = request.digest
        if hash is None or len(self.contents.get(hash, b"")) != request.size:
            return None
        request.condition.check(self._etag(request.name))
        size = request.size or 0
        return self._add(request.name, hash, size, request.headers, request.put_id)

    async def begin_upload(self, request: PutRequest, size: int) -> Begun:
        """Note it; the token is always the same."""
        if self.put_error is not None:
            raise self.put_error
        request.condition.check(self._etag(request.name))
        self.begun.append((request, size))
        return Begun("TOKEN", size)

    async def open(self, name: str, number: int | None) -> FakeObject:
        """The newest version, or that one."""
        if self.open_error is not None:
            raise self.open_error
        for version in reversed(self.names.get(name, [])):
            if number in (None, version.number):
                if version.deleted:
                    raise Deleted("deleted", version.number)
                return FakeObject(self, version)
        raise NotFound("there is no such object or version")

    async def delete(
        self, name: str, put_id: str | None, condition: WriteCondition
    ) -> Version:
        """Add a marker."""
        if known := self._made_by(name, put_id):
            return known
        etag = self._etag(name)
        if etag is None:
            raise NotFound("there is nothing to delete")
        condition.check(etag, self.names[name][-1].created / 1000)
        return self._add(name, "", 0, {}, put_id, deleted=True)

    async def purge(self, name: str, number: int) -> None:
        """Remove one version."""
        kept = [v for v in self.names.get(name, []) if v.number != number]
        if len(kept) == len(self.names.get(name, [])):
            raise NotFound("there is no such version")
        self.names[name] = kept

    async def objects(
        self, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """Newest versions in name order."""
        items: list[Version] = []
        prefixes: list[str] = []
        last = ""
        for name in sorted(self.names, key=str.encode):
            if not name.startswith(prefix) or self._etag(name) is None:
                continue
            rest = name[len(prefix) :]
            shown = name
            if delimiter and delimiter in rest:
                shown = prefix + rest.partition(delimiter)[0] + delimiter
            if shown in prefixes or shown.encode() <= after.encode():
                continue
            if len(items) + len(prefixes) == limit:
                return Page(tuple(items), tuple(prefixes), last)
            last = shown
            if shown == name:
                items.append(self.names[name][-1])
            else:
                prefixes.append(shown)
        return Page(tuple(items), tuple(prefixes))

    async def versions_of(self, name: str, after: int, limit: int) -> Sequence[Version]:
        """Versions of one name."""
        found = [v for v in self.names.get(name, []) if v.number > after]
        return self._page((name, after), limit, found)

    async def all_versions(
        self, after: tuple[str, int], limit: int
    ) -> Sequence[Version]:
        """Versions of all names."""
        ordered = [
            version
            for name in sorted(self.names, key=str.encode)
            for version in self.names[name]
        ]
        behind = (after[0].encode(), after[1])
        found = [v for v in ordered if (v.name.encode(), v.number) > behind]
        return self._page(after, limit, found)

    async def locate(self, hash: str) -> Mapping[int, str]:
        """Where the shards lie."""
        if hash not in self.locations:
            raise NotFound("no node holds this content")
        return self.locations[hash]

    async def reasons(self) -> list[str]:
        """Why not ready."""
        return self.not_ready

    def view(self) -> dict[str, Any]:
        """The cluster."""
        return {"nodes": [], "repairs": {"waiting": 0, "worst": None}, "jobs": {}}

    async def adopt(self) -> dict[str, Any]:
        """Nothing to adopt."""
        return {"epoch": 7, "nothing_removed_for": 60.0}

    async def drain(self, node: str, *, on: bool) -> dict[str, Any]:
        """Note it."""
        if node != "n":
            raise NotFound("there is no such node in this cluster")
        self.drained.append(on)
        return {"id": node, "draining": on, "state": "up"}

    def figures(self) -> Mapping[str, float]:
        """Two figures."""
        return {"nodes_up": 6.0, "ostore_repairs_total": 3.0}

    def fill(
        self,
        name: str,
        *contents: bytes,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Add versions directly."""
        for content in contents:
            hash = hashlib.sha256(content).hexdigest()
            self.contents[hash] = content
            self._add(name, hash, len(content), headers, None)

    def _add(
        self,
        name: str,
        hash: str,
        size: int,
        headers: Mapping[str, str],
        put_id: str | None,
        *,
        deleted: bool = False,
    ) -> Version:
        self.high[name] = self.high.get(name, 0) + 1
        version = Version(
            name,
            self.high[name],
            hash,
            size,
            CREATED + 1000 * self.moments,
            deleted,
            put_id or "",
            headers=headers,
        )
        self.moments += 1
        self.names.setdefault(name, []).append(version)
        return version

    def _etag(self, name: str) -> str | None:
        versions = self.names.get(name)
        if not versions or versions[-1].deleted:
            return None
        return versions[-1].hash

    def _made_by(self, name: str, put_id: str | None) -> Version | None:
        for version in self.names.get(name, []):
            if put_id and version.put_id == put_id:
                return version
        return None

    def _page(
        self, after: tuple[str, int], limit: int, found: list[Version]
    ) -> Sequence[Version]:
        self.pages.append((after, limit))
        if self.list_error is not None and len(self.pages) > self.list_error_after:
            raise self.list_error
        return found[:limit]
