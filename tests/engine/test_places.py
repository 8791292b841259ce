"""What is remembered of contents' places: it spares locates and is never believed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.looking import PAUSE
from ostore.engine.places import Places
from ostore.engine.referring import PutRequest
from ostore.model.errors import Deleted, TooFewShards, Unavailable
from ostore.model.layouts import Layout, ShardKey
from tests.support.engine import MIB, EngineCase, Rig, hangs, sha256, some_bytes

SMALL, LARGE = some_bytes(4096), some_bytes(2 * MIB + 5)
LAYOUT = Layout(2, 1, 9, "ab" * 16)
NODES = {0: "a", 1: "b", 2: "c"}


class PlacesTests(SynchronousTestCase):
    """The memory by itself."""

    def test_only_whole_contents(self) -> None:
        """A content that lacks a shard, or has two on one node, is not remembered."""
        places = Places()
        places.learn("x", LAYOUT, {0: "a", 2: "c"})
        places.learn("y", LAYOUT, {0: "a", 1: "a", 2: "c"})
        self.assertEqual(len(places), 0)
        places.learn("z", LAYOUT, NODES)
        standing = places.get("z")
        assert standing is not None
        self.assertEqual(standing.places, {0: ("a",), 1: ("b",), 2: ("c",)})
        self.assertEqual(standing.layout, LAYOUT)
        places.forget("z")
        places.forget("z")
        self.assertIsNone(places.get("z"))

    def test_bounded(self) -> None:
        """What was not used for longest makes room."""
        places = Places(3)
        for name in "abc":
            places.learn(name, LAYOUT, NODES)
        places.get("a")
        places.learn("b", LAYOUT, NODES)
        places.learn("d", LAYOUT, NODES)
        self.assertIsNone(places.get("c"))
        self.assertEqual(len(places), 3)


class RememberedCase(EngineCase):
    """An engine that has stored a small and a large content."""

    def rise_with(self, nodes: int = 6, *, mending: bool = False) -> None:
        """Start and store them."""
        self.rise(nodes, mending=mending)
        self.run_(self.put(SMALL, "small"))
        self.run_(self.put(LARGE, "large"))

    def no_locates(self) -> None:
        """From now on no node says what it holds."""
        for rig in self.rigs:
            rig.rules["find"] = hangs

    def known(self, content: bytes) -> bool:
        """Whether its places are remembered and may be used."""
        return self.engine.cluster.remembered(sha256(content)) is not None

    def queued(self, content: bytes) -> set[int]:
        """Indices of the content that wait for their repair."""
        hash = sha256(content)
        waiting = self.engine.repairs._waiting.values()
        return {i for repair in waiting if repair.hash == hash for i in repair.spots}

    async def reach(self, name: str) -> None:
        """What a HEAD asks for."""
        await (await self.store.open(name)).reach()


class GetTests(RememberedCase):
    """GET and HEAD from memory."""

    def test_after_put(self) -> None:
        """What was just stored is read without waiting for any node's word."""
        self.rise_with()
        self.no_locates()
        self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.assertEqual(self.run_(self.get("large"), 0), LARGE)
        self.assertEqual(
            self.run_(self.get("large", MIB - 1, MIB + 1), 0), LARGE[MIB - 1 : MIB + 1]
        )
        self.run_(self.reach("small"), 0)
        self.pass_(3)

    def test_after_get(self) -> None:
        """What was located once is read without waiting for another locate."""
        self.rise_with()
        places = self.engine.cluster.places
        places.forget(sha256(SMALL))
        self.assertEqual(self.run_(self.get("small")), SMALL)
        self.no_locates()
        for _ in range(50):
            self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.pass_(3)

    def test_few_locates_behind(self) -> None:
        """A thousand reads cost one locate at once, and one a content, spread in time."""
        self.rise_with()
        contents = [some_bytes(100, seed) for seed in range(40)]
        for number, content in enumerate(contents):
            self.run_(self.put(content, str(number)), 0)
        before = self.engine.cluster.locates
        for _ in range(25):
            for number, content in enumerate(contents):
                self.assertEqual(self.run_(self.get(str(number)), 0), content)
        self.assertEqual(self.engine.cluster.locates - before, 1)
        self.pass_(10 * PAUSE)
        self.assertLessEqual(self.engine.cluster.locates - before, 11)
        self.pass_(60)
        # the first one was read again while the others waited
        self.assertEqual(self.engine.cluster.locates - before, len(contents) + 1)

    def test_what_is_not_read_is_noticed(self) -> None:
        """A parity shard that is gone is queued by a read that does not need it."""
        self.rise_with()
        self.lose(SMALL, 4)
        self.lose(LARGE, 5)
        self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.run_(self.get("large", 7, 8), 0)
        self.pass_(PAUSE)
        self.assertEqual((self.queued(SMALL), self.queued(LARGE)), ({4}, {5}))
        self.assertFalse(self.known(SMALL))

    def test_noticed_by_head(self) -> None:
        """So it is by a HEAD."""
        self.rise_with()
        self.lose(LARGE, 0, 5)
        self.run_(self.reach("large"), 0)
        self.assertEqual(self.queued(LARGE), {0, 5})

    def test_noticed_in_turn(self) -> None:
        """Whatever was read is looked at, however much was read in one moment."""
        self.rise_with()
        contents = [some_bytes(100, seed) for seed in range(30)]
        for number, content in enumerate(contents):
            self.run_(self.put(content, str(number)))
            self.lose(content, 5)
        for number in range(len(contents)):
            self.run_(self.get(str(number)), 0)
        self.pass_(len(contents) * PAUSE)
        self.assertEqual(
            [self.queued(each) for each in contents], [{5}] * len(contents)
        )

    def test_noticed_again(self) -> None:
        """A content that was whole a moment ago is looked at once more when read."""
        self.rise_with()
        self.run_(self.get("small"), 0)
        self.lose(SMALL, 4)
        self.run_(self.get("small"), 0)
        self.assertEqual(self.queued(SMALL), set())
        self.pass_(PAUSE)
        self.assertEqual(self.queued(SMALL), {4})

    def test_silent_nodes_are_asked_again(self) -> None:
        """What is missing is noticed though nodes let the first looks pass."""
        self.rise_with()
        self.lose(SMALL, 4, 5)
        silent = [self.rigs[number] for number in range(6) if self.lacks(number)]
        for rig in silent:
            rig.rules["find"] = hangs
        self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.pass_(2.5)
        self.assertEqual(self.queued(SMALL), set())
        for rig in silent:
            rig.come_back()
        self.pass_(3)
        self.assertEqual(self.queued(SMALL), {4, 5})

    def test_mute_nodes_are_given_up(self) -> None:
        """Nodes that never answer are asked so often, and no more."""
        self.rise_with()
        self.no_locates()
        self.run_(self.get("small"), 0)
        self.pass_(60)
        before = self.engine.cluster.locates
        self.pass_(60)
        self.assertEqual(self.engine.cluster.locates, before)

    def lacks(self, number: int) -> bool:
        """Whether that node holds nothing of SMALL."""
        return not self.rigs[number].shards(sha256(SMALL))

    def test_mended(self) -> None:
        """What a read from memory found missing is put back, and remembered again."""
        self.rise_with(mending=True)
        for lost in ((0,), (4, 5), (0, 4)):
            self.lose(LARGE, *lost)
            self.assertEqual(self.run_(self.get("large")), LARGE)
            self.pass_(60)
            self.assert_whole(LARGE)
            self.run_(self.get("large"))
            self.assertTrue(self.known(LARGE))
            self.pass_(60)

    def test_dropped_on_a_miss(self) -> None:
        """The first shard that cannot be opened ends what is remembered."""
        self.rise_with()
        self.lose(SMALL, 2)
        self.no_locates()
        self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.assertFalse(self.known(SMALL))
        self.assertTrue(self.known(LARGE))
        self.pass_(3)

    def test_rotten_later_in_the_read(self) -> None:
        """So does one that turns out rotten behind the first stripe."""
        self.rise_with()
        self.run_(self.get("large", 0, 10))
        self.assertTrue(self.known(LARGE))
        self.flip(LARGE, 1, 300_000)
        self.assertEqual(self.run_(self.get("large")), LARGE)
        self.assertFalse(self.known(LARGE))
        self.assertEqual(self.queued(LARGE), {1})

    def test_too_few(self) -> None:
        """A content that is gone is a 503, at once, whatever was remembered."""
        self.rise_with()
        self.lose(LARGE, 0, 1, 2)
        self.lose(SMALL, 0, 1, 2)
        self.refused(TooFewShards, self.get("large"), 0.5)
        self.refused(TooFewShards, self.reach("small"), 0.5)

    def test_hanging(self) -> None:
        """Nodes that hang are no reason to wait: two cost a moment, three a locate."""
        self.rise_with()
        for rig in self.rigs[:2]:
            rig.rules["open"] = rig.rules["find"] = hangs
        for name, content in (("small", SMALL), ("large", LARGE)):
            self.assertEqual(self.run_(self.get(name), 0.2), content)
            self.assertTrue(self.known(content))
        rig = self.rigs[2]
        rig.rules["open"] = rig.rules["find"] = rig.rules["restore"] = hangs
        for rig in self.rigs[:2]:
            rig.rules["restore"] = rig.rules["list"] = hangs
        self.rigs[2].rules["list"] = hangs
        for name in ("small", "large"):
            self.refused(TooFewShards, self.get(name), 6)
            self.refused(TooFewShards, self.reach(name), 6)
        for rig in self.rigs:
            rig.come_back()
        self.pass_(6)
        self.assertEqual(self.run_(self.get("large")), LARGE)

    def test_in_garbage(self) -> None:
        """Shards that were moved to garbage are brought back."""
        self.rise_with()
        for rig in self.rigs:
            self.discard(rig, SMALL)
        self.assertTrue(self.known(SMALL))
        self.assertEqual(self.run_(self.get("small")), SMALL)

    def test_moved(self) -> None:
        """Shards that moved to other nodes are found there, and nothing is made twice."""
        self.rise_with(8, mending=True)
        free = [rig for rig in self.rigs if not rig.shards(sha256(LARGE))]
        for index, target in zip((0, 4), free, strict=True):
            self.move(LARGE, index, target)
        self.assertTrue(self.known(LARGE))
        self.assertEqual(self.run_(self.get("large"), 0), LARGE)
        self.pass_(60)
        self.assertEqual([self.holder(LARGE, i) for i in (0, 4)], free)
        self.assert_whole(LARGE)
        self.assertEqual(len(self.engine.repairs), 0)
        self.assertEqual(self.engine.mending.mended, 0)
        self.assertEqual(self.run_(self.get("large"), 0), LARGE)
        standing = self.engine.cluster.remembered(sha256(LARGE))
        assert standing is not None
        self.assertEqual([standing.places[i] for i in (0, 4)], [(r.id,) for r in free])

    def test_deleted(self) -> None:
        """A deleted object is gone whatever is remembered of its content."""
        self.rise_with()
        self.run_(self.store.delete("small"))
        self.assertTrue(self.known(SMALL))
        self.refused(Deleted, self.get("small"))

    def test_node_suspect(self) -> None:
        """With a suspect among the holders all nodes are asked."""
        self.rise_with()
        self.engine.cluster.suspect(self.holder(SMALL, 5).id)
        self.assertFalse(self.known(SMALL))
        before = self.engine.cluster.locates
        self.assertEqual(self.run_(self.get("small")), SMALL)
        self.assertEqual(self.engine.cluster.locates, before + 1)

    def test_node_down(self) -> None:
        """So it is with one that is down, from the moment it counts as down."""
        self.rise_with()
        self.holder(LARGE, 0).go()
        self.pass_(10.1)
        self.assertFalse(self.known(LARGE))
        self.assertEqual(self.run_(self.get("large"), 1.1), LARGE)

    def test_degraded_is_not_remembered(self) -> None:
        """A content that lacks a shard is located by each read until it is mended."""
        self.rise_with()
        self.lose(SMALL, 3)
        for _ in range(3):
            before = self.engine.cluster.locates
            self.assertEqual(self.run_(self.get("small")), SMALL)
            self.assertEqual(self.engine.cluster.locates, before + 1)
            self.assertFalse(self.known(SMALL))

    def move(self, content: bytes, index: int, target: Rig) -> None:
        """As rebalancing does: made there, then discarded here."""
        rig = self.holder(content, index)
        store, hash = rig.node.store, sha256(content)
        (facts,) = self.run_(store.find(hash)).shards

        async def copy() -> None:
            reader = await store.open(facts.key)
            stream = reader.frames(0, len(reader.table))
            sink = await target.node.store.create("cd" * 16)
            while (frame := await stream.read()) is not None:
                await sink.write(frame)
            await stream.close()
            await reader.close()
            await sink.commit(facts.key, facts.layout, None, 0.0)

        self.run_(copy())
        self.discard(rig, content)

    def discard(self, rig: Rig, content: bytes) -> None:
        """Move a node's shards of a content to its garbage."""
        store = rig.node.store

        async def out(key: ShardKey) -> None:
            await store.discard(key, await store.condemn(key))

        for facts in self.run_(store.find(sha256(content))).shards:
            self.run_(out(facts.key))


