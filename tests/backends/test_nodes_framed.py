"""The contract of shard stores, asked in conversations with a real node."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

from twisted.internet.ssl import CertificateOptions

from ostore.backends.nodes.client import HttpNodes
from ostore.backends.nodes.framed import FramedStore
from ostore.interfaces import IShardStore
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.backends import test_nodes_http as http
from tests.streaming.test_tls import credentials
from tests.support.nodes import Heard, framed_nodes


class InConversation(http.OverHttp):
    """Every operation that can goes into one conversation."""

    def nodes(self, heard: Heard, clock: Clock) -> HttpNodes:
        return framed_nodes(heard, clock, self.wall)

    async def fresh(self) -> IShardStore:
        store = await super().fresh()
        assert isinstance(store, FramedStore)
        await store.talk.begin()
        self.assertTrue(store.talk.stands)
        self.addCleanup(lambda: start(self.stood(store)))
        return store

    async def stood(self, store: FramedStore) -> None:
        """Whatever the test did, it is the one conversation that goes on."""
        conversation = store.talk.now()
        assert conversation is not None
        asked = conversation.operations
        await store.find("0" * 64)
        self.assertEqual(conversation.operations, asked + 1)


class InConversationOnAnotherClock(InConversation):
    """The node's clock is ten minutes ahead of the caller's."""

    skew = 600.0


class InConversationOverTls(InConversation):
    """The same with TLS between them."""

    def tls(self) -> CertificateOptions:
        return credentials()
