"""Writes whose answers are lost, writes that race, and archives that stay behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.elastic import ElasticStore
from ostore.backends.metadata.elastic_archives import ORPHANED
from ostore.backends.metadata.elastic_client import (
    NO_QUERY,
    MaybeApplied,
    Reply,
    SearchFailed,
)
from ostore.model.errors import (
    ConditionFailed,
    MetadataUnavailable,
    OutcomeUnknown,
)
from ostore.model.versions import Version
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.contracts.metadata import CREATE_ONLY, hash_of, layout_of, put
from tests.support.fakesearch import FakeSearch


class Faulty:
    """The way to a server; `faults` befall the next bulks, one each."""

    def __init__(self, server: FakeSearch) -> None:
        self.server = server
        self.faults: list[str] = []
        self.deaf = False
        self.then: Callable[[], None] = lambda: None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: object | None = None,
        lines: Sequence[object] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """As the server does, but for the faults."""
        if self.deaf:
            raise SearchFailed("not there")
        fault = self.faults.pop(0) if path.endswith("_bulk") and self.faults else ""
        if fault == "lost before":
            self.then()
            raise MaybeApplied("lost")
        if fault == "not sent":
            raise SearchFailed("not sent")
        if fault.isdigit():
            kind = {"type": "some_exception"}
            first: Any = (lines or [None])[0]
            ((action, facts),) = first.items()
            item = {"_id": facts["_id"], "status": int(fault), "error": kind}
            return Reply(200, {"errors": True, "items": [{action: item}]})
        reply = await self.server.call(
            method, path, query=query, body=body, lines=lines, idempotent=idempotent
        )
        if fault == "lost behind":
            self.then()
            raise MaybeApplied("lost")
        if fault == "deaf behind":
            self.deaf = True
            raise MaybeApplied("lost")
        return reply


class ChangeCase(SynchronousTestCase):
    """Two stores on one server, the first by a way that a test can break."""

    def setUp(self) -> None:
        """A server with two stores that are set up."""
        self.timers = Timers()
        self.wall = 1_700_000_000.0
        self.server = FakeSearch()
        self.way = Faulty(self.server)
        self.store = self.make(self.way, 1)
        self.other = self.make(Faulty(self.server), 2)

    def make(self, way: Faulty, number: int) -> ElasticStore:
        """A store of its own."""
        clock = Clock(self.timers, self.timers.seconds, lambda: self.wall)
        numbers = count(number << 32)

        def entropy(length: int) -> bytes:
            return next(numbers).to_bytes(8, "big").rjust(length, b"\0")

        store = ElasticStore(way, "fake", clock, entropy, self.fail)
        self.successResultOf(start(store.start()))
        self.assertIsNone(self.successResultOf(start(store.health())))
        self.addCleanup(lambda: self.successResultOf(start(store.stop())))
        return store

    def end(self, work: Any, seconds: float = 40.0) -> Any:
        """What the work comes to, errors as values, once that time is over."""
        running = start(work)
        _ = running.addErrback(lambda failure: failure.value)
        for _ in range(int(seconds * 10)):
            if running.called:
                break
            self.timers.advance(0.1)
        return self.successResultOf(running)

    def numbers(self, name: str = "n") -> list[int]:
        """What both stores say is there."""
        found = [self.end(s.versions_of("", name, 0, 10**6)) for s in self.stores]
        self.assertEqual(found[0], found[1])
        return [one.number for one in found[0]]

    @property
    def stores(self) -> tuple[ElasticStore, ElasticStore]:
        """Both."""
        return self.store, self.other


class ChangeTests(ChangeCase):
    """Lost answers, races, and archives."""

    def archives(self) -> set[str]:
        """The ids of all archives on the server."""
        ids = set()
        for copy, _ in self.server.documents():
            for key, doc in copy.items():
                if key.routing != key.id and doc.text is not None:
                    ids.add(key.id)
        return ids

    # Lost answers

    def test_a_lost_answer_to_a_write_that_happened(self) -> None:
        """The version is found by its put_id: made once, given as it was made."""
        for fault in ("lost behind", "lost before", "not sent", "429", "503"):
            self.way.faults = [fault]
            made = self.end(self.store.add_version(put(fault)))
            if fault == "not sent":
                self.assertIs(type(made), SearchFailed)
                self.assertEqual(self.numbers(fault), [])
            else:
                self.assertIsInstance(made, Version, fault)
                self.assertEqual(self.numbers(fault), [1])

    def test_create_only_does_not_fail_over_itself(self) -> None:
        """Its own version, written by a try whose answer was lost, is no conflict."""
        self.way.faults = ["lost behind"]
        made = self.end(self.store.add_version(put("n", condition=CREATE_ONLY)))
        self.assertEqual(made.number, 1)

    def test_nobody_can_tell(self) -> None:
        """OutcomeUnknown when the way stays shut after a write was sent."""
        self.way.faults = ["deaf behind"]
        new = put("n")
        self.assertIsInstance(self.end(self.store.add_version(new)), OutcomeUnknown)
        self.way.deaf = False
        found = self.end(self.store.by_put_id("", "n", new.put_id))
        self.assertEqual(found.number, 1)
        self.assertEqual(self.end(self.store.add_version(new)), found)

    def test_it_goes_on_in_vain(self) -> None:
        """A write that never gets an answer ends in time, unknown."""
        self.way.faults = ["lost before"] * 10_000
        began = self.timers.seconds()
        made = self.end(self.store.add_version(put("n")))
        self.assertIsInstance(made, OutcomeUnknown)
        self.assertLess(self.timers.seconds() - began, 25)
        self.way.faults = ["429"] * 10_000
        made = self.end(self.store.add_version(put("n")))
        self.assertIs(type(made), MetadataUnavailable)

    def test_lost_and_overtaken(self) -> None:
        """Another writer took the number: a new one is taken, once."""
        self.way.faults = ["lost before"]
        self.way.then = lambda: self.end(self.other.add_version(put("n", 2)))
        made = self.end(self.store.add_version(put("n", 1)))
        self.assertEqual(made.number, 2)
        self.assertEqual(self.numbers(), [1, 2])

    def test_lost_and_refused(self) -> None:
        """Another writer was faster, and the condition no longer holds."""
        self.way.faults = ["lost before"]
        self.way.then = lambda: self.end(self.other.add_version(put("n", 2)))
        absent = put("n").condition.parse(None, "*")
        new = put("n", 1, condition=absent)
        self.assertIsInstance(self.end(self.store.add_version(new)), ConditionFailed)

    def test_lost_and_removed(self) -> None:
        """Written, or not, and its number purged since: nobody can tell."""
        for fault in ("lost before", "lost behind"):
            self.way.faults = [fault]

            def then(name: str = fault) -> None:
                self.end(self.other.add_version(put(name)))
                self.end(self.other.purge("", name, 1))

            self.way.then = then
            made = self.end(self.store.add_version(put(fault)))
            self.assertIsInstance(made, OutcomeUnknown, fault)

    def test_a_purge_whose_answer_was_lost(self) -> None:
        """It is found done, but another may have done it: so nobody can tell."""
        self.end(self.store.add_version(put("n")))
        self.way.faults = ["lost behind"]
        purged = self.end(self.store.purge("", "n", 1))
        self.assertIsInstance(purged, OutcomeUnknown)
        self.assertIs(self.end(self.store.purge("", "n", 1)), False)

    def test_a_stale_memory_decides_nothing(self) -> None:
        """A remembered head neither refuses nor finds: a fresh one does."""
        first = self.end(self.store.add_version(put("n", 1)))
        self.end(self.other.purge("", "n", 1))
        again = self.end(self.store.add_version(put("n", 1, condition=CREATE_ONLY)))
        self.assertEqual(again.number, 2)
        self.assertIs(self.end(self.store.purge("", "n", 1)), False)
        repeat = put("n", 1, put_id=first.put_id)
        self.assertEqual(self.end(self.store.add_version(repeat)).number, 3)
        match = put("n").condition.parse(f'"{hash_of(7)}"', None)
        self.end(self.other.add_version(put("n", 7)))
        made = self.end(self.store.add_version(put("n", 8, condition=match)))
        self.assertEqual(made.number, 5)

    # Archives

    def fill(self, versions: int) -> list[Version]:
        """So many versions of one name, by both stores in turn."""
        return [
            self.end(self.stores[at % 2].add_version(put("n", at)))
            for at in range(1, versions + 1)
        ]

    def test_archives_are_those_that_the_head_names(self) -> None:
        """Whatever is put and purged, by two stores, no archive is left over."""
        made = self.fill(200)
        self.assertEqual(self.numbers(), list(range(1, 201)))
        self.assertEqual(len(self.archives()), 1)
        for one in [*made[:50], *made[150:], *made[100:150], *made[50:100]]:
            self.assertIs(self.end(self.store.purge("", "n", one.number)), True)
            latest = self.end(self.other.latest("", "n"))
            newest = self.numbers()[-1:]
            self.assertEqual([latest.number] if latest else [], newest)
        self.assertEqual(self.archives(), set())
        self.assertEqual(self.end(self.other.add_version(put("n"))).number, 201)

    def test_faults_while_an_archive_is_written(self) -> None:
        """The version is written once, and versions are never lost."""
        self.fill(64)
        for fault in ("lost before", "lost behind", "429", "503"):
            for faults in ([fault], ["", fault]):
                last = self.numbers()[-1]
                while self.fits():
                    self.end(self.store.add_version(put("n")))
                    last += 1
                self.way.faults = list(faults)
                made = self.end(self.store.add_version(put("n")))
                self.assertEqual(made.number, last + 1)
                self.assertEqual(self.numbers(), list(range(1, last + 2)))

    def fits(self) -> bool:
        """Whether another version fits into the head."""
        head = next(
            doc
            for copy, _ in self.server.documents()
            for key, doc in copy.items()
            if key.routing == key.id and doc.source.get("name") == "n"
        )
        return len(head.source["older"]) < 63

    def test_what_a_crash_left_is_swept(self) -> None:
        """An archive that no head names goes with a later change, an hour on."""
        self.fill(64)
        self.way.faults = ["", "not sent"]
        failed = self.end(self.store.add_version(put("n", 65)))
        self.assertIsInstance(failed, MetadataUnavailable)
        (left,) = self.archives()
        self.server.refresh()
        self.end(self.other.add_version(put("n", 65)))
        self.assertIn(left, self.archives())
        self.wall += ORPHANED + 1
        while self.fits():
            self.end(self.other.add_version(put("n")))
        self.end(self.other.add_version(put("n")))
        self.assertNotIn(left, self.archives())
        self.assertEqual(self.numbers(), list(range(1, self.numbers()[-1] + 1)))

    def test_what_a_crash_left_refers_to_nothing(self) -> None:
        """`content` asks the heads: an archive of nobody is no version."""
        self.fill(64)
        self.way.faults = ["", "not sent"]
        self.end(self.store.add_version(put("n", 65)))
        self.assertIs(self.end(self.other.purge("", "n", 1)), True)
        self.server.refresh()
        self.assertIn(hash_of(1), self.end(self.other.hashes("", 99)))
        self.assertIsNone(self.end(self.other.content(hash_of(1))))

    def test_a_mark_whose_answer_is_lost(self) -> None:
        """It is set once, and so with conflicts and in an archive."""
        for number in range(1, 71):
            layout = layout_of(number)
            self.end(self.store.add_version(put("n", number, layout=layout)))
        for number, faults in (
            (70, ["lost behind"]),
            (69, ["lost before"]),
            (68, ["409", "429"]),
            (1, ["lost behind"]),
            (2, ["lost before"]),
            (3, ["", "lost behind"]),
            (4, ["", "lost before"]),
        ):
            self.way.faults = list(faults)
            mark = ("", "n", number)
            self.assertIsNone(self.end(self.store.mark_degraded([mark], [1, 3])))
            self.assertEqual(self.way.faults, [])
            for store in self.stores:
                found = self.end(store.version("", "n", number))
                self.assertEqual((found.number, found.degraded), (number, (1, 3)))
        self.assertEqual(self.numbers(), list(range(1, 71)))
        self.server.refresh()
        self.assertEqual(len(self.end(self.store.degraded("", 99))), 7)

    def test_a_mark_that_may_be_set(self) -> None:
        """When nobody answers any more the outcome is unknown; later it can be set."""
        self.end(self.store.add_version(put("n", 1, layout=layout_of(1))))
        for fault, error in (
            ("not sent", MetadataUnavailable),
            ("deaf behind", OutcomeUnknown),
        ):
            self.way.faults = [fault]
            found = self.end(self.store.mark_degraded([("", "n", 1)], [1]))
            self.assertIsInstance(found, error)
            self.way.deaf = False
        self.assertIsNone(self.end(self.store.mark_degraded([("", "n", 1)], [2])))
        self.assertEqual(self.end(self.other.version("", "n", 1)).degraded, (1, 2))

    def test_marks_of_what_a_crash_left(self) -> None:
        """Clearing a mark that only such an archive shows has it swept."""
        new = put("n", 1, layout=layout_of(1), degraded=(0,))
        self.end(self.store.add_version(new))
        self.fill(63)
        self.way.faults = ["", "not sent"]
        self.end(self.store.add_version(put("n", 65)))
        self.assertIs(self.end(self.store.purge("", "n", 1)), True)
        self.wall += ORPHANED + 1
        self.server.refresh()
        (found,) = self.end(self.store.degraded("", 9))
        self.assertEqual(found.marks, (("", "n", 1),))
        self.end(self.store.clear_degraded(found.marks))
        self.server.refresh()
        self.assertEqual(self.end(self.store.degraded("", 9)), [])
