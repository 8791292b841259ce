"""The contract of resumable uploads, asked over HTTP of a real node."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.ssl import CertificateOptions
from twisted.trial import unittest

from ostore.backends.nodes.asking import Ask
from ostore.backends.nodes.uploads import (
    RemoteUploads,
    RemoteUploadSink,
    state_from_json,
    state_to_json,
)
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.interfaces import IShardStore, IUploads
from ostore.model.errors import NodeUnreachable, ShardRefused
from ostore.model.resuming import Tail, UploadState
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from tests.contracts.uploads import ONE, UPLOAD, UploadsContract
from tests.streaming.test_tls import credentials
from tests.support.nodes import REAL, Heard, ServedNode, http_nodes, reactor

BEGIN = 1_700_000_000.0


class OverHttp(UploadsContract, unittest.TestCase):
    """One data service and one caller, in one process."""

    timeout = 60

    def setUp(self) -> None:
        self.moved = 0.0

    def wall(self) -> float:
        """The clock of both."""
        return BEGIN + self.moved

    def later(self, seconds: float) -> None:
        self.moved += seconds

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("temp/*"))

    def tls(self) -> CertificateOptions | None:
        return None

    async def fresh(self) -> tuple[IUploads, IShardStore]:
        self.root = Path(self.mktemp()).absolute()
        clock = Clock(REAL.timers, self.wall, self.wall)
        workers = ThreadWorkers(reactor, 3, "shards")
        self.node = ShardNode(
            str(self.root), Files(), workers, clock, os.urandom, durable=False
        )
        await self.node.start()
        await self.node.adopt("c" * 32, 1)
        self.addCleanup(self.node.stop)
        self.served = ServedNode(self.node, self.wall, self.tls())
        self.addCleanup(self.served.stop)
        heard = Heard()
        heard.hear(self.node.node_id, self.served.url)
        clock = Clock(REAL.timers, REAL.monotonic, self.wall)
        nodes = http_nodes(heard, clock, self.wall)
        self.addCleanup(nodes.stop)
        return nodes.uploads(self.node.node_id), nodes.store(self.node.node_id)

    async def test_rests(self) -> None:
        """A sink that rests between two frames loses nothing."""
        await self.begun()
        sink = await self.uploads.open(UPLOAD, 1, 0)
        assert isinstance(sink, RemoteUploadSink)
        for frame in ONE.frames:
            await sink.write(frame)
            sink._end()
        self.assertEqual(await sink.sync(), 5)
        self.assertEqual(await sink.sync(), 5)
        await sink.close()

    async def test_cut_part(self) -> None:
        """Of a part whose sender dies, whole frames are kept, and nothing else."""
        await self.begun()
        sink = await self.uploads.open(UPLOAD, 1, 0)
        assert isinstance(sink, RemoteUploadSink)
        for frame in ONE.frames[:3]:
            await sink.write(frame)
        await sink.close()
        held = 0
        for _ in range(1000):
            held = await self.uploads.renew(UPLOAD, 1)
            if held == 3:
                break
            await REAL.sleep(0.005)
        self.assertLessEqual(held, 3)
        self.assertEqual(await self.send(1, held, *ONE.frames[held:]), 5)

    async def test_node_dies(self) -> None:
        """A node that dies in a part is told as such."""
        await self.begun()
        sink = await self.uploads.open(UPLOAD, 1, 0)
        await sink.write(ONE.frames[0])
        await self.served.die()

        async def send() -> None:
            for frame in ONE.frames[1:]:
                await sink.write(frame)
            await sink.sync()

        await self.refused(NodeUnreachable, send())
        await sink.close()
        await self.refused(NodeUnreachable, self.uploads.look(UPLOAD))

    async def test_taken_over(self) -> None:
        """A part that another has taken over meanwhile is refused."""
        await self.begun()
        sink = await self.uploads.open(UPLOAD, 1, 0)
        await sink.write(ONE.frames[0])
        for _ in range(1000):
            if len(self.node.store.uploads._held[UPLOAD]._draft.rows(9)):  # type: ignore[union-attr]  # it was read
                break
            await REAL.sleep(0.005)
        self.later(6)
        self.assertTrue((await self.uploads.claim(UPLOAD, 2)).granted)

        async def send() -> None:
            for frame in ONE.frames[1:]:
                await sink.write(frame)
            await sink.sync()

        await self.refused(ShardRefused, send())
        await sink.close()

    async def test_digests(self) -> None:
        """A record whose bytes differ from its digest is refused, nothing is begun."""
        uploads, _ = await self.fresh()
        assert isinstance(uploads, RemoteUploads)
        target = f"/uploads/{UPLOAD}?do=begin&expiry=60"

        for headers in ({}, {"Digest": f"SHA-256={'A' * 43}="}):
            ask = Ask("POST", target, headers, [b"record"])
            await self.refused(ShardRefused, uploads._peer.ask(ask))
        self.assertEqual(self.files(), [])


class OverTls(OverHttp):
    """The same with TLS between them."""

    def tls(self) -> CertificateOptions:
        return credentials()


class StateTests(unittest.SynchronousTestCase):
    """States as JSON."""

    def test_round(self) -> None:
        """Read as they were written."""
        for state in (
            UploadState(0, 0, False, ""),
            UploadState(
                3, 2, True, "récord", b"r" * 26, (Tail(2, 2, 9),), "outcome", True
            ),
        ):
            self.assertEqual(state_from_json(state_to_json(state)), state)

    def test_others(self) -> None:
        """What is no state comes from a node that cannot be used."""
        good = state_to_json(UploadState(3, 2, True, "r", b"r" * 26))
        bad: tuple[object, ...] = (
            *({k: v for k, v in good.items() if k != key} for key in good),
            {**good, "rows": "AAAA"},
            {**good, "rows": "!"},
            {**good, "epoch": "x"},
            {**good, "epoch": -1},
            {**good, "tails": [[1, 2]]},
            [],
            None,
        )
        for shown in bad:
            self.assertRaises(NodeUnreachable, state_from_json, shown)
