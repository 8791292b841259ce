"""The api's face on a real loopback socket, with a store in memory behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import cast

from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.trial.unittest import TestCase

from ostore.engine.store import ObjectStore
from ostore.model.signing import AnyHost, Caller, Guard, Nonces
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.site import StreamingSite
from ostore.streaming.tasks import start
from ostore.streaming.wire import wired
from ostore.web.api.jobs import Administration
from ostore.web.api.root import Api
from tests.support.http import Answer, Connection, Headers, connect, exchange
from tests.web.fake_store import FakeStore

reactor = cast("IReactorTCP", installed)
timers = cast("IReactorTime", installed)

SECRET = b"0123456789abcdef0123456789abcdef"

MOST_TURNS = 5000
"""Turns of the reactor, 1 ms apart, after which what does not happen never will."""


class Served(TestCase):
    """One server a test; `lines` is its access log."""

    timeout = 30
    require_digest = False
    instant_upload = True

    def setUp(self) -> None:
        """Listen on a free port."""
        self.store = FakeStore()
        self.lines: list[dict[str, object]] = []
        self.clock = Clock(timers, time.monotonic, time.time)
        api = Api(
            cast("ObjectStore", self.store),
            self.clock,
            self.lines.append,
            InlineWorkers(),
            admin=Administration(
                Guard([SECRET], AnyHost, self.clock.wall, Nonces()), self.clock.wall
            ),
            require_digest=self.require_digest,
            instant_upload=self.instant_upload,
        )
        self.site = StreamingSite(api, self.clock, os.urandom)
        listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        wired(listening)
        self.port: int = cast("IPv4Address", listening.getHost()).port
        self.connections: list[Connection] = []
        self.addCleanup(lambda: start(self._end(listening)))

    async def _end(self, listening: IListeningPort) -> None:
        """End every connection on both sides."""
        for connection in self.connections:
            await connection.close()
        stopped = listening.stopListening()
        assert stopped is not None
        await stopped
        await self.site.drain(5)

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers | Mapping[str, str | bytes] | Mapping[str, str] = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        lines = [*headers.items()] if isinstance(headers, Mapping) else headers
        return await exchange(reactor, self.port, method, target, lines, body)

    async def signed(self, method: str, target: str) -> Answer:
        """One request that bears the cluster's signature."""
        caller = Caller("test", SECRET, time.time, os.urandom)
        headers = {"Host": "any", **caller.headers("", method, "any", target)}
        return await self.ask(method, target, headers)

    async def connected(self) -> Connection:
        """A connection that tearDown closes."""
        connection = await connect(reactor, self.port)
        self.connections.append(connection)
        return connection

    def assert_problem(self, answer: Answer, status: int) -> str:
        """The answer is problem+json of that status; gives its detail."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.get("content-type"), "application/problem+json")
        problem = answer.json()
        self.assertEqual(
            {"type", "title", "status", "detail", "request_id"} - set(problem), set()
        )
        self.assertEqual(problem["status"], status)
        self.assertEqual(problem["request_id"], answer.get("x-request-id"))
        self.assertTrue(problem["title"])
        return str(problem["detail"])

    async def turns(self, count: int) -> None:
        """Let the reactor go round so often."""
        for _ in range(count):
            await self.clock.sleep(0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds; fails when it does not within MOST_TURNS."""
        for _ in range(MOST_TURNS):
            if holds():
                return
            await self.clock.sleep(0.001)
        self.fail("what was waited for did not happen")
