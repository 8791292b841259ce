"""Repairs: what is put back, where, when, and what is left alone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ostore.engine import mending
from ostore.model.errors import MetadataUnavailable, NodeUnreachable, ShardMissing
from ostore.model.placement import rank
from tests.engine.test_reading import ReadCase
from tests.support.engine import (
    MIB,
    fails,
    hangs,
    sha256,
    some_bytes,
)

SMALL, LARGE = some_bytes(70_000), some_bytes(3 * MIB + 7)


class MendCase(ReadCase):
    """Six or seven nodes with a small and a large content, mending at work."""

    def rise_with(self, nodes: int = 6, **options: Any) -> None:
        """Start, store, begin to mend."""
        super().rise_with(nodes, **options)
        self.run_(self.engine.mending.start())

    def read_all(self) -> None:
        """Read both, so that what is missing is met."""
        self.assert_reads(2.5)

    def assert_all_whole(self) -> None:
        """Both have six shards on six nodes, and nothing waits."""
        self.assert_whole(SMALL)
        self.assert_whole(LARGE)
        self.assertEqual(len(self.engine.repairs), 0)


class PlaceTests(MendCase):
    """Where a shard is rebuilt."""

    def test_own_node(self) -> None:
        """A lost or rotten shard is rebuilt on the node that had it."""
        self.rise_with(7)
        before = {i: rigs[0] for i, rigs in self.holders(LARGE).items()}
        self.lose(LARGE, 1)
        self.flip(LARGE, 2, 100)
        self.rigs[0].calls.clear()
        stream = self.open()
        self.rest(stream)
        self.pass_(2)
        self.assert_whole(LARGE)
        after = {i: rigs[0] for i, rigs in self.holders(LARGE).items()}
        self.assertIs(after[2], before[2])
        self.assertEqual(self.run_(self.get("large")), LARGE)
        self.assertEqual(self.engine.mending.mended, 2)

    def test_each_on_its_own(self) -> None:
        """What no read met, only the nodes themselves, is replaced where it lies too."""
        self.rise_with()
        before = {i: rigs[0] for i, rigs in self.holders(LARGE).items()}
        for pair in ((0, 3), (4, 1), (5, 2), (3, 4), (2, 0), (1, 5)):
            for index in pair:
                self.flip(LARGE, index, 0)
            self.engine.cluster.places.forget(sha256(LARGE))
            self.run_(self.reach("large"))
            self.pass_(2)
            self.assert_whole(LARGE)
            after = {i: rigs[0] for i, rigs in self.holders(LARGE).items()}
            self.assertEqual(after, before)
            for rig in self.rigs:
                self.assertEqual(len(rig.shards(sha256(LARGE))), 1)

    def test_best_rank(self) -> None:
        """What nobody has goes to the node of the highest rank that holds none of it."""
        self.rise_with(8, rebuild_delay=0.0)
        hash = sha256(SMALL)
        gone = self.holder(SMALL, 3)
        gone.go()
        self.pass_(16)
        self.assertEqual(self.run_(self.get("small"), 2), SMALL)
        self.pass_(5)
        live = [c for c in self.engine.cluster.candidates() if c.id != gone.id]
        others = {
            r.id for i, rigs in self.holders(SMALL).items() if i != 3 for r in rigs
        }
        free = [node for node in rank(hash, live) if node not in others]
        (new,) = (rig for rig in self.holders(SMALL)[3] if rig is not gone)
        self.assertEqual(new.id, free[0])

    def test_never_two_on_one(self) -> None:
        """With five nodes left no node gets a second shard; the sixth waits."""
        self.rise_with(rebuild_delay=0.0)
        self.holder(SMALL, 3).go()
        self.pass_(16)
        self.run_(self.get("small"))
        self.pass_(60)
        self.assertEqual([len(rig.shards(sha256(SMALL))) for rig in self.rigs], [1] * 6)
        self.assertEqual(len(self.engine.repairs), 1)
        self.assertEqual(self.engine.mending.mended, 0)

    def test_failing_target(self) -> None:
        """A target that fails is passed over by the next try."""
        for step in ("create", "sink.write", "sink.commit"):
            self.setUp()
            self.rise_with(8, rebuild_delay=0.0)
            self.holder(SMALL, 3).go()
            self.pass_(16)
            for rig in self.rigs:
                if not rig.shards(sha256(SMALL)):
                    rig.rules[step] = fails(NodeUnreachable("broken"))
                    break
            self.run_(self.get("small"))
            self.pass_(60)
            live = [r for r in self.holders(SMALL)[3] if not r.mouth.silent]
            self.assertEqual(len(live), 1)
            self.assertEqual(len(self.engine.repairs), 0)
            self.fall()


class WaitTests(MendCase):
    """When nothing is rebuilt."""

    def test_rebuild_delay(self) -> None:
        """The shards of a node that left are rebuilt only after the delay."""
        self.rise_with(7, rebuild_delay=100.0)
        gone = self.holder(SMALL, 0)
        gone.go()
        self.pass_(16)
        self.run_(self.get("small"))
        self.pass_(60)
        self.assertEqual(self.holders(SMALL)[0], [gone])
        self.pass_(120)
        self.assertEqual(len(self.holders(SMALL)[0]), 2)

    def test_it_comes_back(self) -> None:
        """A node that comes back in time ends the repair without a shard written."""
        self.rise_with(7, rebuild_delay=100.0)
        gone = self.holder(SMALL, 0)
        gone.go()
        self.pass_(16)
        self.run_(self.get("small"))
        self.pass_(30)
        gone.come_back()
        self.pass_(60)
        self.assertEqual(len(self.engine.repairs), 0)
        self.assertEqual(self.engine.mending.mended, 0)

    def test_unsure_forbids(self) -> None:
        """While any node cannot say what it holds, nothing is rebuilt."""
        self.rise_with(7, rebuild_delay=0.0)
        (idle,) = (rig for rig in self.rigs if not rig.shards(sha256(SMALL)))
        idle.rules["find"] = fails(NodeUnreachable("counting"))
        self.lose(SMALL, 3)
        self.run_(self.get("small"))
        self.pass_(60)
        self.assertNotIn(3, self.holders(SMALL))
        idle.come_back()
        self.pass_(120)
        self.assert_whole(SMALL)

    def test_unreferenced(self) -> None:
        """A content that no version names is not repaired."""
        self.rise_with()
        layout = self.run_(self.store.open("large")).version.layout
        assert layout is not None
        self.run_(self.store.purge("large", 1))
        self.lose(LARGE, 0)
        self.engine.repairs.found(sha256(LARGE), layout, {0: ""})
        self.pass_(10)
        self.assertNotIn(0, self.holders(LARGE))
        self.assertEqual(len(self.engine.repairs), 0)

    def test_unreferenced_meanwhile(self) -> None:
        """Nor is one that loses its last version while it is being rebuilt."""
        self.rise_with()
        self.lose(LARGE, 0)

        async def purge(*_: object) -> None:
            for rig in self.rigs:
                rig.rules.clear()
            await self.store.purge("large", 1)

        for rig in self.rigs:
            rig.rules["sink.write"] = purge
        self.run_(self.get("large"))
        self.pass_(10)
        self.assertNotIn(0, self.holders(LARGE))
        self.assertEqual(self.versions("large"), [])
        self.assertEqual(len(self.engine.repairs), 0)


class FaithTests(MendCase):
    """What a repair keeps and clears."""

    def test_age(self) -> None:
        """A rebuilt shard is as old as its oldest sibling."""
        self.rise_with()
        self.pass_(500)
        self.lose(SMALL, 2)
        rig = self.rigs[0]
        self.run_(self.get("small"))
        self.pass_(100)
        rig = self.holder(SMALL, 2)
        (facts,) = self.run_(rig.node.store.find(sha256(SMALL))).shards
        self.assertAlmostEqual(facts.age, self.time.seconds(), delta=1)

    def test_marks(self) -> None:
        """Marks go only when six shards were seen, and only those that were read."""
        self.rise_with()
        rig = self.rigs[0]
        rig.rules["put_small"] = fails(NodeUnreachable("broken"))
        content = some_bytes(99)
        self.run_(self.put(content, "one"))
        self.assertEqual(len(self.marks()), 1)
        rig.rules["create"] = fails(NodeUnreachable("broken"))
        self.pass_(20)
        self.assertEqual(len(self.marks()), 1)
        rig.come_back()
        self.pass_(60)
        self.assertEqual(self.marks(), [])
        self.assert_whole(content)

    def marks(self) -> list[tuple[str, str, int]]:
        """All degraded marks."""
        found = self.run_(self.metadata.degraded("", 1000))
        return [mark for each in found for mark in each.marks]

    def test_marks_of_what_was_found_meanwhile(self) -> None:
        """A mark that is set while a repair ends goes by the next census."""
        self.rise_with()
        rig = self.rigs[0]
        rig.rules["put_small"] = fails(NodeUnreachable("broken"))
        content = some_bytes(99)
        version = self.run_(self.put(content, "one"))
        rig.come_back()
        (index,) = version.degraded
        other = (index + 1) % 6
        seen: list[tuple[int, ...]] = []
        plan = self.engine.mending._plan

        def looked(*facts: Any) -> Any:
            """Behind the census that finds all of them another one is lost."""
            todo = plan(*facts)
            if todo.whole and not seen:
                self.lose(content, other)
                mark = self.engine.putting.referring.mark
                assert version.layout is not None
                present = set(range(6)) - {other}
                marking = mark(version, version.hash, version.layout, present)
                seen.append(self.run_(marking).degraded)
            elif todo.whole:
                seen.append(self.run_(self.metadata.version("", "one", 1)).degraded)
            return todo

        self.patch(self.engine.mending, "_plan", looked)
        self.pass_(60)
        both = tuple(sorted((index, other)))
        self.assertEqual(seen[:2], [both, both])
        self.assertEqual(self.marks(), [])
        self.assert_whole(content)

    def test_marks_of_another_life(self) -> None:
        """Marks that are read from the metadata are mended, page by page."""
        self.rise()
        self.patch(mending, "PAGE", 2)
        rig = self.rigs[0]
        rig.rules["put_small"] = fails(NodeUnreachable("broken"))
        contents = [some_bytes(50 + i) for i in range(7)]
        for number, content in enumerate(contents):
            self.run_(self.put(content, f"of {number}"))
        self.engine.repairs._waiting.clear()
        rig.come_back()
        self.pass_(6)
        self.run_(self.engine.mending.read_marks())
        self.assertEqual(len(self.engine.repairs), 7)
        self.run_(self.engine.mending.start())
        self.pass_(5)
        for content in contents:
            self.assert_whole(content)
        self.assertEqual(self.marks(), [])

    def test_liar(self) -> None:
        """A liar among the sources is exposed, and everything mended."""
        self.rise_with()
        liar = self.lie(LARGE, 1)
        self.lose(LARGE, 0)
        hash = sha256(LARGE)
        layout = self.run_(liar.node.store.find(hash)).shards[0].layout
        self.engine.repairs.found(hash, layout, {0: ""})
        self.pass_(30)
        self.assert_whole(LARGE)
        self.assertEqual(self.run_(self.get("large")), LARGE)
        self.assertEqual(liar.calls["mark_bad"], 1)

    def test_garbage(self) -> None:
        """What too few shards are left of is brought back from garbage."""
        self.rise_with()
        hash = sha256(SMALL)
        layout = None
        for rig in self.rigs[:4]:
            store = rig.node.store
            (facts,) = self.run_(store.find(hash)).shards
            layout = facts.layout
            token = self.run_(store.condemn(facts.key))
            self.run_(store.discard(facts.key, token))
        assert layout is not None
        self.rigs[5].rules["restore"] = fails(NodeUnreachable("gone"))
        self.engine.repairs.found(hash, layout, {0: ""})
        self.pass_(10)
        self.assert_all_whole()

    def test_other_layout(self) -> None:
        """Marks of a layout that died out go when another layout is whole."""
        self.rise_with()
        hash = sha256(SMALL)
        (facts,) = self.run_(self.rigs[0].node.store.find(hash)).shards
        lost = type(facts.layout)(2, 1, facts.layout.size, "e" * 32)
        self.engine.repairs.found(hash, lost, {0: ""})
        self.pass_(10)
        self.assertEqual(len(self.engine.repairs), 0)
        self.assertEqual(self.engine.mending.failed, 0)


class PaceTests(MendCase):
    """How fast."""

    def rise_paced(self) -> None:
        """With a pace that notes each step, and may be held."""
        self.steps: list[tuple[float, bool]] = []
        self.held: Deferred[None] | None = None

        async def pace(steps: float, *, urgent: bool = False) -> None:
            self.steps.append((steps, urgent))
            if self.held is not None:
                await self.held

        ReadCase.rise_with(self)
        self.run_(self.engine.mending.start(pace))

    def test_steps(self) -> None:
        """A step for each file, and for each MiB that is read or written."""
        self.rise_paced()
        self.lose(SMALL, 2)
        self.lose(LARGE, 5)
        self.read_all()
        self.pass_(5)
        self.assert_all_whole()
        whole, stripes = [(5, False)], [(1.25, False)] * 4
        self.assertEqual(sorted(self.steps), sorted([*whole, *whole, *stripes]))

    def test_held(self) -> None:
        """Nothing is written before its step may be taken."""
        self.rise_paced()
        self.held = Deferred()
        self.lose(LARGE, 5)
        self.read_all()
        self.pass_(5)
        self.assertEqual(len(self.steps), 1)
        self.assertEqual(len(self.holders(LARGE)), 5)
        release, self.held = self.held, None
        release.callback(None)
        self.pass_(5)
        self.assert_all_whole()

    def test_none_to_spare(self) -> None:
        """What the next loss would end is urgent."""
        self.rise_paced()
        self.lose(LARGE, 0)
        self.lose(LARGE, 5)
        self.read_all()
        self.pass_(5)
        self.assert_all_whole()
        self.assertEqual(self.steps, [(6, True), *[(1.5, True)] * 4])


class TroubleTests(MendCase):
    """Repairs that fail."""

    def test_does_not_block(self) -> None:
        """Repairs that hang or fail back off; the others go on."""
        self.rise_with(rebuild_delay=0.0)
        contents = [some_bytes(200 + i) for i in range(6)]
        for number, content in enumerate(contents):
            self.run_(self.put(content, f"of {number}"))
        stuck = {sha256(content) for content in contents[:3]}

        async def rule(hash: str) -> None:
            if hash in stuck:
                raise ZeroDivisionError("a defect")

        self.metadata.rules["content"] = rule
        for number, content in enumerate(contents):
            self.lose(content, 0)
            self.run_(self.get(f"of {number}"))
        self.pass_(3)
        for content in contents[3:]:
            self.assert_whole(content)
        self.assertEqual(len(self.engine.repairs), 3)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        tries = self.metadata.calls["content"]
        self.pass_(600)
        self.assertLess(self.metadata.calls["content"] - tries, 40)
        _ = self.flushLoggedErrors(ZeroDivisionError)
        self.metadata.rules.clear()
        self.pass_(600)
        for content in contents:
            self.assert_whole(content)

    def test_metadata_away(self) -> None:
        """A metadata store that fails at any moment of a repair is survived."""
        self.rise_with()
        for moment in (1, 2):
            self.lose(LARGE, 0)
            calls = 0

            def rule(*_: object) -> None:
                nonlocal calls
                calls += 1
                if calls == moment:  # noqa: B023 - used within this turn
                    raise MetadataUnavailable("away")

            self.metadata.rules["content"] = rule
            self.run_(self.get("large"))
            self.pass_(10)
            self.assertEqual(self.engine.mending.failed, moment)
            self.assert_whole(LARGE)

    def test_hanging_node(self) -> None:
        """A node that hangs under a repair is given up after a while."""
        self.rise_with(8, rebuild_delay=0.0)
        self.holder(LARGE, 3).go()
        self.pass_(16)
        idle = [rig for rig in self.rigs if not rig.shards(sha256(LARGE))]
        for rig in idle:
            rig.rules["sink.commit"] = hangs
        self.run_(self.get("large"), 2)
        self.pass_(32)
        self.assertEqual(self.engine.mending.failed, 1)
        for rig in idle:
            rig.come_back()
        self.pass_(60)
        self.assertEqual(len(self.engine.repairs), 0)

    def test_too_few_sources(self) -> None:
        """A repair whose sources fail is tried again later."""
        self.rise_with()
        layout = self.run_(self.store.open("small")).version.layout
        assert layout is not None
        self.lose(SMALL, 0)
        self.engine.repairs.found(sha256(SMALL), layout, {0: ""})
        for index in (1, 2):
            self.holder(SMALL, index).rules["open"] = fails(ShardMissing("no"))
        self.pass_(3)
        self.assertGreater(self.engine.mending.failed, 0)
        for rig in self.rigs:
            rig.come_back()
        self.pass_(30)
        self.assert_all_whole()

    def test_stop(self) -> None:
        """Stopping at any moment of a repair leaves no temporary and no timer."""
        for moment in range(12):
            self.setUp()
            self.rise_with()
            self.lose(LARGE, 0, 5)
            for rig in self.rigs:
                rig.disk.cached = False
                rig.workers.delay = 0.05
            self.run_(self.get("large"))
            self.pass_(moment * 0.07)
            self.run_(self.engine.mending.stop())
            for rig in self.rigs:
                self.assertEqual(rig.temporaries(), [])
            self.engine.repairs.found("0" * 64, self.layout(), {1: ""})
            self.fall()

    def layout(self) -> Any:
        """Any layout."""
        return self.run_(self.store.open("large")).version.layout

    def test_idle(self) -> None:
        """idle() waits until no repair is under way."""
        self.rise_with()
        gate: Deferred[None] = Deferred()
        self.metadata.rules["content"] = lambda *_: gate
        self.lose(LARGE, 0)
        self.run_(self.get("large"))
        running = self.begin(self.engine.mending.idle())
        self.turn()
        self.assertFalse(running.called)
        self.metadata.rules.clear()
        gate.callback(None)
        self.finish(running)
        self.assert_whole(LARGE)

    def test_stop_is_final(self) -> None:
        """After stop() nothing is mended."""
        self.rise_with()
        self.run_(self.engine.mending.stop())
        self.lose(LARGE, 0)
        self.run_(self.get("large"))
        self.engine.mending._wake()
        self.pass_(10)
        self.assertNotIn(0, self.holders(LARGE))
