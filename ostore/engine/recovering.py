"""From a granted claim to an upload that can be written on a write quorum again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ostore.engine.intake import Writing
from ostore.engine.polling import in_time, poll
from ostore.engine.readback import ReadBack
from ostore.engine.session import Session
from ostore.erasure.geometry import Geometry
from ostore.interfaces import IUploads
from ostore.model.errors import ShardError
from ostore.model.resuming import Paused, UploadRecord, UploadState
from ostore.model.standing import standing


class Recovery:
    """Puts in order what a claim found, until the write quorum stands; used once.

    Nodes that are ahead of what k of them hold are cut back, nodes behind are brought
    up to it as far as a quorum needs them, and lost shards begin anew: on their own
    node where that is `without` the upload (it was emptied), else on another one. The
    epoch is *settled* on a node last, when that holds everything.
    """

    def __init__(
        self,
        writing: Writing,
        upload: str,
        record: UploadRecord,
        epoch: int,
        granted: Mapping[int, UploadState],
        without: frozenset[str],
        expiry: float,
    ) -> None:
        self._house = writing
        self._upload = upload
        self._record = record
        self._epoch = epoch
        self._granted = granted
        self._without = without
        self._expiry = expiry
        self._geometry = Geometry(record.data, record.parity)
        self._found = standing(record, granted)

    async def run(self) -> Session:
        """The session of the claim. Raises Paused."""
        found, record = self._found, self._record
        tail = await self._tail()
        fit = await self._cut()
        ready = {i: record.nodes[i] for i in sorted(found.complete() & fit)}
        for index in found.rebuild(record.quorum):
            if len(ready) < record.quorum and index in fit:
                node = record.nodes[index]
                if await self._rebuild(index, node, found.prefix[index], ready):
                    ready[index] = node
        if len(ready) < record.quorum:
            if len(ready) < record.majority:
                raise self._too_few()
            await self._replace(ready)
        nodes = await self._settle(ready, tail)
        stayed = sum(record.nodes.get(index) == node for index, node in nodes.items())
        moved = self._record is not record
        if len(nodes) < record.quorum or (moved and stayed < record.majority):
            raise self._too_few()
        return Session(
            self._house,
            self._upload,
            self._record,
            self._epoch,
            found.rows,
            tail,
            nodes,
        )

    def _too_few(self) -> Paused:
        found = self._found
        held = self._record.offset(found.stripes, found.tail)
        return Paused("too few nodes of the upload can go on", held)

    async def _tail(self) -> bytes:
        """The bytes of the unfinished stripe. Raises Paused."""
        found = self._found
        if not found.tail:
            return b""
        for index in sorted(found.tails):
            settled = self._granted[index].settled
            asking = self._on(index).tail(self._upload, found.stripes, settled)
            try:
                tail = await in_time(self._house.clock, asking)
            except ShardError:
                continue
            if len(tail) == found.tail:
                return tail
        raise Paused("the upload's last bytes cannot be read")

    async def _cut(self) -> set[int]:
        """Cut back who is ahead; the indices that can go on."""

        async def cut(index: int) -> None:
            has = self._found.prefix[index]
            if self._granted[index].stripes > has:
                await self._on(index).cut(self._upload, self._epoch, has)

        return set((await poll(self._house.clock, self._granted, cut)).answers)

    async def _rebuild(
        self, index: int, node: str, first: int, ready: Mapping[int, str]
    ) -> bool:
        """Give a node the stripes from `first` on; False when it fails."""
        found, clock = self._found, self._house.clock
        reader = ReadBack(self._house, self._upload, self._geometry, found.rows, ready)
        try:
            uploads = self._house.nodes.uploads(node)
            opening = uploads.open(self._upload, self._epoch, first)
            sink = await in_time(clock, opening)
            try:
                for number in range(first, found.stripes):
                    frame = await reader.rebuilt(number, index)
                    await in_time(clock, sink.write(frame))
                return await in_time(clock, sink.sync()) == found.stripes
            finally:
                await sink.close()
        except ShardError:
            return False
        finally:
            await reader.close()

    async def _replace(self, ready: dict[int, str]) -> None:
        """Put lost shards on nodes that have none of the upload."""
        record = self._record
        taken = set(record.nodes.values())
        spares = [
            each.id
            for each in self._house.cluster.candidates()
            if each.writable and not each.suspect and each.id not in taken
        ]
        lost = [index for index in range(record.shards) if index not in ready]
        for index in lost:
            own = record.nodes.get(index, "")
            if len(ready) < record.quorum and own in self._without:
                await self._begin_anew(index, own, ready)
        for index in lost:
            while index not in ready and spares and len(ready) < record.quorum:
                node = spares.pop(0)
                if await self._begin_anew(index, node, ready):
                    self._record = self._record.moved(index, node)

    async def _begin_anew(self, index: int, node: str, ready: dict[int, str]) -> bool:
        """Give a node a whole shard of what is held; False when that fails."""
        if not await self._begin_on(node):
            return False
        if await self._rebuild(index, node, 0, dict(ready)):
            ready[index] = node
        return index in ready

    async def _begin_on(self, node: str) -> bool:
        upload, clock, text = self._upload, self._house.clock, self._record.to_json()
        try:
            uploads = self._house.nodes.uploads(node)
            await in_time(clock, uploads.remove(upload, self._epoch))
            await in_time(clock, uploads.begin(upload, text, self._expiry))
            state = await in_time(clock, uploads.claim(upload, self._epoch))
        except ShardError:
            return False
        return state.granted

    async def _settle(self, ready: Mapping[int, str], tail: bytes) -> dict[int, str]:
        """The nodes on which everything is durable and said to be."""
        text, stripes = self._record.to_json(), self._found.stripes

        async def settle(index: int) -> None:
            uploads = self._house.nodes.uploads(ready[index])
            if tail:
                await uploads.add_tail(self._upload, self._epoch, stripes, 0, tail)
            await uploads.settle(self._upload, self._epoch, text)

        settled: Iterable[int] = (await poll(self._house.clock, ready, settle)).answers
        return {index: ready[index] for index in sorted(settled)}

    def _on(self, index: int) -> IUploads:
        return self._house.nodes.uploads(self._record.nodes[index])
