"""Who is alive, who holds what, and whom to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError

from ostore.engine import answering, asking
from ostore.engine.store import ObjectStore
from ostore.interfaces import IShardStore
from ostore.model.census import Census
from ostore.model.errors import NodeUnreachable, NotFound, TooFewShards
from ostore.model.layouts import Layout
from ostore.model.messages import (
    API_TOPIC,
    DATA_TOPIC,
    LOCATES,
    Answer,
    Hello,
    Signer,
)
from ostore.model.nodes import Members
from tests.support.engine import (
    EngineCase,
    Rig,
    bus_away,
    fails,
    sha256,
    some_bytes,
)

CONTENT = some_bytes(5000)
HASH = sha256(CONTENT)


class ClusterCase(EngineCase):
    """Six nodes and one content."""

    def rise_with(self, nodes: int = 6, **options: Any) -> None:
        """Start and store it."""
        self.rise(nodes, **options)
        self.run_(self.put(CONTENT))
        self.cluster = self.engine.cluster

    def ask(self, seconds: float, **how: bool) -> Census:
        """The census of a locate that takes exactly so long."""
        before = self.time.seconds()
        census = self.run_(self.cluster.locate(HASH, **how))
        self.assertAlmostEqual(self.time.seconds() - before, seconds)
        return census

    def late(self, rig: Rig, seconds: float) -> None:
        """Its answers to locates come so much later."""
        rig.rules["find"] = lambda *_: self.clock.sleep(seconds)

    def without(self, *indices: int) -> list[Rig]:
        """The nodes with those shards."""
        return [self.holder(CONTENT, index) for index in indices]

    def suspects(self) -> list[str]:
        """Nodes that are suspect."""
        states = self.cluster.states()
        return [node for node, state in states.items() if state == "suspect"]


class LocateTests(ClusterCase):
    """When a locate ends."""

    def test_whole(self) -> None:
        """It ends when all shards are known; a seventh node is not waited for."""
        self.rise_with(7)
        (idle,) = (r for r in self.rigs if not r.shards(HASH))
        self.late(idle, 0.5)
        census = self.ask(0)
        self.assertTrue(census.whole())
        self.assertEqual(census.silent, {idle.id})
        self.pass_(2)
        self.assertEqual(self.suspects(), [])

    def test_new_content(self) -> None:
        """What nobody has costs no waiting: all say so."""
        self.rise_with()
        census = self.run_(self.cluster.locate("0" * 64), 0)
        self.assertTrue(census.certain)
        self.assertEqual(census.standings(), [])

    def test_together(self) -> None:
        """Two of one turn are one message: nodes say that they take such."""
        self.rise_with()
        running = [self.begin(self.cluster.locate(h)) for h in (HASH, "0" * 64)]
        known, new = (self.finish(each, 0) for each in running)
        self.assertTrue(known.whole())
        self.assertTrue(new.certain)
        for member in self.cluster.live():
            self.assertEqual(member.beat.capabilities, (LOCATES,))

    def test_last_answer(self) -> None:
        """Without all shards it ends with the last answer."""
        self.rise_with()
        self.lose(CONTENT, 5)
        self.late(self.rigs[3], 0.3)
        census = self.ask(0.3)
        self.assertTrue(census.certain)
        self.assertEqual(self.suspects(), [])

    def test_time_out(self) -> None:
        """Who lets the time-out pass is suspect, until a heartbeat is heard."""
        self.rise_with()
        (rig,) = self.without(2)
        self.late(rig, 3)
        census = self.ask(1.0)
        self.assertEqual(census.silent, {rig.id})
        self.assertEqual(self.suspects(), [rig.id])
        self.pass_(6)
        self.assertEqual(self.suspects(), [])

    def test_suspects(self) -> None:
        """A writer does not wait for suspects; a thorough asker does."""
        self.rise_with()
        (rig,) = self.without(2)
        self.late(rig, 0.4)
        self.cluster.suspect(rig.id)
        self.ask(0)
        self.assertTrue(self.ask(0.4, thorough=True).whole())

    def test_reader(self) -> None:
        """A reader ends 20 ms after k are known, or with the last answer before."""
        self.rise_with()
        one, other = self.without(1, 4)
        self.late(one, 0.5)
        self.late(other, 0.5)
        census = self.ask(0.02, reading=True)
        self.assertEqual(census.silent, {one.id, other.id})
        self.late(one, 0.005)
        self.late(other, 0.01)
        self.assertTrue(self.ask(0.01, reading=True).whole())
        self.pass_(2)
        self.assertEqual(self.suspects(), [])

    def test_reader_needs_suspects(self) -> None:
        """A reader with fewer than k known waits for suspects as well."""
        self.rise_with()
        rigs = self.without(1, 3, 4)
        for rig in rigs:
            self.late(rig, 0.3)
            self.cluster.suspect(rig.id)
        census = self.ask(0.3, reading=True)
        self.assertTrue(census.readable())

    def test_reader_time_out(self) -> None:
        """And gives up at the time-out."""
        self.rise_with()
        for rig in self.without(1, 3, 4):
            self.late(rig, 2)
        self.assertFalse(self.ask(1.0, reading=True).readable())
        self.assertEqual(len(self.suspects()), 3)

    def test_unsure(self) -> None:
        """A node whose disk fails says unsure, not none."""
        self.rise_with()
        (rig,) = self.without(0)
        rig.rules["find"] = fails(NodeUnreachable("broken"))
        census = self.ask(0)
        self.assertEqual(census.unsure, {rig.id})

    def test_bus_away(self) -> None:
        """Without a bus the census is empty, at once, and nobody is suspect."""
        self.rise_with()
        self.patch(self.voice, "publish", bus_away)
        census = self.ask(0)
        self.assertEqual((census.answers, len(census.silent)), ({}, 6))
        self.assertEqual(self.suspects(), [])
        self.run_(self.cluster._hello())

    def test_nodes_without_a_bus(self) -> None:
        """A node that cannot reach the bus goes on, and is heard when it is back."""
        self.rise_with()
        rig = self.rigs[0]
        publish = self.patch(rig.mouth, "publish", bus_away)
        send = self.patch(rig.mouth, "send", bus_away)
        self.ask(1.0)
        self.pass_(12)
        self.assertEqual(self.cluster.states()[rig.id], "down")
        publish.restore()
        send.restore()
        self.pass_(6)
        self.assertEqual(self.cluster.states()[rig.id], "up")

    def test_nobody(self) -> None:
        """Without live nodes nothing is asked."""
        self.rise_with()
        for rig in self.rigs:
            rig.go()
        self.pass_(16)
        before = self.cluster.locates
        self.assertEqual(self.ask(0).asked, frozenset())
        self.assertEqual(self.cluster.locates, before)

    def test_stop(self) -> None:
        """Stopping ends what is under way with what is known."""
        self.rise_with()
        for rig in self.without(0, 1):
            self.late(rig, 0.5)
        running = self.begin(self.cluster.locate(HASH))
        self.turn()
        self.run_(self.cluster.stop())
        census = self.finish(running, 0)
        self.assertEqual(len(census.answers), 4)
        self.assertEqual(self.suspects(), [])

    def test_cancelled(self) -> None:
        """One whose asker leaves is forgotten."""
        self.rise_with()
        self.late(self.rigs[0], 0.5)
        running = self.begin(self.cluster.locate(HASH))
        self.turn()
        running.cancel()
        self.assertRaises(CancelledError, self.finish, running)
        self.assertEqual(self.cluster._asking._asks, {})


class NearTests(LocateTests):
    """The same when every node is near: each is asked itself, nobody on the bus."""

    def rise_with(self, nodes: int = 6, **options: Any) -> None:
        """Start and store it; from then on the bus only tells who is alive."""
        super().rise_with(nodes, **options)
        self.patch(self.cluster, "_near", lambda _: True)
        self.published = self.watched(self.voice, "publish")

    def watched(self, owner: Any, name: str) -> list[str]:
        """The topics of what is published."""
        topics: list[str] = []
        publish = getattr(owner, name)

        def noted(topic: str, *more: Any) -> Any:
            topics.append(topic)
            return publish(topic, *more)

        self.patch(owner, name, noted)
        return topics

    def tearDown(self) -> None:
        """No locate went over the bus while it was up."""
        super().tearDown()
        self.assertNotIn(DATA_TOPIC, self.published)

    def test_bus_away(self) -> None:
        """Nodes are not asked while nobody knows which there are."""
        self.rise_with()
        self.patch(self.voice, "up", False)
        self.patch(self.voice, "publish", bus_away)
        census = self.ask(0)
        self.assertEqual((census.answers, len(census.silent)), ({}, 6))

    def test_nodes_without_a_bus(self) -> None:
        """A node that cannot reach the bus is asked until it is down."""
        self.rise_with()
        rig = self.rigs[0]
        self.patch(rig.mouth, "publish", bus_away)
        self.assertTrue(self.ask(0).whole())
        self.pass_(16)
        self.assertNotIn(rig.id, self.ask(0).asked)

    def test_refused(self) -> None:
        """A node that cannot be reached is suspect at once, and nobody waits for it."""
        self.rise_with()
        (rig,) = self.without(2)
        self.patch(self.nodes, "store", self.refusing(rig.id))
        census = self.ask(0)
        self.assertEqual(census.unsure, {rig.id})
        self.assertEqual(self.suspects(), [rig.id])

    def refusing(self, node: str) -> Callable[[str], IShardStore]:
        """A way to all nodes but that one."""
        store = self.nodes.store

        def reach(wanted: str) -> IShardStore:
            if wanted == node:
                raise NodeUnreachable("refused")
            return store(wanted)

        return reach

    def test_one_is_far(self) -> None:
        """When one of them is not near, all are asked on the bus."""
        self.rise_with()
        far = self.rigs[3].id
        self.patch(self.cluster, "_near", lambda node: node != far)
        self.assertTrue(self.ask(0).whole())
        self.assertIn(DATA_TOPIC, self.published)
        self.published.clear()


class MessageTests(ClusterCase):
    """What comes over the bus."""

    def answer(self, number: str, node: str) -> Answer:
        """That node has everything."""
        layout = Layout(4, 2, 5000, "f" * 32)
        shards = tuple((index, layout) for index in range(6))
        return Answer(id=number, node=node, state="have", shards=shards)

    def test_strangers(self) -> None:
        """A node that was never heard is not believed, and counted."""
        self.rise_with()
        self.late(self.rigs[0], 0.2)
        running = self.begin(self.cluster.locate(HASH))
        self.turn()
        ((number, _),) = self.cluster._asking._sent
        stranger = self.signer.seal(self.answer(number, "e" * 32))
        self.cluster._asking._heard(stranger)
        self.assertEqual(self.cluster.dropped, 1)
        census = self.finish(running)
        self.assertNotIn("f" * 32, [s.layout.id for s in census.standings()])

    def test_late_answers(self) -> None:
        """An answer to a locate that is over changes nothing."""
        self.rise_with()
        census = self.run_(self.cluster.locate(HASH))
        before = dict(census.answers)
        for number in ("0" * 32, "1" * 32):
            sealed = self.signer.seal(self.answer(number, self.rigs[0].id))
            self.cluster._asking._heard(sealed)
        self.assertEqual(census.answers, before)

    def test_bad_messages(self) -> None:
        """Malformed and wrongly signed messages are dropped and counted, by all."""
        self.rise_with()
        foreign = Signer([b"another secret of some thirty-two characters"])
        known = self.rigs[0]
        beat = attrs.evolve(known.member._beat(), node="e" * 32)
        bodies = [b"", b"\xff", b"{}", foreign.seal(beat), foreign.seal(Hello("x"))]
        nodes = set(self.cluster.states())
        for count, body in enumerate(bodies, 1):
            self.cluster._heard(body, "")
            self.cluster._asking._heard(body)
            known.member._announcer._asked(body, "")
            self.assertEqual(self.cluster.dropped, 2 * count)
            self.assertEqual(known.member._announcer.dropped, count)
        self.assertEqual(set(self.cluster.states()), nodes)

    def test_wrong_place(self) -> None:
        """A message of a kind that has no business there is counted too."""
        self.rise_with()
        hello = self.signer.seal(Hello("x"))
        self.cluster._heard(hello, "")
        self.cluster._asking._heard(hello)
        self.assertEqual(self.cluster.dropped, 2)

    def test_heartbeat_once(self) -> None:
        """A heartbeat that is played again does not keep a node alive."""
        self.rise_with()
        rig = self.rigs[0]
        beat = self.signer.seal(rig.member._beat())
        rig.go()
        for _ in range(4):
            self.run_(self.voice.publish(API_TOPIC, beat))
            self.pass_(4)
        self.assertEqual(self.cluster.states()[rig.id], "down")

    def test_too_many_answers(self) -> None:
        """A node answers a bounded number of locates at once."""
        self.rise_with()
        rig = self.rigs[0]
        rig.workers.hanging = True
        looking = rig.member._announcer._answering
        for _ in range(5):
            _ = self.begin(self.cluster.locate(HASH))
        self.turn()
        self.assertEqual(looking._looking, 5)
        self.patch(answering, "MAX_ANSWERS", 5)
        _ = self.begin(self.cluster.locate(HASH))
        self.turn()
        self.assertEqual(looking._looking, 5)
        self.pass_(2)


class ViewTests(ClusterCase):
    """What a cluster knows of itself."""

    def test_hello(self) -> None:
        """At its start it asks for heartbeats and has them at once."""
        self.rise()
        self.assertEqual(len(self.engine.cluster.live()), 6)
        self.assertEqual(self.time.seconds(), 0)

    def test_settled(self) -> None:
        """With expected nodes: when all were heard; otherwise after one period."""
        self.rise()
        cluster = self.engine.cluster
        self.assertTrue(cluster.settled)
        cluster._expected = frozenset({*cluster._expected, "e" * 32})
        self.assertFalse(cluster.settled)
        cluster._expected = frozenset()
        self.assertFalse(cluster.settled)
        self.pass_(5)
        self.assertTrue(cluster.settled)

    def test_settled_without_a_bus(self) -> None:
        """Time without a bus does not count: nobody could have spoken."""
        self.rise()
        cluster = self.engine.cluster
        cluster._expected = frozenset()
        self.pass_(60)
        self.assertTrue(cluster.settled)
        cluster._resume(60.0)
        self.assertFalse(cluster.settled)
        self.pass_(4.9)
        self.assertFalse(cluster.settled)
        self.pass_(0.1)
        self.assertTrue(cluster.settled)
        cluster._resume(4.9)
        self.assertTrue(cluster.settled)

    def test_bus_comes_back(self) -> None:
        """After a long silence of the bus all nodes count as there, and are asked."""
        self.rise_with()
        ours = self.engine.cluster._bus
        self.run_(ours.stop())
        self.pass_(60)
        self.assertEqual(self.cluster.live(), [])
        heard = []
        self.rigs[0].go()
        hello = self.cluster._hello

        async def asking() -> None:
            heard.append(len(self.cluster.live()))
            await hello()

        self.cluster._hello = asking  # type: ignore[method-assign]  # looked at in passing
        self.run_(ours.start())
        self.pass_(0)
        self.assertEqual(heard, [6])
        self.pass_(9.9)
        self.assertEqual(len(self.cluster.live()), 6)
        self.pass_(0.2)
        self.assertEqual(len(self.cluster.live()), 5)

    def test_bus_comes_late(self) -> None:
        """Started before its bus, it says hello as soon as that is up."""
        self.rise()
        cluster = self.engine.cluster
        ours = cluster._bus
        self.run_(ours.stop())
        cluster.members = Members(10.0)
        cluster._hearing = None
        self.run_(cluster.start())
        self.assertFalse(cluster.settled)
        self.run_(ours.start())
        self.pass_(0)
        self.assertEqual(len(cluster.live()), 6)

    def test_quiet_since(self) -> None:
        """How long the last node to leave has been silent; None when none is gone."""
        self.rise()
        cluster = self.engine.cluster
        self.assertIsNone(cluster.quiet_since())
        self.rigs[0].go()
        self.pass_(15)
        quiet = cluster.quiet_since()
        assert quiet is not None
        self.assertTrue(10 < quiet <= 15)
        self.assertEqual(cluster.heard_ago(self.rigs[0].id), quiet)
        # Of another cluster: nobody waits for what it may hold.
        cluster._belongs = lambda beat: beat.node != self.rigs[0].id
        self.assertIsNone(cluster.quiet_since())

    def test_survey(self) -> None:
        """A survey asks every live node itself; silence and errors are unsure."""
        self.rise_with()
        self.rigs[0].rules["find"] = fails(NodeUnreachable("broken"))
        self.rigs[1].workers.hanging = True
        census = self.run_(self.cluster.survey(HASH), 5.0)
        self.assertEqual(census.unsure, {self.rigs[0].id, self.rigs[1].id})
        self.assertEqual(census.silent, frozenset())
        self.rigs[2].rules["find"] = fails(ZeroDivisionError("a defect"))
        self.refused(ZeroDivisionError, self.cluster.survey(HASH))

    def test_too_many_asks(self) -> None:
        """Beyond a limit a locate is as if the bus were away."""
        self.rise_with()
        self.patch(asking, "MAX_ASKS", 1)
        self.late(self.rigs[0], 0.5)
        running = self.begin(self.cluster.locate("0" * 64))
        self.turn()
        self.assertEqual(self.ask(0).answers, {})
        self.finish(running)


class StoreTests(ClusterCase):
    """What the store says about it all."""

    def test_locate(self) -> None:
        """Every shard has its place; an unknown content is a 404."""
        self.rise_with()
        places: Mapping[int, str] = self.run_(self.store.locate(HASH))
        self.assertEqual(sorted(places), list(range(6)))
        self.assertEqual(len(set(places.values())), 6)
        self.refused(NotFound, self.store.locate("0" * 64))

    def test_locate_unsure(self) -> None:
        """While a node is silent or unsure there is no 404."""
        self.rise_with()
        rig = self.rigs[0]
        for rule in (fails(NodeUnreachable("broken")), lambda *_: self.clock.sleep(3)):
            rig.rules["find"] = rule
            self.refused(TooFewShards, self.store.locate("0" * 64))
        for rig in self.rigs:
            rig.go()
        self.pass_(16)
        self.refused(TooFewShards, self.store.locate("0" * 64))

    def test_readiness(self) -> None:
        """Ready, unless brakes, metadata or too few nodes say otherwise."""
        self.rise()
        self.assertEqual(self.run_(self.store.reasons()), [])
        for rig in self.rigs[:2]:
            rig.go()
        self.pass_(16)
        self.patch(self.metadata.inner, "health", self.sick)
        self.store._brakes = lambda: ["cluster: no"]
        self.assertEqual(
            self.run_(self.store.reasons()),
            [
                "cluster: no",
                "metadata: ill",
                "nodes: 4 can take shards, a write needs 5",
            ],
        )

    async def sick(self) -> str:
        """The metadata does not feel well."""
        return "ill"

    def test_view_and_figures(self) -> None:
        """The view names every node and its state; figures are numbers."""
        self.rise_with()
        self.rigs[0].go()
        self.pass_(16)
        view = self.store.view()
        states = {each["id"]: each["state"] for each in view["nodes"]}
        self.assertEqual(states.pop(self.rigs[0].id), "down")
        self.assertEqual(set(states.values()), {"up"})
        self.assertEqual(view["repairs"], {"waiting": 0, "worst": None})
        self.assertEqual(self.store.figures()["ostore_nodes_live"], 5)

    def test_verbs(self) -> None:
        """Delete, open, purge and the listings as the metadata has them."""
        self.rise_with()
        store: ObjectStore = self.store
        self.run_(store.delete("name"))
        self.refused(NotFound, store.open("name"))
        self.refused(NotFound, store.open("other"))
        self.refused(NotFound, store.open("name", 7))
        self.refused(NotFound, store.delete("name"))
        self.assertEqual(self.run_(store.open("name", 1)).version.hash, HASH)
        self.refused(NotFound, store.purge("name", 9))
        self.run_(store.purge("name", 2))
        page = self.run_(store.objects("", "", "", 10))
        self.assertEqual([v.number for v in page.items], [1])
        everything = self.run_(store.all_versions(("", 0), 10))
        self.assertEqual([(v.name, v.number) for v in everything], [("name", 1)])
