"""The search server dies, hangs, or falls into a black hole, under load."""

from __future__ import annotations

import signal
import time
from typing import Any, cast

from twisted.internet import reactor as installed

from ostore.streaming.tasks import start
from tests.live import servers
from tests.live.cases import ThreadedCase, make_cluster
from tests.live.load import LoadCase
from tests.support.livecluster import LiveCluster
from tests.support.proxy import Proxy

reactor = cast("Any", installed)


class AwayTests(LoadCase):
    """The server itself."""

    def test_restarted(self) -> None:
        """Ended and started again: 503 meanwhile, nothing lost, no wrong answer."""
        for end in ("stop", "kill"):
            with self.load() as load:
                self.more(load, 20)
                getattr(servers.search(), end)()
                self.refused(load, 3)
                self.assertIn("metadata", self.reasons())
                servers.search().start()
                self.until(self.works, "everything works again")
                self.more(load, 10)
            self.assert_none_lost(load)

    def test_paused(self) -> None:
        """Paused: 503 in good time, and all goes on when it does."""
        server = servers.search()
        with self.load() as load:
            self.more(load, 10)
            server.signal(signal.SIGSTOP)
            try:
                self.until(lambda: "metadata" in self.reasons(), "the reason")
                self.refused(load, 1)
            finally:
                server.signal(signal.SIGCONT)
            self.until(self.works, "everything works again")
            self.more(load, 10)
        self.assert_none_lost(load)

    def test_paused_for_a_moment(self) -> None:
        """A pause of a second is a pause and no error."""
        server = servers.search()
        with self.load() as load:
            self.more(load, 10)
            for _ in range(3):
                server.signal(signal.SIGSTOP)
                time.sleep(1)
                server.signal(signal.SIGCONT)
                self.more(load, 5)
        self.assert_none_lost(load)
        self.assertEqual(set(load.counts), {"PUT 200", "GET 200"})


class BlackHoleTests(LoadCase, ThreadedCase):
    """What lies between the apis and the server."""

    def make(self) -> LiveCluster:
        """One whose apis go through a proxy."""
        self.proxy = Proxy(reactor, servers.search().port)
        url = f"http://127.0.0.1:{self.proxy.port}"
        return make_cluster(search_url=url)

    def settling(self) -> object:
        """The cluster ends with the proxy."""
        return start(self.end())

    async def end(self) -> None:
        """Let both go."""
        try:
            await self.elsewhere(self.settle)
        finally:
            await self.elsewhere(self.cluster.close)
            await self.proxy.close()

    async def test_swallowed(self) -> None:
        """Open connections through which nothing passes: 503 in good time, no loss."""
        await self.elsewhere(self.cluster.start)
        load = self.load()
        load.__enter__()
        try:
            await self.elsewhere(self.more, load, 20)
            self.proxy.swallow()
            await self.elsewhere(self.refused, load, 3)
            self.proxy.cut()
            await self.elsewhere(self.until, self.works, "all works again")
            await self.elsewhere(self.more, load, 10)
        finally:
            self.proxy.cut()
            await self.elsewhere(load.__exit__, None, None, None)
        await self.elsewhere(self.assert_none_lost, load)

    async def test_cut(self) -> None:
        """Connections cut again and again: what is asked twice is done once."""
        await self.elsewhere(self.cluster.start)
        load = self.load()
        load.__enter__()
        try:
            for _ in range(20):
                await self.elsewhere(self.more, load, 3)
                self.proxy.cut()
        finally:
            await self.elsewhere(load.__exit__, None, None, None)
        await self.elsewhere(self.assert_none_lost, load)
