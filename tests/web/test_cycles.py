"""What a request needed goes with it, without the garbage collector."""

from __future__ import annotations

import gc
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.store import ObjectStore
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.site import StreamingSite
from ostore.web.api.root import Api
from tests.streaming.wire import Socket, fake_clock
from tests.web.fake_store import FakeStore

TIMES = 5


class CycleTests(SynchronousTestCase):
    """Cycles would have the collector look at everything again and again."""

    def setUp(self) -> None:
        """A connection, and the collector switched off."""
        store = FakeStore()
        store.fill("a", b"content")
        _, clock = fake_clock()
        api = Api(cast("ObjectStore", store), clock, lambda _: None, InlineWorkers())
        self.channel: Any = StreamingSite(api, clock, bytes).buildProtocol(None)
        self.socket = Socket()
        self.channel.makeConnection(self.socket)
        self.addCleanup(self.channel.connectionLost, Failure(ConnectionDone()))
        gc.disable()
        self.addCleanup(gc.enable)

    def garbage(self, request: bytes) -> int:
        """Objects that only the collector finds, of some such requests."""
        self.channel.dataReceived(request)
        gc.collect()
        self.socket.clear()
        for _ in range(TIMES):
            self.channel.dataReceived(request)
        self.assertEqual(self.socket.value().count(b"HTTP/1.1 20"), TIMES)
        return gc.collect()

    def test_reads(self) -> None:
        """None of GET and HEAD."""
        for method in b"GET", b"HEAD":
            head = method + b" /objects/a HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"
            self.assertEqual(self.garbage(head), 0, method)

    def test_writes(self) -> None:
        """None of PUT."""
        head = b"PUT /objects/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        self.assertEqual(self.garbage(head), 0)
