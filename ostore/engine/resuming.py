"""Resumable uploads: begun once, sent in parts through any api, finished once."""

from __future__ import annotations

from contextlib import suppress

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.beginning import Beginning, Begun
from ostore.engine.claiming import Claiming, Finished, Found
from ostore.engine.clearing import Clearing
from ostore.engine.finishing import Finishing
from ostore.engine.intake import Body
from ostore.engine.putting import Putting
from ostore.engine.referring import PutRequest
from ostore.engine.remembering import Remembered
from ostore.engine.session import Session
from ostore.model.errors import ClientGone, NotFound
from ostore.model.resuming import Busy, Paused, TooMuch, WrongPart
from ostore.model.tokens import Token, Tokens
from ostore.model.versions import Version
from ostore.streaming.tasks import start

__all__ = ["Begun", "Progress", "Resuming"]

ALIVE = 5.0
"""Seconds without a byte after which a part may be replaced by another."""
SHORT = 16 << 20
"""Bytes that another api took in and that are read back at once, not at the end."""


@attrs.frozen
class Progress:
    """What is held of an upload; `version` once it is finished.

    `finishing`: all bytes are there, and are being read back.
    """

    held: int
    size: int
    version: Version | None = None
    finishing: bool = False


@attrs.define(eq=False)
class Part:
    """A part that is being received: for those who want to replace it."""

    begun: float
    session: Session | None = None
    running: Deferred[Progress] | None = None
    replaced: bool = False
    over: list[Deferred[None]] = attrs.field(factory=list)

    @property
    def touched(self) -> float:
        """When the last bytes came, by the monotonic clock."""
        return self.begun if self.session is None else self.session.touched

    async def stop(self) -> None:
        """Cut it off, and wait for its end."""
        waiting: Deferred[None] = Deferred()
        self.over.append(waiting)
        self.replaced = True
        if self.running is not None:
            self.running.cancel()
        await waiting

    def ended(self) -> None:
        """Tell those who wait for that."""
        for each in self.over:
            if not each.called:
                each.callback(None)


