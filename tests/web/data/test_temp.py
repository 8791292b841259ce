"""Temporaries as their writers see them."""

from __future__ import annotations

from tests.contracts.shards import sample
from tests.web.data.serving import (
    ServedNode,
    digest_of,
    shard_target,
    stream,
)


class FramedTests(ServedNode):
    """A shard in frames, written over several requests."""

    async def test_whole_story(self) -> None:
        """Created, written in two parts, committed: it is a shard with those frames."""
        one = sample(size=50_000, stripe=20_000)
        uuid = await self.create()
        first = await self.patch(uuid, 0, stream(one.frames[:1]))
        self.assertEqual((first.status, first.get("upload-offset")), (204, "5000"))
        second = await self.patch(uuid, 5000, stream(one.frames[1:]))
        self.assertEqual((second.status, second.get("upload-offset")), (204, "12500"))
        done = await self.commit(
            uuid, one.key, one.layout.header(), digest_of(one.frames)
        )
        self.assertEqual(done.status, 201, done.body)
        self.assertEqual(done.get("x-ostore-layout"), one.layout.header())
        accept = {"Accept": "application/x-ostore-frames"}
        answer = await self.ask("GET", shard_target(one), accept)
        self.assertEqual(answer.body, stream(one.frames))
        self.assertEqual(answer.get("content-type"), "application/x-ostore-frames")
        self.assertEqual(list(self.temp.iterdir()), [])
