"""What every IUploads must do."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from zope.interface.verify import verifyObject

from ostore.erasure.framing import Frame
from ostore.erasure.table import ROW
from ostore.interfaces import IFrameStream, IShardStore, IUploads, IUploadSink
from ostore.model.errors import Malformed, ShardMissing, ShardRefused
from ostore.model.resuming import Tail, UploadState
from tests.contracts.shards import STRIPE, Sample, blocks, sample

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

T = TypeVar("T")

UPLOAD = "ab" * 16
EXPIRY = 600.0
ONE = sample(1, 5 * STRIPE)


def rows(frames: tuple[Frame, ...]) -> bytes:
    """The packed rows of these frames."""
    found = (frame.row for frame in frames)
    return b"".join(ROW.pack(r.raw, r.stored, r.coding, r.crc) for r in found)


class UploadsContract(TestCase):
    """A subclass gives the uploads of a node, its shards, and its clock."""

    uploads: IUploads
    shards: IShardStore

    async def fresh(self) -> tuple[IUploads, IShardStore]:
        """Those of an empty node, ready; it ends with the test."""
        raise NotImplementedError

    def later(self, seconds: float) -> None:
        """Move the node's clocks on."""
        raise NotImplementedError

    def files(self) -> list[str]:
        """The names of the node's temporaries, sorted."""
        raise NotImplementedError

    async def begun(self, upload: str = UPLOAD, *, epoch: int | None = 1) -> IUploads:
        """An upload that was begun, and claimed unless the epoch is None."""
        self.uploads, self.shards = await self.fresh()
        await self.uploads.begin(upload, "record", EXPIRY)
        if epoch is not None:
            state = await self.uploads.claim(upload, epoch)
            self.assertTrue(state.granted)
            await self.uploads.settle(upload, epoch, "record")
        return self.uploads

    async def send(self, epoch: int, first: int, *frames: Frame) -> int:
        """Write frames and sync them."""
        sink = await self.uploads.open(UPLOAD, epoch, first)
        try:
            for frame in frames:
                await sink.write(frame)
            return await sink.sync()
        finally:
            await sink.close()

    async def refused(
        self, error: type[Exception] | tuple[type[Exception], ...], work: Awaitable[T]
    ) -> None:
        """Awaiting `work` raises `error`."""
        try:
            await work
        except error:
            return
        self.fail(f"no {error}")

    async def frames(self, first: int, stop: int) -> list[bytes]:
        """The blocks of frames that are held."""
        stream = await self.uploads.frames(UPLOAD, first, stop)
        found: list[bytes] = []
        try:
            while (frame := await stream.read()) is not None:
                self.assertEqual(frame.number, first + len(found))
                found.append(bytes(frame.block))
        finally:
            await stream.close()
        return found

    async def look(self) -> UploadState:
        """What the node says."""
        return await self.uploads.look(UPLOAD)

    async def test_interfaces(self) -> None:
        """All of it provides its interfaces."""
        uploads = await self.begun()
        verifyObject(IUploads, uploads)
        sink = await uploads.open(UPLOAD, 1, 0)
        verifyObject(IUploadSink, sink)
        await sink.close()
        await self.send(1, 0, ONE.frames[0])
        stream = await uploads.frames(UPLOAD, 0, 1)
        verifyObject(IFrameStream, stream)
        await stream.close()

    async def test_begun(self) -> None:
        """A new upload holds nothing, and there is one of an id alone."""
        uploads = await self.begun(epoch=None)
        self.assertEqual(await self.look(), UploadState(0, 0, False, "record"))
        await self.refused(ShardRefused, uploads.begin(UPLOAD, "other", EXPIRY))
        await self.refused(Malformed, uploads.begin("../x", "record", EXPIRY))
        await self.refused(ShardMissing, uploads.look("cd" * 16))
        self.assertEqual((await self.look()).record, "record")

    async def test_unclaimed(self) -> None:
        """Without a claim nothing can be written."""
        uploads = await self.begun(epoch=None)
        for epoch in (0, 1):
            await self.refused(ShardRefused, self.send(epoch + 1, 0, ONE.frames[0]))
            tail = uploads.add_tail(UPLOAD, epoch + 1, 0, 0, b"x")
            await self.refused(ShardRefused, tail)

    async def test_frames(self) -> None:
        """Frames are held in their order, part by part, and read back."""
        await self.begun()
        self.assertEqual(await self.send(1, 0, *ONE.frames[:2]), 2)
        self.assertEqual(await self.send(1, 2, *ONE.frames[2:]), 5)
        state = await self.look()
        self.assertEqual((state.epoch, state.settled), (1, 1))
        self.assertEqual(state.rows, rows(ONE.frames))
        sent = [bytes(frame.block) for frame in ONE.frames]
        self.assertEqual(await self.frames(0, 5), sent)
        self.assertEqual(await self.frames(3, 5), sent[3:])
        await self.refused(ShardMissing, self.frames(3, 6))

    async def test_wrong_frames(self) -> None:
        """A frame that is not the next one is refused."""
        await self.begun()
        await self.send(1, 0, ONE.frames[0])
        await self.refused(ShardRefused, self.send(1, 1, ONE.frames[2]))
        await self.refused(ShardRefused, self.send(1, 0, ONE.frames[0]))
        await self.refused(ShardRefused, self.send(1, 2, ONE.frames[2]))
        self.assertEqual(await self.send(1, 1, ONE.frames[1]), 2)

    async def test_epochs(self) -> None:
        """An epoch has to grow, and who has a lower one writes nothing any more."""
        uploads = await self.begun(epoch=5)
        await self.send(5, 0, ONE.frames[0])
        await uploads.release(UPLOAD, 5)
        for epoch in (0, 4, 5):
            self.assertFalse((await uploads.claim(UPLOAD, epoch)).granted)
        state = await uploads.claim(UPLOAD, 6)
        self.assertTrue(state.granted)
        self.assertEqual((state.epoch, state.settled, state.stripes), (6, 5, 1))
        key, layout = ONE.key, ONE.layout
        for work in (
            self.send(5, 1, ONE.frames[1]),
            uploads.renew(UPLOAD, 5),
            uploads.cut(UPLOAD, 5, 0),
            uploads.settle(UPLOAD, 5, "other"),
            uploads.add_tail(UPLOAD, 5, 1, 0, b"x"),
            uploads.commit(UPLOAD, 5, key, layout, None),
            uploads.finish(UPLOAD, 5, "outcome"),
            uploads.remove(UPLOAD, 5),
            uploads.renew(UPLOAD, 7),
        ):
            await self.refused(ShardRefused, work)
        await uploads.release(UPLOAD, 5)
        self.assertTrue((await self.look()).active)
        self.assertEqual(await self.send(6, 1, ONE.frames[1]), 2)

    async def test_active(self) -> None:
        """Who wrote within five seconds, and did not release, is not replaced."""
        uploads = await self.begun()
        self.later(4.5)
        state = await uploads.claim(UPLOAD, 2)
        self.assertEqual((state.granted, state.active), (False, True))
        self.assertEqual(await uploads.renew(UPLOAD, 1), 0)
        self.later(4.5)
        self.assertFalse((await uploads.claim(UPLOAD, 2)).granted)
        self.later(0.6)
        state = await self.look()
        self.assertEqual((state.active, state.epoch), (False, 1))
        self.assertTrue((await uploads.claim(UPLOAD, 2)).granted)
        await uploads.release(UPLOAD, 2)
        self.assertTrue((await uploads.claim(UPLOAD, 3)).granted)
        await uploads.release(UPLOAD, 3)
        self.assertEqual(await uploads.renew(UPLOAD, 3), 0)
        self.assertFalse((await uploads.claim(UPLOAD, 4)).granted)

    async def test_cut(self) -> None:
        """Frames behind the first ones are forgotten; others may stand there then."""
        uploads = await self.begun()
        await self.send(1, 0, *ONE.frames)
        await uploads.cut(UPLOAD, 1, 7)
        await uploads.cut(UPLOAD, 1, 2)
        self.assertEqual((await self.look()).rows, rows(ONE.frames[:2]))
        other = sample(9, 5 * STRIPE)
        self.assertEqual(await self.send(1, 2, *other.frames[2:]), 5)
        mixed = (*ONE.frames[:2], *other.frames[2:])
        self.assertEqual((await self.look()).rows, rows(mixed))
        await uploads.cut(UPLOAD, 1, 0)
        self.assertEqual((await self.look()).stripes, 0)
        self.assertEqual(await self.send(1, 0, *ONE.frames), 5)

    async def test_tails(self) -> None:
        """A tail grows at its end alone, and goes when its stripe is there."""
        uploads = await self.begun()
        await self.send(1, 0, ONE.frames[0])
        await uploads.add_tail(UPLOAD, 1, 1, 0, b"one")
        await uploads.add_tail(UPLOAD, 1, 1, 3, b"two" * 1000)
        for at in (0, 2, 3004):
            again = uploads.add_tail(UPLOAD, 1, 1, at, b"x")
            await self.refused(ShardRefused, again)
        self.assertEqual((await self.look()).tails, (Tail(1, 1, 3003),))
        tail = await uploads.tail(UPLOAD, 1, 1)
        self.assertEqual(tail, b"one" + b"two" * 1000)
        await self.refused(ShardMissing, uploads.tail(UPLOAD, 2, 1))
        await self.refused(ShardMissing, uploads.tail(UPLOAD, 1, 2))
        await self.send(1, 1, ONE.frames[1])
        self.assertEqual((await self.look()).tails, ())
        await self.refused(ShardMissing, uploads.tail(UPLOAD, 1, 1))

    async def test_settled(self) -> None:
        """Tails of older claims stay until the new one is settled, with its record."""
        uploads = await self.begun()
        await uploads.add_tail(UPLOAD, 1, 0, 0, b"old")
        await uploads.release(UPLOAD, 1)
        await uploads.claim(UPLOAD, 2)
        await uploads.add_tail(UPLOAD, 2, 0, 0, b"new")
        state = await self.look()
        self.assertEqual(set(state.tails), {Tail(0, 1, 3), Tail(0, 2, 3)})
        self.assertEqual((state.settled, state.record), (1, "record"))
        await uploads.settle(UPLOAD, 2, "récord")
        state = await self.look()
        self.assertEqual(state.tails, (Tail(0, 2, 3),))
        self.assertEqual((state.settled, state.record), (2, "récord"))

    async def test_commit(self) -> None:
        """It becomes a shard and stays an upload, however often that is asked."""
        uploads = await self.begun()
        await self.send(1, 0, *ONE.frames)
        sent = [bytes(frame.block) for frame in ONE.frames]
        for _ in range(2):
            await uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
            self.assertEqual(await blocks(self.shards, ONE.key), sent)
            self.assertEqual((await self.look()).stripes, 5)
        await uploads.cut(UPLOAD, 1, 2)
        self.assertEqual(await blocks(self.shards, ONE.key), sent)
        self.assertEqual(await self.frames(0, 2), sent[:2])
        await uploads.remove(UPLOAD)
        self.assertEqual(await blocks(self.shards, ONE.key), sent)
        self.assertEqual(self.files(), [])

    async def test_refused_commits(self) -> None:
        """Another layout, another shard, too late: refused, and the upload stands."""
        uploads = await self.begun()
        await self.send(1, 0, *ONE.frames[:3])
        commit = uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
        await self.refused(ShardRefused, commit)
        await self.send(1, 3, *ONE.frames[3:])
        late = uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, 1.0)
        await self.refused(ShardRefused, late)
        await uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
        self.assertEqual(len(await blocks(self.shards, ONE.key)), 5)

    async def test_finish(self) -> None:
        """The outcome alone is left, until it expires; nobody claims it."""
        uploads = await self.begun()
        await self.send(1, 0, *ONE.frames)
        await uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
        await uploads.finish(UPLOAD, 1, "öutcome")
        state = await self.look()
        self.assertEqual((state.outcome, state.stripes), ("öutcome", 0))
        self.assertEqual(self.files(), [f"{UPLOAD}.upload"])
        state = await uploads.claim(UPLOAD, 2)
        self.assertEqual((state.granted, state.outcome), (False, "öutcome"))
        await self.refused(ShardRefused, self.send(1, 0, ONE.frames[0]))
        self.assertEqual(len(await blocks(self.shards, ONE.key)), 5)
        self.later(EXPIRY + 1)
        await self.refused(ShardMissing, self.look())

    async def test_removed(self) -> None:
        """All of it goes, at any time, and may go twice."""
        uploads = await self.begun()
        await self.send(1, 0, *ONE.frames)
        await uploads.add_tail(UPLOAD, 1, 5, 0, b"tail")
        for _ in range(2):
            await uploads.remove(UPLOAD)
            self.assertEqual(self.files(), [])
            await self.refused(ShardMissing, self.look())
        await self.refused(ShardMissing, self.send(1, 0, ONE.frames[0]))
        await uploads.remove(UPLOAD, 3)
        await uploads.begin(UPLOAD, "again", EXPIRY)
        self.assertEqual((await self.look()).stripes, 0)

    async def test_expiry(self) -> None:
        """It expires so long after the last claim; then it may begin anew."""
        uploads = await self.begun()
        self.later(EXPIRY - 1)
        self.assertEqual(await uploads.renew(UPLOAD, 1), 0)
        await uploads.release(UPLOAD, 1)
        self.later(EXPIRY - 1)
        self.assertTrue((await uploads.claim(UPLOAD, 2)).granted)
        self.later(EXPIRY - 1)
        self.assertEqual((await self.look()).epoch, 2)
        self.later(2)
        for work in (
            self.look(),
            uploads.claim(UPLOAD, 3),
            uploads.renew(UPLOAD, 2),
            self.send(2, 0, ONE.frames[0]),
        ):
            await self.refused(ShardMissing, work)
        await uploads.begin(UPLOAD, "again", EXPIRY)
        self.assertEqual((await self.look()).epoch, 0)

    async def test_many(self) -> None:
        """More frames than are left unsynced at once."""
        uploads = await self.begun()
        many: Sample = sample(3, 150 * 1000, stripe=1000)
        self.assertEqual(await self.send(1, 0, *many.frames), 150)
        self.assertEqual((await self.look()).rows, rows(many.frames))
        await uploads.commit(UPLOAD, 1, many.key, many.layout, None)
        self.assertEqual(len(await blocks(self.shards, many.key)), 150)
