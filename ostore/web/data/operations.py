"""What is asked in conversations, done by a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.backends.nodes import operations
from ostore.backends.nodes.operations import ERRORS, MAX_FRAMES, Operation, Status
from ostore.backends.nodes.protocol import MAX_DETAIL
from ostore.backends.nodes.records import ANSWER_ROOM
from ostore.backends.shards.reading import Reader
from ostore.backends.shards.store import ShardStore
from ostore.erasure.framing import FRAME_HEADER
from ostore.erasure.geometry import Buffer
from ostore.model.errors import ShardRotten
from ostore.web.data.objects import FoundRotten

Parts = Sequence[Buffer]

NOTHING: Final[Parts] = ()


class _Elsewhere(Exception):
    """Not in a conversation."""


class Operations:
    """Does operations upon the shards of one node; made once by its face.

    `run` answers each with a status and what belongs to it, whatever goes wrong.
    """

    def __init__(self, store: ShardStore, found_rotten: FoundRotten) -> None:
        self.done = 0
        self.failed = 0
        self._store = store
        self._found_rotten = found_rotten
        self._log = Logger()
        self._known: Mapping[int, Callable[[memoryview], Awaitable[Parts]]] = {
            Operation.PUT: self._put,
            Operation.OPEN: self._open,
            Operation.FIND: self._find,
            Operation.RENEW: self._renew,
            Operation.RESTORE: self._restore,
            Operation.CONDEMN: self._condemn,
            Operation.DISCARD: self._discard,
            Operation.ERASE: self._erase,
            Operation.BAD: self._bad,
            Operation.GLANCE: self._glance,
        }

    async def run(self, operation: int, data: memoryview) -> tuple[Status, Parts]:
        """The answer to one operation. Raises CancelledError."""
        work = self._known.get(operation)
        if work is None:
            return Status.ELSEWHERE, NOTHING
        try:
            parts = await work(data)
        except CancelledError:
            raise
        except _Elsewhere:
            return Status.ELSEWHERE, NOTHING
        except Exception as error:  # noqa: BLE001 - every error has its answer
            self.failed += 1
            return self._answer(error)
        self.done += 1
        return Status.DONE, parts

    def _answer(self, error: Exception) -> tuple[Status, Parts]:
        for kind, status in ERRORS.items():
            if isinstance(error, kind):
                return status, (str(error)[:MAX_DETAIL].encode(),)
        self._log.failure("an operation failed", Failure(error))  # type: ignore[no-untyped-call]  # Twisted's
        sentence = b"the node made a mistake; its log knows more"
        return Status.UNREACHABLE, (sentence,)

    async def _put(self, data: memoryview) -> Parts:
        put = operations.read_put(data)
        await self._store.put_small(
            put.key, put.layout, put.frames, put.deadline, put.age
        )
        return NOTHING

    async def _open(self, data: memoryview) -> Parts:
        key, bad, room = operations.read_open(data)
        try:
            reader = await self._store.open(key, bad=bad)
            try:
                return await _packed(reader, room, bad=bad)
            finally:
                await reader.close()
        except ShardRotten:
            self._found_rotten(key)
            raise

    async def _glance(self, data: memoryview) -> Parts:
        key, _, room = operations.read_open(data)
        frame = self._store.glance(key)
        if frame is None or FRAME_HEADER.size + len(frame.block) > room:
            raise _Elsewhere
        return frame.header(), frame.block

    async def _find(self, data: memoryview) -> Parts:
        holding = await self._store.find(operations.read_hash(data))
        return _fitting(operations.pack_holding(holding))

    async def _renew(self, data: memoryview) -> Parts:
        holding = await self._store.renew(*operations.read_renew(data))
        return _fitting(operations.pack_holding(holding))

    async def _restore(self, data: memoryview) -> Parts:
        holding = await self._store.restore(operations.read_hash(data))
        return _fitting(operations.pack_holding(holding))

    async def _condemn(self, data: memoryview) -> Parts:
        token = await self._store.condemn(*operations.read_order(data))
        return (bytes.fromhex(token),)

    async def _discard(self, data: memoryview) -> Parts:
        moved = await self._store.discard(*operations.read_discard(data))
        return (b"\1" if moved else b"\0",)

    async def _erase(self, data: memoryview) -> Parts:
        freed = await self._store.erase(*operations.read_order(data))
        return (operations.pack_erased(freed),)

    async def _bad(self, data: memoryview) -> Parts:
        await self._store.mark_bad(operations.read_key(data))
        return NOTHING


async def _packed(reader: Reader, room: int, *, bad: bool) -> Parts:
    """Facts and table, and all frames if there is room for them."""
    table = reader.table
    head = operations.pack_opened(reader.facts, table.to_bytes())
    if len(head) > room:
        raise _Elsewhere
    stripes = len(table)
    size = reader.block_offset(stripes) + stripes * FRAME_HEADER.size
    if len(head) + size > room or stripes > MAX_FRAMES:
        return (head,)
    parts: list[Buffer] = [head]
    stream = reader.frames(0, stripes)
    try:
        while (frame := await stream.read()) is not None:
            parts += (frame.header(), frame.block)
    except ShardRotten:
        if not bad:
            raise
        return (head,)  # some of its frames may be right
    finally:
        await stream.close()
    return parts


def _fitting(parts: Parts) -> Parts:
    if sum(map(len, parts)) > ANSWER_ROOM:
        raise _Elsewhere
    return parts
