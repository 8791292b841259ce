"""Two api processes over one search server: each name is linearizable.

What is exhaustive, in every test that says "all orders": every order of steps of the
clients named there, over two processes, as `tests.support.explore` defines steps and
bounds them; with up to one answer lost or one process dead at any place where the test
says so. Three writers, a purge, a retention run and two readers together have too many
orders: they are walked at random, with every request's fate open, and their parts are
gone through whole. `OSTORE_EXPLORE=deep` in the environment takes larger parts and more
walks, for some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata import elastic_memory, elastic_steps
from ostore.backends.metadata.elastic_archives import Archives
from ostore.backends.metadata.elastic_batches import Batches
from ostore.backends.metadata.elastic_changes import Changes, Plan
from ostore.backends.metadata.elastic_client import Reply
from ostore.model import heads
from ostore.model.conditions import WriteCondition
from ostore.model.errors import OutcomeUnknown
from ostore.model.heads import Head
from tests.backends.test_elastic_contract import elastic_store
from tests.support.explore import Explorer
from tests.support.fakesearch import PRIMARY, REPLICA, FakeSearch, Progress, Request
from tests.support.linearizable import Add, ByPutId, Call, Get, Latest, Purge, Versions
from tests.support.replaying import MakeStore, Program
from tests.support.worlds import Client, Explored, Wrong

DEEP = os.environ.get("OSTORE_EXPLORE") == "deep"
CREATE_ONLY = WriteCondition(create_only=True)


def calls(*made: Call) -> Program:
    """A client that makes these calls, one after the other."""

    def program() -> Generator[Call, Any, None]:
        for each in made:
            _ = yield each

    return program


def retain(keep: int = 1) -> Generator[Call, Any, None]:
    """The retention job for one name: all but the newest versions go."""
    page = yield Versions()
    for each in page[:-keep]:
        _ = yield Purge(each.number)


def writer(process: int, which: int, name: str = "n") -> Client:
    """Writes once; all writers of one process are alike."""
    add = Add(f"put {which}", f"content {which}")
    return Client(process, calls(add), f"writer {process} {name}", name)


def reader(process: int, *asked: Call) -> Client:
    """Reads the newest, or what is asked."""
    return Client(process, calls(*(asked or (Latest(),))), f"reader {process} {asked}")


def purger(process: int, number: int = 1) -> Client:
    """Removes a version."""
    return Client(process, calls(Purge(number)), f"purger {process} {number}")


def deleter(process: int, which: int) -> Client:
    """Writes a marker."""
    return Client(process, calls(Add(f"marker {which}", deleted=True)))


EVERYONE = (
    writer(0, 1),
    writer(0, 2),
    reader(0, Latest(), Latest()),
    Client(0, retain),
    writer(1, 3),
    purger(1),
    reader(1, Latest(), Versions()),
)


class Forgiving(FakeSearch):
    """Takes every write for the newest: it compares nothing."""

    def step(self, request: Request, progress: Progress) -> Any:
        """Rewrite the conditions away."""
        text = request.text.replace('"create"', '"index"')
        for field in ("if_seq_no", "if_primary_term"):
            start = text.find(f', "{field}"')
            while start >= 0:
                end = min(i for i in (text.find(c, start + 1) for c in ",}") if i > 0)
                text = text[:start] + text[end:]
                start = text.find(f', "{field}"')
        if request.path.endswith("_bulk"):
            request = attrs.evolve(request, text=text)
        return super().step(request, progress)


class Failing(FakeSearch):
    """Its primary dies behind every write upon a head that archives are named in.

    The copy that takes over has the write, tries it again and tells of a conflict.
    """

    def step(self, request: Request, progress: Progress) -> Any:
        """Change what is told, not what is done."""
        outcome = super().step(request, progress)
        if not (isinstance(outcome, Reply) and request.path.endswith("_bulk")):
            return outcome
        if '"archives": [[' not in request.text:
            return outcome
        error = {"type": "version_conflict_engine_exception"}
        for item in outcome.body["items"]:
            for told in item.values():
                told.update(status=409, error=error)
        return outcome


class Wandering:
    """A way to the server that forgets which copy it reads."""

    def __init__(self, search: Any) -> None:
        self._search = search

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """Pass it on."""
        if path.endswith("_mget"):
            asked = dict(more["query"])
            del asked["preference"]
            more["query"] = asked
        return await self._search.call(method, path, **more)


class ProofTests(SynchronousTestCase):
    """All orders of small parts, many orders of the whole; and defects that show."""

    def explorer(
        self,
        *clients: Client,
        chosen: int = REPLICA,
        server: type[FakeSearch] = FakeSearch,
        make: MakeStore = elastic_store,
        faults: int = 0,
    ) -> Explorer:
        """An exploration that has not begun."""
        return Explorer(
            make, lambda: server(chosen), clients, faults=faults, patience=6
        )

    def all_orders(self, *clients: Client, **more: Any) -> Explored:
        """Go through everything; enough of it that it means something."""
        found = self.explorer(*clients, **more).everything(5_000_000)
        self.assertGreater(found.histories, 2)
        return found

    def assertFound(self, *clients: Client, **more: Any) -> None:
        """Some order goes wrong."""
        self.assertRaises(Wrong, self.all_orders, *clients, **more)

    # All orders

    def test_writers_and_a_purge(self) -> None:
        """Two writers, a third, a purge of the first version; readers on any copy."""
        for chosen in (PRIMARY, REPLICA):
            self.all_orders(writer(0, 1), writer(1, 2), purger(1), chosen=chosen)
            self.all_orders(writer(0, 1), writer(0, 2), writer(1, 3), chosen=chosen)
        self.all_orders(
            writer(0, 1), writer(0, 2), writer(1, 3), purger(1), chosen=PRIMARY
        )
        if DEEP:
            self.all_orders(writer(0, 1), writer(0, 2), writer(1, 3), purger(1))

    def test_readers(self) -> None:
        """Whoever reads after an acknowledged write sees it, or a later state."""
        pair = reader(1, Latest(), Latest())
        self.all_orders(writer(0, 1), purger(1), pair)
        self.all_orders(writer(0, 1), writer(1, 2), reader(1))
        every = reader(1, Versions(), Get(1), ByPutId("put 1"))
        self.all_orders(writer(0, 1), every)
        if DEEP:
            crowd = (writer(0, 1), reader(0), writer(1, 2), purger(1))
            self.all_orders(*crowd, chosen=PRIMARY)
            self.all_orders(*crowd)

    def test_retention(self) -> None:
        """The job takes old versions while others write: no number is lost or reused."""
        job = Client(1, retain)
        for chosen in (PRIMARY, REPLICA):
            self.all_orders(writer(0, 1), writer(1, 2), job, chosen=chosen)

    def test_conditions_and_markers(self) -> None:
        """Of racing creators and deletions one wins, decided by what is there."""
        create = attrs.evolve(Add("new", "content 9"), condition=CREATE_ONLY)
        creator = Client(1, calls(create))
        self.all_orders(writer(0, 1), creator, deleter(1, 1))
        self.all_orders(writer(0, 1), deleter(0, 1), deleter(1, 2), chosen=PRIMARY)

    def test_lost_answers_and_dead_processes(self) -> None:
        """With one of them anywhere: what was acknowledged stays, nothing is done twice."""
        clients = (writer(0, 1), writer(1, 2), purger(1))
        self.all_orders(*clients, chosen=PRIMARY, faults=1)
        self.all_orders(writer(0, 1), writer(1, 2), faults=1)
        purges = (purger(0), purger(1))
        self.all_orders(writer(0, 1), *purges, chosen=PRIMARY, faults=1)
        if DEEP:
            self.all_orders(*clients, faults=1)
            self.all_orders(writer(0, 1), purger(1), reader(1), faults=1)

    def test_the_same_write_from_two_processes(self) -> None:
        """One put_id sent to both makes one version, answers lost or not."""
        twins = (writer(0, 1), writer(1, 1))
        self.all_orders(*twins, faults=1)
        self.all_orders(*twins, purger(1), chosen=PRIMARY, faults=1)

    def test_names_that_are_read_first(self) -> None:
        """The same without the guess that a name which nobody remembers is new."""
        self.patch(elastic_memory, "_MOSTLY", 2.0)
        clients = (writer(0, 1), writer(1, 2), purger(1))
        self.all_orders(*clients, chosen=PRIMARY, faults=1)
        self.all_orders(writer(0, 1), writer(1, 1), faults=1)

    def shrink(self) -> None:
        """Heads of one version, so that archives come and go; sweeps are left out."""
        self.patch(heads, "INLINE", 1)
        self.patch(heads, "KEPT", 1)
        self.patch(heads, "ARCHIVED", 2)
        self.patch(Archives, "sweep", lambda *_: None)

    def test_archives(self) -> None:
        """Versions move to archives, and out of them, under the eyes of readers."""
        self.shrink()
        twice = calls(Add("put 1", "1"), Add("put 2", "2"))
        pages = reader(1, Versions())
        self.all_orders(Client(0, twice), writer(1, 3), chosen=PRIMARY)
        self.all_orders(Client(0, twice), pages)
        self.all_orders(Client(0, twice), purger(1), pages, chosen=PRIMARY)
        self.all_orders(Client(0, twice), purger(1), faults=1)
        if DEEP:
            both = (Client(0, twice), writer(1, 3))
            self.all_orders(*both, chosen=PRIMARY, faults=1)

    def test_a_conflict_with_itself(self) -> None:
        """A write that was carried out and told as a conflict keeps its archives."""
        self.shrink()
        thrice = calls(*(Add(f"put {n}", f"{n}") for n in (1, 2, 3)))
        self.all_orders(Client(0, thrice), reader(1, Versions()), server=Failing)

    def test_batches(self) -> None:
        """Names that share calls to the server keep their own order each."""
        self.patch(Batches, "__init__", _one_lane(Batches.__init__))
        names = [writer(0, n, name) for n, name in enumerate(["n", "other", "third"])]
        others = [writer(1, 4)] if DEEP else []
        explorer = self.explorer(*names, *others, chosen=PRIMARY)
        explorer.everything(5_000_000)
        sent = {len(each.body) for each in explorer.requests() if "_bulk" in each.path}
        self.assertLessEqual({2, 4}, sent)  # lines of one write, and of two together
        readers = (reader(1, Latest()), reader(1, Versions()), reader(1, Get(1)))
        self.all_orders(writer(0, 1), *readers, chosen=PRIMARY)

    # Many orders

    def test_everyone_at_once(self) -> None:
        """Three writers, a purge, a retention run and two readers, faults and all."""
        walks = 20_000 if DEEP else 150
        for chosen, faults in ((PRIMARY, 0), (REPLICA, 2)):
            explorer = self.explorer(*EVERYONE, chosen=chosen, faults=faults)
            found = explorer.some(walks, seed=chosen)
            self.assertGreater(found.histories, walks // 3)

    def test_everyone_with_archives(self) -> None:
        """The same with heads that hold one version."""
        self.shrink()
        explorer = self.explorer(*EVERYONE, faults=1)
        walks = 20_000 if DEEP else 100
        self.assertGreater(explorer.some(walks, seed=7).histories, walks // 3)

    # Defects that must show

    def test_a_server_that_does_not_compare(self) -> None:
        """Without if_seq_no two writers get one number."""
        self.assertFound(writer(0, 1), writer(1, 2), server=Forgiving)

    def test_reads_of_any_copy(self) -> None:
        """Without the constant preference a reader goes back in time."""

        def make(search: Any, clock: Any) -> Any:
            return elastic_store(Wandering(search), clock)

        self.assertFound(writer(0, 1), reader(1, Latest(), Latest()), make=make)

    def test_refusals_from_a_remembered_head(self) -> None:
        """A head of yesterday must not decide what there is to delete today."""
        self.patch(Changes, "_begin", _deciding)
        both = calls(Add("put 1", "1"), Purge(1), Add("marker", deleted=True))
        self.assertFound(Client(0, both), writer(1, 2))

    def test_refusals_by_a_guess(self) -> None:
        """That a name may be new must not decide that there is nothing to delete."""
        self.patch(Changes, "_begin", _deciding)
        self.assertFound(Client(0, calls(Add("put 1", "1"))), deleter(1, 1))

    def test_a_lost_answer_taken_for_a_failure(self) -> None:
        """A write that was carried out, purged, and then tried again."""
        self.patch(elastic_steps.Add, "sent", lambda *_: None)
        clients = (writer(0, 1), purger(1), reader(1))
        self.all_orders(*clients)
        self.assertFound(*clients, faults=1)

    def test_a_removal_claimed_by_two(self) -> None:
        """A purge whose answer was lost, and that another has made instead."""
        plan = elastic_steps.Purge.plan

        async def claim(self: elastic_steps.Purge, head: Head) -> Plan[bool]:
            try:
                return await plan(self, head)
            except OutcomeUnknown:
                return Plan(True)

        self.patch(elastic_steps.Purge, "plan", claim)
        self.assertFound(writer(0, 1), purger(0), purger(1), chosen=PRIMARY, faults=1)

    def test_numbers_counted_from_the_newest(self) -> None:
        """A number taken from the newest version, not from the greatest ever."""
        append = heads.append

        def count(head: Head, *more: Any) -> Any:
            high = 0 if head.latest is None else head.latest.number
            return append(attrs.evolve(head, high=high), *more)

        self.patch(heads, "append", count)
        self.all_orders(writer(0, 1), writer(1, 2))
        self.assertFound(writer(0, 1), writer(1, 2), purger(1))

    def test_an_archive_removed_too_early(self) -> None:
        """An archive dropped before the head that replaces it was written."""
        self.shrink()
        write = Changes._write

        async def early(self: Any, key: str, seen: Any, change: Any) -> Any:
            self._archives.drop(change.head, change.dropped)
            return await write(self, key, seen, change)

        self.patch(Changes, "_write", early)
        thrice = calls(*(Add(f"put {n}", f"{n}") for n in (1, 2, 3)))
        self.assertFound(Client(0, thrice), reader(1, Versions()), faults=1)


def _one_lane(begin: Any) -> Any:
    def begun(self: Any, *given: Any, **more: Any) -> None:
        begin(self, *given, **{**more, "lanes": 1})

    return begun


async def _deciding(
    self: Any, key: str, bucket: str, name: str, step: Any
) -> tuple[Any, Any] | None:
    seen = self._memory.take(key, bucket, name)
    return None if seen is None else (seen, await step.plan(seen.head))
