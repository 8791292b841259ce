"""The exploration, tried on a store of a few lines: right, and broken in turn."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.elastic_client import MaybeApplied, Reply, Search
from ostore.backends.metadata.elastic_documents import head_document, head_of
from ostore.model.errors import OutcomeUnknown
from ostore.model.heads import Head, append, purge
from ostore.model.versions import NewVersion, Version
from ostore.streaming.clock import Clock
from tests.support.explore import Explorer
from tests.support.fakedocuments import Index
from tests.support.fakesearch import PRIMARY, REPLICA, FakeSearch
from tests.support.linearizable import Add, Call, Latest, Purge
from tests.support.replaying import MakeStore, Program
from tests.support.worlds import Client, Explored, TooMany, Wrong

CONSTANT = {"preference": "ostore"}


class Plain:
    """One head document, compare-and-set, nothing remembered and nothing batched."""

    preference = CONSTANT
    compares = True
    resolves = True

    def __init__(self, search: Search, clock: Clock) -> None:
        self.search = search

    async def start(self) -> None:
        """Nothing to do."""

    async def read(self) -> tuple[Head, dict[str, Any]]:
        """The head, and what a write of it compares."""
        reply = await self.search.call(
            "POST",
            "/heads/_mget",
            query=self.preference,
            body={"docs": [{"_id": "h"}]},
            idempotent=True,
        )
        (doc,) = reply.body["docs"]
        if not doc["found"]:
            return Head("", "n"), {}
        numbers = {
            "if_seq_no": doc["_seq_no"],
            "if_primary_term": doc["_primary_term"],
        }
        return head_of(doc["_source"]), numbers

    async def write(self, head: Head, numbers: dict[str, Any]) -> bool:
        """Whether nobody was faster."""
        action = "index" if numbers or not self.compares else "create"
        compared = numbers if self.compares else {}
        reply: Reply = await self.search.call(
            "POST",
            "/heads/_bulk",
            lines=[{action: {"_id": "h", **compared}}, dict(head_document(head))],
        )
        ((item,),) = (each.values() for each in reply.body["items"])
        return bool(item["status"] < 300)

    async def add_version(self, new: NewVersion) -> Version:
        """Append, until nobody was faster."""
        while True:
            head, numbers = await self.read()
            before = head.by_put_id(new.put_id)
            if before is not None:
                return before
            after, made = append(head, new, 0)
            try:
                if await self.write(after, numbers):
                    return made
            except MaybeApplied:
                if self.resolves:
                    raise OutcomeUnknown("lost") from None

    async def purge(self, bucket: str, name: str, number: int) -> bool:
        """Take one out, until nobody was faster."""
        while True:
            head, numbers = await self.read()
            if head.version(number) is None:
                return False
            if await self.write(purge(head, number), numbers):
                return True

    async def latest(self, bucket: str, name: str) -> Version | None:
        """The newest."""
        return (await self.read())[0].latest

    async def versions_of(
        self, bucket: str, name: str, after: int, limit: int
    ) -> Sequence[Version]:
        """All of them."""
        return (await self.read())[0].versions


class Uncompared(Plain):
    """Writes whatever it read before."""

    compares = False


class Unsteady(Plain):
    """Reads any copy."""

    preference: dict[str, str] = {}  # noqa: RUF012 - as the parent's, never changed


class Stubborn(Plain):
    """Takes a lost answer for a write that did not happen."""

    resolves = False


class Forgetful(Plain):
    """Answers reads from what it knew last."""

    known: Version | None = None

    async def latest(self, bucket: str, name: str) -> Version | None:
        """The newest of some time ago."""
        if self.known is None:
            self.known = await super().latest(bucket, name)
        return self.known


class Hanging(Plain):
    """Never answers a read of the newest."""

    async def latest(self, bucket: str, name: str) -> Version | None:
        """Nothing."""
        never: Deferred[None] = Deferred()
        await never
        return None


def server(chosen: int = REPLICA) -> FakeSearch:
    """A server with one index, whose documents may hold anything."""
    fake = FakeSearch(chosen)
    fake.indices["heads"] = Index("heads", {"dynamic": False}, {}, set())
    return fake


def calls(*made: Call) -> Program:
    """A client that makes these calls, one after the other."""

    def program() -> Generator[Call, Any, None]:
        for each in made:
            _ = yield each

    return program


def put(number: int) -> Program:
    """A client that writes once."""
    return calls(Add(f"put {number}", f"{number:064x}"))


TWO = (Client(0, put(1)), Client(1, put(2)))
READER = Client(1, calls(Latest(), Latest()))


class ExploreTests(SynchronousTestCase):
    """What is right passes in every order; each defect shows in one of them."""

    def explored(
        self, make: MakeStore, *clients: Client, chosen: int = REPLICA, faults: int = 0
    ) -> Explored:
        """Everything that can happen."""
        explorer = Explorer(
            make, lambda: server(chosen), clients, faults=faults, patience=6
        )
        return explorer.everything(200_000)

    def assertFound(self, make: MakeStore, *clients: Client, faults: int = 0) -> str:
        """Some order goes wrong; gives what is told of it."""
        wrong = self.assertRaises(Wrong, self.explored, make, *clients, faults=faults)
        return str(wrong)

    def test_two_writers_and_a_purge(self) -> None:
        """Compare-and-set alone is enough, on whichever copy the readers are."""
        for chosen in (PRIMARY, REPLICA):
            done = self.explored(Plain, *TWO, Client(1, calls(Purge(1))), chosen=chosen)
            self.assertGreater(done.histories, 20)

    def test_lost_answers_and_crashes(self) -> None:
        """An answer lost or a process dead anywhere costs certainty, not order."""
        done = self.explored(Plain, Client(0, put(1)), READER, faults=1)
        self.assertGreater(done.histories, 30)
        done = self.explored(Plain, *TWO, faults=2)
        self.assertGreater(done.histories, 30)

    def test_what_is_left_out_shows_nothing_more(self) -> None:
        """Without the reductions there are more states, and the same outcomes."""
        for clients in (
            (*TWO,),
            (Client(0, put(1)), READER),
        ):
            some, all_ = (
                Explorer(
                    Plain,
                    lambda: server(PRIMARY),
                    clients,
                    faults=1,
                    patience=4,
                    reduced=reduced,
                )
                for reduced in (True, False)
            )
            fewer, more = some.everything(100_000), all_.everything(100_000)
            self.assertLess(fewer.states, more.states)
            self.assertGreater(len(some.outcomes()), 5)
            self.assertEqual(some.outcomes(), all_.outcomes())

    def test_both_orders_of_two_writers_are_met(self) -> None:
        """It goes through what can happen: each writer is first in some history."""
        met = set()

        class Noting(Plain):
            async def add_version(self, new: NewVersion) -> Version:
                made = await super().add_version(new)
                met.add((made.put_id, made.number))
                return made

        self.explored(Noting, *TWO)
        self.assertEqual(
            met, {(f"put {which}", number) for which in (1, 2) for number in (1, 2)}
        )

    def test_a_server_that_does_not_compare(self) -> None:
        """Writes that compare nothing take each other's place: found."""
        found = self.assertFound(Uncompared, *TWO)
        self.assertIn("two versions have one number", found)
        self.assertIn("serve 0.1 /heads/_bulk", found)

    def test_reads_of_any_copy(self) -> None:
        """Without one preference for all, a reader goes back in time: found."""
        self.assertFound(Unsteady, Client(0, put(1)), READER)

    def test_a_lost_answer_taken_for_a_failure(self) -> None:
        """A write tried again though its first try was purged meanwhile: found."""
        clients = (Client(0, put(1)), Client(1, calls(Purge(1))))
        self.explored(Stubborn, *clients)
        self.assertFound(Stubborn, *clients, faults=1)

    def test_a_remembered_answer(self) -> None:
        """A read answered from memory after another process has written: found."""
        self.explored(Forgetful, Client(0, put(1)), Client(1, calls(Latest())))
        twice = calls(Add("put 1", "1"), Add("put 2", "2"))
        self.assertFound(Forgetful, Client(0, twice), READER)

    def test_a_call_without_an_answer(self) -> None:
        """A store that leaves a client waiting for ever is wrong too."""
        self.assertIn("nobody answers", self.assertFound(Hanging, READER))

    def test_random_walks(self) -> None:
        """They meet the same defects."""
        explorer = Explorer(Uncompared, server, TWO)
        self.assertRaises(Wrong, explorer.some, 500, 1)
        explorer = Explorer(Plain, server, TWO)
        self.assertGreater(explorer.some(50, 1).histories, 2)

    def test_a_bound_that_is_too_small(self) -> None:
        """An exploration that was cut short proves nothing, and says so."""
        explorer = Explorer(Plain, server, TWO)
        self.assertRaises(TooMany, explorer.everything, 50)
