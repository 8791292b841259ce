"""PUT: everything or nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.referring import PutRequest
from ostore.erasure.geometry import Geometry
from ostore.model.conditions import WriteCondition
from ostore.model.errors import (
    AlreadyExists,
    ClientGone,
    DigestMismatch,
    MetadataUnavailable,
    NodeFull,
    NodeUnreachable,
    NoSpace,
    OutcomeUnknown,
    Refused,
    TooFewNodes,
    Unavailable,
)
from ostore.model.versions import Version
from tests.support.engine import (
    MIB,
    EngineCase,
    Pieces,
    Rig,
    fails,
    hangs,
    sha256,
    some_bytes,
)

SIZES = (0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7)
SMALL, LARGE = some_bytes(1000), some_bytes(2 * MIB + 9)


class PlainTests(EngineCase):
    """When all goes well."""

    def test_sizes(self) -> None:
        """Contents of every size around a stripe are kept in six shards and read back."""
        self.rise()
        for size in SIZES:
            content = some_bytes(size, 7)
            version = self.run_(self.put(content, f"of {size}"), 0)
            self.assertEqual((version.size, version.hash), (size, sha256(content)))
            self.assertEqual(version.degraded, ())
            self.assert_whole(content)
            self.assertEqual(self.run_(self.get(f"of {size}"), 0.1), content)

    def test_chunking(self) -> None:
        """However the body is cut, the layout is the same: the second PUT adds no shard."""
        self.rise()
        content = some_bytes(2 * MIB + 100)
        self.run_(self.put(content))

        @settings(deadline=None, max_examples=15)
        @given(st.lists(st.integers(1, len(content) - 1), max_size=12, unique=True))
        def cut(marks: list[int]) -> None:
            ends = [0, *sorted(marks), len(content)]
            pieces = (content[a:b] for a, b in pairwise(ends))
            version = self.run_(self.store.put(PutRequest("name"), Pieces(pieces)))
            self.assertEqual(version.hash, sha256(content))
            self.assert_whole(content)

        cut()

    def test_nothing_named_before_the_end(self) -> None:
        """While the body comes in nothing bears a name; temporaries are all there is."""
        self.rise()
        waiting: Deferred[bytes] = Deferred()

        class Slow(Pieces):
            async def read(self) -> bytes:
                return await super().read() or await waiting

        running = self.begin(
            self.store.put(PutRequest("name"), Slow([LARGE[:MIB], LARGE[MIB:]]))
        )
        self.turn()
        for rig in self.rigs:
            self.assertEqual(len(rig.temporaries()), 1)
            self.assertEqual(rig.disk.tree("/data/objects"), [])
        self.assertEqual(self.versions(), [])
        waiting.callback(b"")
        self.assertEqual(self.finish(running).number, 1)
        self.assert_whole(LARGE)

    def test_small_is_straight(self) -> None:
        """Up to a stripe: one put_small a node, no temporaries."""
        self.rise()
        self.run_(self.put(some_bytes(MIB)))
        for rig in self.rigs:
            self.assertEqual((rig.calls["put_small"], rig.calls["create"]), (1, 0))


class RefusedTests(EngineCase):
    """What is not stored leaves nothing behind."""

    def test_digest(self) -> None:
        """A body that differs from its digest leaves no version and no file."""
        self.rise()
        for content in (b"", SMALL, LARGE):
            self.refused(DigestMismatch, self.put(content, digest="0" * 64))
            self.assert_nothing()

    def test_client_gone(self) -> None:
        """A body that ends in an error leaves nothing."""
        self.rise()
        for content in (SMALL, LARGE):
            body = Pieces([content], ClientGone("gone"))
            self.refused(ClientGone, self.store.put(PutRequest("name"), body))
            self.assert_nothing()

    def test_cancelled(self) -> None:
        """A PUT cancelled at any moment of its body leaves nothing."""
        self.rise()
        for rig in self.rigs:
            rig.workers.delay = 0.1
        for moment in range(12):
            running = self.begin(self.put(LARGE))
            self.pass_(moment * 0.05)
            running.cancel()
            self.assertRaises((CancelledError, Unavailable), self.finish, running)
            self.pass_(5)
            self.assertEqual([rig.temporaries() for rig in self.rigs], [[]] * 6)
            self.assertEqual([rig.open_files() for rig in self.rigs], [[]] * 6)
            self.assertEqual(self.engine.putting.writing.budget.lent, 0)

    def test_too_few_nodes(self) -> None:
        """With fewer live nodes than the quorum the body is not even read."""
        self.rise()
        for rig in self.rigs[:2]:
            rig.go()
        self.pass_(16)
        body = Pieces([SMALL])
        self.refused(TooFewNodes, self.store.put(PutRequest("name"), body))
        self.assertEqual(body.reads, 0)

    def test_quorum_lost(self) -> None:
        """Two nodes that fail at any step: 503, nothing named by a version."""
        self.rise()
        for step in ("create", "sink.write", "sink.commit"):
            for rig in self.rigs[:2]:
                rig.rules[step] = fails(NodeUnreachable("broken"))
            self.refused(TooFewNodes, self.put(LARGE))
            self.assertEqual(self.versions(), [])
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)
        for rig in self.rigs[:2]:
            rig.rules["put_small"] = fails(NodeUnreachable("broken"))
        self.refused(TooFewNodes, self.put(SMALL))
        self.assertEqual(self.versions(), [])

    def test_full(self) -> None:
        """Nodes that fill up while it is written: 507."""
        self.rise()
        for rig in self.rigs:
            for step in ("create", "put_small"):
                rig.rules[step] = fails(NodeFull("full"))
        for content in (SMALL, LARGE):
            self.refused(NoSpace, self.put(content))
            self.assert_nothing()

    def test_condition_first(self) -> None:
        """A condition that fails already is told before the body is read."""
        self.rise()
        self.run_(self.put(SMALL))
        body = Pieces([SMALL])
        asked = PutRequest("name", condition=WriteCondition(create_only=True))
        self.refused(AlreadyExists, self.store.put(asked, body))
        self.assertEqual(body.reads, 0)

    def test_authorize(self) -> None:
        """Every verb asks whether it may, and does nothing when it may not."""
        self.rise()
        self.run_(self.put(SMALL))
        asked: list[tuple[str, ...]] = []

        class No(Exception):
            pass

        def authorize(*words: str) -> None:
            asked.append(words)
            raise No

        self.store._authorize = authorize
        verbs: dict[str, Callable[[], object]] = {
            "put": lambda: self.refused(No, self.put(SMALL)),
            "get": lambda: self.refused(No, self.store.open("name")),
            "delete": lambda: self.refused(No, self.store.delete("name")),
            "purge": lambda: self.refused(No, self.store.purge("name", 1)),
            "list": lambda: self.refused(No, self.store.objects("", "", "", 9)),
            "list ": lambda: self.refused(No, self.store.versions_of("name", 0, 9)),
            "list  ": lambda: self.refused(No, self.store.all_versions(("", 0), 9)),
            "locate": lambda: self.refused(No, self.store.locate("0" * 64)),
        }
        for verb, call in verbs.items():
            call()
            self.assertEqual(asked.pop()[:3], ("", verb.strip(), ""))
        self.store._authorize = lambda *_: None
        self.assertEqual(self.versions(), [1])


class DegradedTests(EngineCase):
    """A write that not every node took part in."""

    def assert_degraded(self, content: bytes, rig: Rig) -> None:
        """Five shards are there, the mark says which is not; then it is mended."""
        (mark,) = self.run_(self.metadata.degraded("", 10))
        self.assertEqual(mark.hash, sha256(content))
        self.assertEqual(len(mark.missing), 1)
        self.assertNotIn(mark.missing[0], self.holders(content))
        rig.come_back()
        rig.workers.release()
        self.pass_(6)
        self.run_(self.engine.mending.start())
        self.run_(self.engine.mending.read_marks())
        self.pass_(10)
        self.assert_whole(content)
        self.assertEqual(self.run_(self.metadata.degraded("", 10)), [])
        self.assertEqual(self.run_(self.get()), content)

    def test_failing(self) -> None:
        """One of six nodes fails at any step: stored, marked, mended, unmarked."""
        for step, content in (
            ("create", LARGE),
            ("sink.write", LARGE),
            ("sink.commit", LARGE),
            ("put_small", SMALL),
        ):
            self.setUp()
            self.rise()
            rig = self.rigs[2]
            rig.rules[step] = fails(NodeUnreachable("broken"))
            version = self.run_(self.put(content), 0)
            self.assertEqual(len(version.degraded), 1)
            self.assertEqual(self.engine.putting.writing.given_up, 1)
            self.assertIn(rig.id, self.suspects())
            self.assert_degraded(content, rig)
            self.fall()

    def suspects(self) -> list[str]:
        """Nodes that are suspect."""
        states = self.engine.cluster.states()
        return [node for node, state in states.items() if state == "suspect"]

    def test_hanging(self) -> None:
        """One that hangs at any step is left out after `laggard`, and not waited for."""
        for step, content in (
            ("create", LARGE),
            ("sink.write", LARGE),
            ("sink.commit", LARGE),
            ("put_small", SMALL),
        ):
            self.setUp()
            self.rise()
            rig = self.rigs[4]
            rig.rules[step] = hangs
            version = self.run_(self.put(content), 1.0)
            self.assertEqual(len(version.degraded), 1)
            self.assertEqual(rig.temporaries(), [])
            self.assert_degraded(content, rig)
            self.fall()

    def test_hanging_disk(self) -> None:
        """A disk that hangs in the middle delays a PUT by the time-outs, no more."""
        for moment in (0.0, 0.1, 0.3, 0.5, 0.7):
            self.setUp()
            self.rise()
            for each in self.rigs:
                each.workers.delay = 0.05
            rig = self.rigs[1]
            running = self.begin(self.put(some_bytes(3 * MIB)))
            self.pass_(moment)
            rig.workers.hanging = True
            version = self.finish(running, 4.0)
            rig.workers.release()
            self.pass_(5)
            self.assertEqual(rig.temporaries(), [])
            self.assertEqual(rig.open_files(), [])
            self.assertEqual(version.number, 1)
            self.fall()

    def test_five_nodes(self) -> None:
        """Five live nodes take five shards and a mark."""
        self.rise()
        self.rigs[0].go()
        self.pass_(16)
        for content in (SMALL, LARGE):
            version = self.run_(self.put(content), 0)
            self.assertEqual(version.degraded, (5,))

    def test_spare_node(self) -> None:
        """With seven nodes one that cannot open a temporary is replaced at once."""
        self.rise(7)
        for rig in self.rigs[:3]:
            rig.rules["create"] = fails(NodeUnreachable("broken"))
            version = self.run_(self.put(LARGE), 0)
            self.assertEqual(version.degraded, ())
            rig.come_back()
            self.pass_(6)
            self.run_(self.store.purge("name", version.number))


class CutOffTests(EngineCase):
    """Shards that the second renewal misses, while the quorum stands."""

    def cut_off(self, *indices: int, content: bytes = SMALL) -> list[Rig]:
        """Nodes that go out of reach while the next version is written."""
        rigs = [self.holder(content, index) for index in indices]

        def rule(*_: object) -> None:
            del self.metadata.rules["add_version"]
            for rig in rigs:
                rig.rules["renew"] = fails(NodeUnreachable("cut off"))

        self.metadata.rules["add_version"] = rule
        return rigs

    def holder(self, content: bytes, index: int) -> Rig:
        """The node that has that shard."""
        (node,) = (self.run_(self.store.locate(sha256(content)))[index],)
        return next(rig for rig in self.rigs if self.nodes.place(rig.id) == node)

    def said(self, version: Version) -> tuple[int, ...]:
        """What the metadata says that it lacks."""
        found = self.run_(self.metadata.version("", version.name, version.number))
        degraded: tuple[int, ...] = found.degraded
        return degraded

    def assert_queued(self, content: bytes, *indices: int) -> None:
        """A repair of these shards waits."""
        (repair,) = self.engine.repairs._waiting.values()
        self.assertEqual(repair.hash, sha256(content))
        self.assertEqual(sorted(repair.spots), list(indices))

    def test_known(self) -> None:
        """A version of a known content says so, behind what it said already."""
        for content in (SMALL, LARGE):
            self.setUp()
            self.rise()
            self.run_(self.put(content, "one"))
            (rig,) = self.cut_off(3, content=content)
            version = self.run_(self.put(content, "two"), 0)
            self.assertEqual((version.degraded, self.said(version)), ((3,), (3,)))
            self.assert_queued(content, 3)
            self.engine.repairs._waiting.clear()  # as when the service dies
            rig.come_back()
            self.pass_(6)
            self.run_(self.engine.mending.start())
            self.run_(self.engine.mending.read_marks())
            self.pass_(5)
            self.assertEqual(self.said(version), ())
            self.assert_whole(content)
            self.fall()

    def test_known_and_degraded(self) -> None:
        """It is added to what was missing when it was written."""
        self.rise(write_quorum=4)
        self.run_(self.put(SMALL, "one"))
        self.cut_off(3)
        self.lose(SMALL, 1)
        version = self.run_(self.put(SMALL, "two"), 2)
        self.assertEqual((version.degraded, self.said(version)), ((1, 3), (1, 3)))
        self.assert_queued(SMALL, 1, 3)

    def test_new(self) -> None:
        """So does one of a new content that took long to be written."""
        self.rise(orphan_grace=1.0)
        for content in (SMALL, LARGE):

            async def slow(*_: object, content: bytes = content) -> None:
                del self.metadata.rules["add_version"]
                await self.clock.sleep(0.5)
                rig = self.holder(content, 2)
                rig.rules["renew"] = fails(NodeUnreachable("cut off"))

            self.metadata.rules["add_version"] = slow
            version = self.run_(self.put(content, f"of {len(content)}"))
            self.assertEqual((version.degraded, self.said(version)), ((2,), (2,)))
            self.assert_queued(content, 2)
            self.engine.repairs._waiting.clear()
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)

    def test_stored_again(self) -> None:
        """So does one whose content was stored again on fewer nodes than all."""
        self.rise()
        for content in (SMALL, LARGE):
            self.run_(self.put(content, "one"))
            rig = self.holder(content, 4)
            self.cut_off(4, 5, content=content)
            rig.rules["put_small"] = rig.rules["create"] = fails(NodeUnreachable("x"))
            version = self.run_(self.put(content, f"of {len(content)}"))
            self.assertEqual(len(version.degraded), 1)
            self.assertEqual(self.said(version), version.degraded)
            self.assert_queued(content, *version.degraded)
            self.engine.repairs._waiting.clear()
            for each in self.rigs:
                each.come_back()
            self.pass_(6)

    def test_marked_later(self) -> None:
        """What the metadata refuses is tried again."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        for error in (MetadataUnavailable("away"), OutcomeUnknown("lost")):
            self.cut_off(3)
            left: list[Exception] = [error, error]

            def rule(*_: object, left: list[Exception] = left) -> None:
                if left:
                    raise left.pop()

            self.metadata.rules["mark_degraded"] = rule
            version = self.run_(self.put(SMALL, "two"))
            self.assertEqual((version.degraded, self.said(version)), ((3,), (3,)))
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)

    def test_never_marked(self) -> None:
        """Without an answer the write is acknowledged after 10 s: the quorum stands."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        for rule in (fails(MetadataUnavailable("away")), hangs):
            self.cut_off(3)
            self.metadata.rules["mark_degraded"] = rule
            before = self.time.seconds()
            version = self.run_(self.put(SMALL, "two"))
            self.assertIn(round(self.time.seconds() - before, 2), (9.75, 10.0))
            self.assertEqual((version.degraded, self.said(version)), ((), ()))
            self.assert_queued(SMALL, 3)
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)

    def test_client_gone(self) -> None:
        """A client that leaves meanwhile takes neither the mark nor the repair away."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        self.cut_off(3)
        self.metadata.rules["mark_degraded"] = lambda *_: self.clock.sleep(1)
        running = self.begin(self.put(SMALL, "two"))
        self.pass_(0.5)
        running.cancel()
        self.assertRaises(CancelledError, self.finish, running)
        self.assert_queued(SMALL, 3)
        self.pass_(1)
        (version,) = self.run_(self.store.versions_of("two", 0, 9))
        self.assertEqual(version.degraded, (3,))

    def test_another_version_of_the_put_id(self) -> None:
        """A version that the put_id made before, of another content, is left alone."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        self.cut_off(3)
        cut = self.metadata.rules["add_version"]
        first = PutRequest("two", put_id="a" * 32)

        async def meanwhile(*_: object) -> None:
            del self.metadata.rules["add_version"]
            await self.store.put(first, Pieces([b"other"]))
            self.metadata.rules["add_version"] = cut
            cut()

        self.metadata.rules["add_version"] = meanwhile
        version = self.run_(self.put(SMALL, "two", put_id="a" * 32))
        self.assertEqual((version.hash, version.degraded), (sha256(b"other"), ()))
        self.assert_queued(SMALL, 3)


class KnownTests(EngineCase):
    """A content that is there already."""

    def test_renewed_twice(self) -> None:
        """It is renewed before and after the metadata write, and stored no second time."""
        self.rise()
        order: list[str] = []
        for content in (SMALL, LARGE):
            self.run_(self.put(content, "one"))
            before = [rig.calls["renew"] for rig in self.rigs]
            order.clear()
            for rig in self.rigs:
                rig.rules["renew"] = lambda *_: order.append("renew")
                rig.rules["sink.commit"] = rig.rules["put_small"] = fails(
                    AssertionError("stored again")
                )
            self.metadata.rules["add_version"] = lambda *_: order.append("write")
            self.run_(self.put(content, "two"), 0)
            self.assertEqual(order, ["renew"] * 6 + ["write"] + ["renew"] * 6)
            after = [rig.calls["renew"] for rig in self.rigs]
            self.assertEqual([b + 2 for b in before], after)
            for rig in self.rigs:
                rig.come_back()
            self.metadata.rules.clear()
            self.assert_whole(content)

    def test_first_renewal_short(self) -> None:
        """Fewer than the quorum at the first renewal: it is stored again."""
        self.rise()
        for content in (SMALL, LARGE):
            self.run_(self.put(content, "one"))
            for rig in self.rigs[:2]:
                rig.rules["renew"] = fails(NodeUnreachable("broken"))
            version = self.run_(self.put(content, f"two of {len(content)}"))
            self.assertEqual(version.degraded, ())
            self.assertEqual(version.number, 1)
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)

    def test_one_missing(self) -> None:
        """Five of six present are enough, and the version is marked."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        self.lose(SMALL, 3)
        version = self.run_(self.put(SMALL, "two"))
        self.assertEqual(version.degraded, (3,))

    def vanish(self, content: bytes) -> None:
        """Two shards go after the metadata write."""

        def rule(*_: object) -> None:
            self.metadata.rules.clear()
            self.lose(content, 0, 1)

        self.metadata.rules["add_version"] = rule

    def test_vanish(self) -> None:
        """Shards that vanish between both renewals are stored from the body at hand."""
        self.rise()
        for content in (SMALL, LARGE):
            self.run_(self.put(content, "one"))
            self.vanish(content)
            self.run_(self.put(content, "two"))
            self.assertEqual(sorted(self.holders(content)), list(range(6)))
            self.assertEqual(self.run_(self.get("two")), content)

    def test_vanish_for_good(self) -> None:
        """If they cannot be stored, the version is taken back: 503, or 507 when full."""
        self.rise()
        for content in (SMALL, LARGE):
            for error, told in (
                (NodeUnreachable("broken"), TooFewNodes),
                (NodeFull("full"), NoSpace),
            ):
                self.run_(self.put(content, "one"))
                self.vanish(content)
                for rig in self.rigs:
                    rig.rules["put_small"] = rig.rules["sink.commit"] = fails(error)
                self.refused(told, self.put(content, "two"))
                self.assertEqual(self.versions("two"), [])
                for rig in self.rigs:
                    rig.come_back()
                self.pass_(6)

    def test_vanish_unknown(self) -> None:
        """If it cannot even be taken back, the outcome is unknown."""
        self.rise()
        self.run_(self.put(SMALL, "one"))
        self.vanish(SMALL)
        for rig in self.rigs:
            rig.rules["put_small"] = fails(NodeUnreachable("broken"))
        self.metadata.rules["purge"] = fails(MetadataUnavailable("away"))

        def rule(*_: object) -> None:
            del self.metadata.rules["add_version"]
            self.lose(SMALL, 0, 1)

        self.metadata.rules["add_version"] = rule
        self.refused(OutcomeUnknown, self.put(SMALL, "two"))

    def test_other_layout(self) -> None:
        """Shards of another k and m are never mixed with ours."""
        self.rise(data_shards=2, parity_shards=1, write_quorum=3)
        self.run_(self.put(LARGE, "old"))
        ours = self.engine.putting.writing.coding
        self.assertEqual(ours.geometry.data, 2)
        layouts = {
            path.split(".")[-1] for r in self.rigs for path in r.shards(sha256(LARGE))
        }
        self.assertEqual(len(layouts), 1)
        self.lose(LARGE, 0)
        self.engine.putting.writing.coding = attrs.evolve(
            ours, geometry=Geometry(4, 2), quorum=5
        )
        version = self.run_(self.put(LARGE, "new"))
        assert version.layout is not None
        self.assertEqual((version.layout.data, version.degraded), (4, ()))
        layouts = {
            path.split(".")[-1] for r in self.rigs for path in r.shards(sha256(LARGE))
        }
        self.assertEqual(len(layouts), 2)
        for index in range(2):
            mine = [
                r
                for r in self.rigs
                if any(
                    f".{index}.{version.layout.id}" in p
                    for p in r.shards(sha256(LARGE))
                )
            ]
            self.assertEqual(len(mine), 1)
            for path in mine[0].shards(sha256(LARGE)):
                if path.endswith(f".{index}.{version.layout.id}"):
                    mine[0].disk.delete(path)
        self.assertEqual(self.run_(self.get("old")), LARGE)
        self.assertEqual(self.run_(self.get("new")), LARGE)


