"""The contract of shard stores, asked in conversations with a real node."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

from twisted.internet.ssl import CertificateOptions

from ostore.backends.nodes.client import HttpNodes
from ostore.backends.nodes.framed import FramedStore
from ostore.erasure.framing import Frame
from ostore.interfaces import IShardStore
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.backends import test_nodes_http as http
from tests.contracts.shards import STRIPE, blocks, put_small, sample
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


class PackedInConversation(InConversation):
    """The node packs small contents: what it has in memory comes for one question."""

    pack_limit = 1 << 20

    async def test_glance(self) -> None:
        """A shard of one stripe, exact, once its segment was read from."""
        store, one = await self.begin(), sample()
        assert isinstance(store, FramedStore)
        await put_small(store, one)
        self.assertIsNone(await self.glanced(store, one.key))
        self.assertEqual(await blocks(store, one.key), [one.frames[0].block])
        found = await self.glanced(store, one.key)
        assert found is not None
        self.assertEqual(found, one.frames[0])

    async def test_nothing_to_see(self) -> None:
        """What is not there, is marked bad, or has several stripes says nothing."""
        store = await self.begin()
        assert isinstance(store, FramedStore)
        one, large, away = sample(1), sample(2, 2 * STRIPE), sample(3)
        for each in (one, large):
            await put_small(store, each)
            await blocks(store, each.key)
        await store.mark_bad(one.key)
        for each in (one, large, away):
            self.assertIsNone(await self.glanced(store, each.key))
        self.assertFalse(store.lacks(away.key.hash))

    async def test_none_without_a_conversation(self) -> None:
        """Nothing is at hand then, nor of a key that cannot be."""
        store, one = await self.begin(), sample()
        assert isinstance(store, FramedStore)
        self.assertIsNone(store.glance(ShardKey("x", 0, one.key.layout)))
        current = store.talk._conversation
        store.talk._conversation = None
        store.talk._beginning = True  # no other is begun
        self.assertIsNone(store.glance(one.key))
        store.talk._conversation, store.talk._beginning = current, False

    async def test_cut(self) -> None:
        """The end of the conversation is no news of the shard."""
        store, one = await self.begin(), sample()
        assert isinstance(store, FramedStore)
        await put_small(store, one)
        found = store.glance(one.key)
        conversation = store.talk.now()
        assert found is not None and conversation is not None
        conversation.end()
        self.assertIsNone(await found)
        await store.talk.begin()

    async def glanced(self, store: FramedStore, key: ShardKey) -> Frame | None:
        """What it gives in the end."""
        found = store.glance(key)
        assert found is not None
        return await found
