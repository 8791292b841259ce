"""The end of a resumable upload: from its last byte to a version, asked for or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.claiming import Claiming
from ostore.engine.clearing import Clearing
from ostore.engine.putting import Put, Putting
from ostore.engine.referring import PutRequest
from ostore.engine.session import Session
from ostore.model.errors import AlreadyExists, ConditionFailed, DigestMismatch
from ostore.model.resuming import Paused, outcome_to_json
from ostore.model.versions import Version
from ostore.streaming.clock import TimedOut
from ostore.streaming.tasks import start

SOON = 10.0
"""Seconds that a client waits for the end of its upload before it is told to ask."""


@attrs.define(eq=False)
class Ending:
    """An upload on its way from the last byte to a version."""

    size: int
    waiting: list[Deferred[Version]] = attrs.field(factory=list)

    async def outcome(self) -> Version:
        """The version, or what went wrong."""
        mine: Deferred[Version] = Deferred()
        self.waiting.append(mine)
        return await mine

    def tell(self, outcome: Version | Exception) -> None:
        """Hand it to all who wait."""
        for each in self.waiting:
            if each.called:
                continue
            if isinstance(outcome, Exception):
                each.errback(outcome)
            else:
                each.callback(outcome)


class Finishing:
    """Ends uploads, whether or not somebody waits; owned by Resuming.

    `let_go(session)` gets what can be tried again, `forget(upload)` what has ended.
    """

    def __init__(
        self,
        putting: Putting,
        claiming: Claiming,
        clearing: Clearing,
        let_go: Callable[[Session], Awaitable[None]],
        forget: Callable[[str], None],
    ) -> None:
        self.read_back = 0
        self._putting = putting
        self._house = putting.writing
        self._claiming = claiming
        self._clearing = clearing
        self._let_go = let_go
        self._forget = forget
        self._endings: dict[str, Ending] = {}

    def __len__(self) -> int:
        """Uploads that are being finished."""
        return len(self._endings)

    def size(self, upload: str) -> int | None:
        """That of an upload that is being finished; None for any other."""
        ending = self._endings.get(upload)
        return None if ending is None else ending.size

    async def end(self, session: Session) -> Version | None:
        """Make the version; None when that takes longer than SOON, and goes on."""
        ending = self._endings[session.upload] = Ending(session.record.size)
        waiting = start(ending.outcome())
        self._house.tasks.spawn(
            "finishing an upload", lambda: self._run(session, ending)
        )
        return await self._soon(waiting)

    async def outcome(self, upload: str) -> Version | None:
        """Wait for one that is being finished; as end()."""
        return await self._soon(self._endings[upload].outcome())

    async def drop(self, session: Session) -> None:
        """Remove it from its nodes: it can never be finished."""
        self._forget(session.upload)
        await self._claiming.remove(session.upload, session.record.everywhere)

    async def _soon(self, outcome: Awaitable[Version]) -> Version | None:
        try:
            return await self._house.clock.within(SOON, outcome)
        except TimedOut:
            return None

    async def _run(self, session: Session, ending: Ending) -> None:
        outcome: Version | Exception
        alive = start(session.alive())
        _ = alive.addErrback(lambda _: None)
        try:
            outcome = await self._conclude(session)
        except CancelledError:
            outcome = Paused("the service stops", session.offset)
        except Exception as error:  # noqa: BLE001 - handed to all who wait
            outcome = error
        finally:
            alive.cancel()
            del self._endings[session.upload]
        ending.tell(outcome)

    async def _conclude(self, session: Session) -> Version:
        try:
            version = await self._keep(session)
        except (DigestMismatch, ConditionFailed, AlreadyExists):
            await self.drop(session)
            raise
        except BaseException:
            await self._let_go(session)
            raise
        self._forget(session.upload)
        await self._clearing.end(session, outcome_to_json(version))
        return version

    async def _keep(self, session: Session) -> Version:
        record = session.record

        async def receive() -> tuple[str, int]:
            if session.hashed < record.size:
                self.read_back += 1
                await session.catch_up()
            return session.hasher.hexdigest(), record.size

        request = PutRequest(
            name=record.name,
            digest=record.digest,
            size=record.size,
            headers=record.headers,
            condition=record.condition,
            put_id=record.put_id,
            bucket=record.bucket,
        )
        return await Put(self._putting, request, session).run(receive)