class Resuming:
    """All resumable uploads of one api; owned by the store."""

    def __init__(self, putting: Putting, tokens: Tokens, expiry: float) -> None:
        self.conflicts = 0
        self._house = putting.writing
        self._clock = putting.writing.clock
        self._tokens = tokens
        self._claiming = Claiming(putting.writing, expiry)
        self._beginning = Beginning(putting, self._claiming, tokens, expiry)
        self._remembered = Remembered()
        self._clearing = Clearing(putting.writing, expiry)
        self._finishing = Finishing(
            putting,
            self._claiming,
            self._clearing,
            self._let_go,
            self._remembered.forget,
        )
        self._parts: dict[str, Part] = {}

    def figures(self) -> dict[str, float]:
        """Gauges for /metrics."""
        return {
            "ostore_uploads_active": len(self._parts),
            "ostore_uploads_finishing": len(self._finishing),
            "ostore_uploads_remembered": len(self._remembered),
            "ostore_uploads_uncleared": len(self._clearing),
            "ostore_uploads_conflicts_total": self.conflicts,
            "ostore_uploads_read_back_total": self._finishing.read_back,
        }

    async def begin(self, request: PutRequest, size: int) -> Begun | Version:
        """A new upload of so many bytes, or the one its put_id began before.

        A Version when that one is finished. Raises TooFewNodes, NoSpace, Refused,
        Paused, ConditionFailed.
        """
        return await self._beginning.begin(request, size)

    async def held(self, text: str) -> Progress:
        """How much is held. Raises Forged, NotFound, Paused."""
        token = self._tokens.open(text)
        part = self._parts.get(token.upload)
        if part is not None and part.session is not None:
            return _progress(part.session)
        size = self._finishing.size(token.upload)
        if size is not None:
            return Progress(size, size)
        found = await self._survey(token)
        standing, record = found.standing(), found.record
        stripes, tail = standing.acknowledged(record.quorum)
        whole = (stripes, tail) == (standing.stripes, standing.tail)
        if not whole and not found.active:
            # Bytes that fewer nodes hold are promised only once the quorum has them.
            with suppress(Busy, Paused):
                session = await self._claim(token)
                await self._let_go(session)
                return _progress(session)
            stripes, tail = standing.stripes, standing.tail
        return Progress(record.offset(stripes, tail), record.size)

    async def part(
        self, text: str, first: int, body: Body, length: int | None
    ) -> Progress:
        """Append a part of `length` bytes (None: unknown) that begins at `first`.

        The last byte finishes the upload; an empty part behind it asks what became of
        it. Raises Forged, NotFound, WrongPart, Busy, TooMuch, DigestMismatch,
        ConditionFailed, Paused, and what a PUT raises.
        """
        token = self._tokens.open(text)
        upload = token.upload
        size = self._finishing.size(upload)
        if size is not None:
            if first != size or length != 0:
                raise WrongPart(size)
            return _ended(size, await self._finishing.outcome(upload))
        await self._make_way(upload)
        mine = self._parts[upload] = Part(self._clock.monotonic())
        try:
            mine.running = start(self._part(mine, token, first, body, length))
            return await mine.running
        except CancelledError:
            if mine.replaced:
                raise Busy("another request took the upload over") from None
            raise
        except Busy:
            self.conflicts += 1
            raise
        finally:
            del self._parts[upload]
            mine.ended()

    async def give_up(self, text: str) -> None:
        """Remove the upload. Raises Forged, NotFound, Busy, Paused."""
        token = self._tokens.open(text)
        if self._finishing.size(token.upload) is not None:
            raise Busy("the upload is being finished")
        part = self._parts.get(token.upload)
        if part is not None:
            await part.stop()
        found = await self._survey(token)
        self._remembered.forget(token.upload)
        nodes = {*self._claiming.nodes(token), *found.record.everywhere}
        await self._claiming.remove(token.upload, nodes)

    # A part

    async def _make_way(self, upload: str) -> None:
        """A part that is dead is cut off for another. Raises Busy."""
        part = self._parts.get(upload)
        if part is not None and self._clock.monotonic() - part.touched >= ALIVE:
            await part.stop()
        part = self._parts.get(upload)
        if part is not None:
            self.conflicts += 1
            held = None if part.session is None else part.session.offset
            raise Busy("another request writes this upload", held)

    async def _part(
        self, part: Part, token: Token, first: int, body: Body, length: int | None
    ) -> Progress:
        try:
            session = await self._take(token)
        except Finished as end:
            if first == end.version.size and length == 0:
                return Progress(first, first, end.version)
            raise NotFound("the upload is finished") from None
        part.session = session
        session.touched = self._clock.monotonic()
        size = session.record.size
        try:
            if first != session.offset:
                raise WrongPart(session.offset)
            if length is not None and first + length > size:
                raise TooMuch(f"the upload was to have {size} bytes")
            await self._receive(session, body)
        except TooMuch:
            await self._finishing.drop(session)
            raise
        except BaseException:
            await self._let_go(session)
            raise
        if session.complete:
            return _ended(size, await self._finishing.end(session))
        await self._let_go(session)
        return _progress(session)

    async def _receive(self, session: Session, body: Body) -> None:
        try:
            await session.receive(body)
        except (ClientGone, CancelledError):
            if session.whole:
                await session.save()
            raise
        await session.save()

    async def _take(self, token: Token) -> Session:
        session = self._remembered.take(token.upload)
        if session is not None:
            if await session.again():
                return session
            await session.release()
        return await self._claim(token)

    async def _claim(self, token: Token) -> Session:
        nodes = self._claiming.nodes(token)
        session = await self._claiming.claim(token.upload, nodes, len(token.nodes))
        self._remembered.recall(session)
        if 0 < session.offset - session.hashed <= SHORT:
            with suppress(Paused):
                await session.catch_up()
        return session

    async def _survey(self, token: Token) -> Found:
        nodes = self._claiming.nodes(token)
        try:
            return await self._claiming.survey(token.upload, nodes, len(token.nodes))
        except Finished:
            raise NotFound("the upload is finished") from None

    async def _let_go(self, session: Session) -> None:
        """Between parts: let others claim it, keep what saves work."""
        self._remembered.keep(session)
        await session.release()


def _progress(session: Session) -> Progress:
    return Progress(session.offset, session.record.size)


def _ended(size: int, version: Version | None) -> Progress:
    return Progress(size, size, version, finishing=version is None)