class OutcomeTests(EngineCase):
    """Writes whose fate is not clear at once."""

    def test_resolved(self) -> None:
        """An ambiguous write that happened is found by its put_id."""
        self.rise()
        inner = self.metadata.inner

        async def happened(new: object) -> None:
            self.metadata.rules.clear()
            await inner.add_version(new)
            raise OutcomeUnknown("it may yet appear")

        self.metadata.rules["add_version"] = happened
        version = self.run_(self.put(SMALL))
        self.assertEqual((version.number, self.versions()), (1, [1]))

    def test_unresolved(self) -> None:
        """One that stays unknown is asked for during 10 s, then told as unknown."""
        self.rise()
        self.metadata.rules["add_version"] = fails(OutcomeUnknown("unknown"))
        for rule in (None, hangs, fails(MetadataUnavailable("away"))):
            if rule is not None:
                self.metadata.rules["by_put_id"] = rule
            before = self.time.seconds()
            self.refused(OutcomeUnknown, self.put(SMALL))
            self.assertIn(round(self.time.seconds() - before, 2), (10.0, 10.25))
        self.assert_kept(SMALL)

    def assert_kept(self, content: bytes) -> None:
        """After the metadata write was sent, no shard is dropped."""
        self.assertEqual(sorted(self.holders(content)), list(range(6)))

    def test_cancelled_while_written(self) -> None:
        """A client that leaves during the metadata write: its outcome is unknown."""
        self.rise()
        self.metadata.rules["add_version"] = hangs
        running = self.begin(self.put(LARGE))
        self.turn()
        running.cancel()
        self.assertRaises(OutcomeUnknown, self.finish, running)
        self.assert_kept(LARGE)

    def test_replay(self) -> None:
        """The same put_id gives the same version again, whatever came after it."""
        self.rise()
        key = "a" * 32
        condition = WriteCondition(create_only=True)
        for content in (SMALL, LARGE):
            name = f"of {len(content)}"
            asked: dict[str, Any] = {
                "name": name,
                "put_id": key,
                "condition": condition,
            }
            first = self.run_(self.put(content, **asked))
            self.run_(self.put(b"later", name))
            self.assertEqual(self.run_(self.put(content, **asked)), first)
            self.assertEqual(self.run_(self.put(b"other body", **asked)), first)
            self.assertEqual(self.holders(b"other body"), {})
            self.assertEqual(self.versions(name), [1, 2])

    def test_replay_of_another_kind(self) -> None:
        """A put_id of a PUT deletes nothing, one of a DELETE stores nothing."""
        self.rise()
        put, marker = "a" * 32, "b" * 32
        self.run_(self.put(SMALL, put_id=put))
        self.refused(Refused, self.store.delete("name", put))
        self.assertEqual(self.run_(self.get()), SMALL)
        self.run_(self.store.delete("name", marker))
        for content in (b"new", LARGE):
            found = self.refused(Refused, self.put(content, put_id=marker))
            self.assertIn("Idempotency-Key", str(found))
            self.assertEqual(self.holders(content), {})
        self.refused(Refused, self.store.delete("name", put))
        self.assertEqual(self.run_(self.store.delete("name", marker)).number, 2)
        self.assertEqual(self.versions(), [1, 2])

    def test_deleted_by_its_own_put_id(self) -> None:
        """So it is when the deletion comes while the body does."""
        self.rise()
        store = self.store

        class Body(Pieces):
            name = ""

            async def read(self) -> bytes:
                piece = await super().read()
                if not piece:
                    await store.delete(self.name, "c" * 32)
                return piece

        for name, content in (("small", SMALL), ("large", LARGE)):
            self.run_(self.put(b"before", name))
            body = Body([content])
            body.name = name
            request = PutRequest(name, put_id="c" * 32)
            self.refused(Refused, self.store.put(request, body))
            self.assertEqual(self.versions(name), [1, 2])
            self.assertEqual(self.holders(content), {})

    def test_slow_commits(self) -> None:
        """Commits over a quarter of the grace are renewed before and after the write."""
        self.rise(orphan_grace=1.0)
        for rig in self.rigs:
            rig.workers.delay = 0.2
        order: list[str] = []
        for rig in self.rigs:
            rig.rules["renew"] = lambda *_: order.append("renew")
        self.metadata.rules["add_version"] = lambda *_: order.append("write")
        version = self.run_(self.put(LARGE))
        self.assertEqual(order, ["renew"] * 6 + ["write"] + ["renew"] * 6)
        self.assertEqual(version.degraded, ())

    def test_slow_commits_lost(self) -> None:
        """If too few are there afterwards, the version is not written, or taken back."""
        for before in (True, False):
            for purge in (True, False):
                self.setUp()
                self.rise(orphan_grace=1.0)
                for rig in self.rigs:
                    rig.workers.delay = 0.2

                def lost(*_: object) -> None:
                    for rig in self.rigs[:2]:
                        rig.rules["renew"] = fails(NodeUnreachable("broken"))

                if before:
                    lost()
                else:
                    self.metadata.rules["add_version"] = lost
                if not purge:
                    self.metadata.rules["purge"] = fails(MetadataUnavailable("away"))
                unknown = not before and not purge
                error = OutcomeUnknown if unknown else Unavailable
                found = self.refused(error, self.put(LARGE))
                self.assertEqual(isinstance(found, OutcomeUnknown), unknown)
                self.assertEqual(self.versions(), [1] if unknown else [])
                self.fall()