class KnownContentTests(RememberedCase):
    """PUT of a content that is there already."""

    def test_without_a_locate(self) -> None:
        """Renewals on the remembered holders are enough."""
        self.rise_with()
        before = self.engine.cluster.locates
        self.run_(self.put(SMALL, "twin"), 0)
        self.run_(self.put(LARGE, "twin"), 0)
        self.assertEqual(self.engine.cluster.locates, before)
        self.assertEqual([rig.calls["renew"] for rig in self.rigs], [4] * 6)
        self.assertEqual(self.run_(self.get("twin")), LARGE)
        self.assert_whole(LARGE)
        version = self.run_(self.store.open("twin", 1)).version
        self.assertEqual(version.degraded, ())

    def test_draining(self) -> None:
        """What leaves a node is not brought back to it by what was remembered."""
        self.rise_with()
        rig = self.holder(SMALL, 3)
        self.run_(rig.node.drain(on=True))
        self.pass_(6)
        before = self.engine.cluster.locates
        self.assertEqual(self.run_(self.get("small"), 0), SMALL)
        self.pass_(1)
        self.assertEqual(self.engine.cluster.locates, before + 1)
        self.run_(self.put(SMALL, "twin"))
        self.assertEqual(self.engine.cluster.locates, before + 2)

    def test_some_gone(self) -> None:
        """When not all are there the nodes are asked, and what lacks is written down."""
        self.rise_with()
        self.lose(SMALL, 1)
        before = self.engine.cluster.locates
        version = self.run_(self.put(SMALL, "twin"))
        self.assertEqual(self.engine.cluster.locates, before + 1)
        self.assertEqual(version.degraded, (1,))
        self.assertEqual(self.queued(SMALL), {1})

    def test_too_many_gone(self) -> None:
        """When no quorum is there the content is stored anew."""
        self.rise_with()
        for content in (SMALL, LARGE):
            self.lose(content, 0, 3)
            version = self.run_(self.put(content, "twin"))
            self.assertEqual(version.degraded, ())
            self.assertEqual(sorted(self.holders(content)), list(range(6)))

    def test_gone_between_the_renewals(self) -> None:
        """What goes away behind the first renewal is stored from the body."""
        self.rise_with()

        def vanish(*_: object) -> None:
            self.metadata.rules.clear()
            self.lose(SMALL, 0, 1, 2)

        self.metadata.rules["add_version"] = vanish
        self.run_(self.put(SMALL, "twin"))
        self.assert_whole(SMALL)

    def test_gone_without_a_body(self) -> None:
        """Without a body such a version is taken back."""
        self.rise_with()

        def vanish(*_: object) -> None:
            self.metadata.rules.clear()
            self.lose(SMALL, 0, 1, 2)

        self.metadata.rules["add_version"] = vanish
        self.refused(Unavailable, self.store.copy(PutRequest("copy"), "small", None))
        self.assertEqual(self.versions("copy"), [])
