"""Names that are not remembered: guessed to be new, or read, and always made right."""

from __future__ import annotations

from ostore.backends.metadata.elastic_bulk import Position
from ostore.backends.metadata.elastic_client import SearchFailed
from ostore.backends.metadata.elastic_memory import Memory
from ostore.backends.metadata.elastic_names import Seen
from ostore.model.errors import AlreadyExists, ConditionFailed, NotFound, OutcomeUnknown
from ostore.model.heads import Change, Head
from ostore.model.versions import Version
from tests.backends.test_elastic_changes import ChangeCase
from tests.contracts.metadata import CREATE_ONLY, marker, put


class GuessTests(ChangeCase):
    """One store writes names that it has never seen; the other has made some of them."""

    def calls(self) -> list[str]:
        """What was asked of the server since the last time."""
        asked = [each.parts[-1] for each in self.server.calls]
        self.server.calls.clear()
        return [each for each in asked if each in {"_mget", "_bulk"}]

    def add(self, name: str, number: int, calls: str = "_bulk _mget _bulk") -> None:
        """Write a version, which must become this one, with these calls."""
        self.calls()
        made = self.end(self.store.add_version(put(name)))
        self.assertEqual(made.number, number)
        self.assertEqual(self.calls(), calls.split())

    def test_a_new_name_is_not_read(self) -> None:
        """One call makes it, and one each further version."""
        self.add("n", 1, "_bulk")
        self.add("n", 2, "_bulk")
        self.assertEqual(self.numbers(), [1, 2])

    def test_a_name_of_another(self) -> None:
        """What the other has written, marked or emptied stands; numbers go on."""
        for name in ("put", "marked", "purged"):
            self.end(self.other.add_version(put(name)))
        self.end(self.other.add_version(marker("marked")))
        self.end(self.other.purge("", "purged", 1))
        self.add("put", 2)
        self.add("marked", 3)
        self.add("purged", 2)
        self.assertEqual(self.numbers("put"), [1, 2])
        self.assertEqual(self.numbers("marked"), [1, 2, 3])
        self.assertEqual(self.numbers("purged"), [2])

    def test_archives_of_another(self) -> None:
        """300 versions, most of them archived, get one more; a put_id there is found."""
        made = [self.end(self.other.add_version(put("n", at))) for at in range(1, 301)]
        self.add("n", 301, "_bulk _mget _mget _bulk")  # the archive's put_ids too
        for each in (made[0], made[150], made[-1]):
            fresh = self.make(self.way, 7 + each.number)
            again = put("n", each.number, put_id=each.put_id)
            self.assertEqual(self.end(fresh.add_version(again)), each)
        self.assertEqual(self.numbers(), list(range(1, 302)))

    def test_conditions_meet_what_is_there(self) -> None:
        """A guess refuses nothing, and lets nothing pass that a condition forbids."""
        first = self.end(self.other.add_version(put("n", 1)))
        absent = put("n").condition.parse(None, "*")
        same = put("n").condition.parse(f'"{first.hash}"', None)
        for condition, error in (
            (CREATE_ONLY, AlreadyExists),
            (absent, ConditionFailed),
        ):
            made = self.end(self.store.add_version(put("n", 2, condition=condition)))
            self.assertIsInstance(made, error)
        made = self.end(self.store.add_version(put("new", 2, condition=same)))
        self.assertIsInstance(made, ConditionFailed)
        made = self.end(self.store.add_version(put("n", 2, condition=same)))
        self.assertEqual(made.number, 2)
        self.assertIsInstance(self.end(self.store.add_version(marker("no"))), NotFound)
        self.assertIs(self.end(self.store.purge("", "no", 1)), False)
        self.assertEqual(self.numbers("no"), [])

    def test_one_put_id_from_two(self) -> None:
        """A write sent to both makes one version."""
        new = put("n")
        made = self.end(self.other.add_version(new))
        self.assertEqual(self.end(self.store.add_version(new)), made)
        self.assertEqual(self.numbers(), [1])

    def test_two_create_at_once(self) -> None:
        """The slower one's creation is a conflict, and it becomes the second."""
        made: list[Version] = []

        def first(_: object) -> None:
            self.server.before = lambda _: None
            made.append(self.end(self.other.add_version(put("n", 2))))

        self.server.before = first
        self.add("n", 2, "_bulk _bulk _mget _bulk")
        self.assertEqual([one.number for one in made], [1])
        self.assertEqual(self.numbers(), [1, 2])

    def test_a_creation_whose_answer_is_lost(self) -> None:
        """It is found when it happened, and made when not."""
        for fault in ("lost before", "lost behind", "429", "503"):
            self.way.faults = [fault]
            made = self.end(self.store.add_version(put(fault)))
            self.assertEqual(made.number, 1, fault)
            self.assertEqual(self.numbers(fault), [1])

    def test_a_wrong_guess_whose_answer_is_lost(self) -> None:
        """It cannot have happened where the name is older, whatever was purged."""
        for fault in ("lost before", "lost behind", "503"):
            for at in range(1, 4):
                self.end(self.other.add_version(put(fault, at)))
            self.end(self.other.purge("", fault, 1))
            self.wall += 1
            self.way.faults = [fault]
            made = self.end(self.store.add_version(put(fault)))
            self.assertEqual(made.number, 4, fault)
            self.assertEqual(self.numbers(fault), [2, 3, 4])

    def test_a_creation_that_may_have_been_removed(self) -> None:
        """Nobody can tell when the name is as young as the write."""
        self.way.faults = ["lost behind"]
        self.way.then = lambda: self.end(self.other.purge("", "n", 1))
        made = self.end(self.store.add_version(put("n")))
        self.assertIsInstance(made, OutcomeUnknown)
        self.assertEqual(self.numbers(), [])

    def test_no_guess_while_answers_are_lost(self) -> None:
        """Further names are read first, so nobody doubts what became of their writes."""
        self.way.faults = ["deaf behind"]
        unknown = self.end(self.store.add_version(put("n")))
        self.assertIsInstance(unknown, OutcomeUnknown)
        self.way.deaf = False
        self.way.faults = ["not sent"]
        self.calls()
        failed = self.end(self.store.add_version(put("second")))
        self.assertIs(type(failed), SearchFailed)
        self.assertEqual(self.calls(), ["_mget"])
        self.add("third", 1, "_mget _bulk")
        self.add("fourth", 1, "_bulk")

    def test_names_that_are_written_again(self) -> None:
        """Where most are, they are read first, until most are new once more."""
        names = [f"old/{at}" for at in range(20)]
        for name in names:
            self.end(self.other.add_version(put(name)))
        for name in names[:11]:
            self.add(name, 2)
        for name in names[11:]:
            self.add(name, 2, "_mget _bulk")
            self.assertEqual(self.numbers(name), [1, 2])
        for at in range(20):
            self.end(self.store.add_version(put(f"new/{at}")))
        self.add("newest", 1, "_bulk")

    def test_a_heavy_head(self) -> None:
        """It is not held in memory, but known to be there: it is read at once."""
        headers = {"x-long": "x" * 20_000}
        for _ in range(2):
            self.calls()
            self.end(self.store.add_version(put("n", headers=headers)))
        self.assertEqual(self.calls(), ["_mget", "_bulk"])
        self.assertEqual(self.numbers(), [1, 2])


class MemoryTests(ChangeCase):
    """What is kept, for how many names, and what teaches it."""

    def test_bounds(self) -> None:
        """The heads of the last 1,024 names."""
        memory = Memory()
        for at in range(1025):
            memory.keep(str(at), Seen(Head("", str(at), high=at), None))
        self.assertNotIn("0", memory)
        found = memory.take("1024", "", "1024")
        self.assertEqual(found and found.head.high, 1024)
        self.assertNotIn("1024", memory)

    def test_purges_and_markers_teach_nothing(self) -> None:
        """They are made of names that are there."""
        memory, seen = Memory(), Seen(Head("", "n", high=3), Position(1, 1))
        for high in (3, 4):
            for _ in range(50):
                memory.learn(False, seen, Change(Head("", "n", high=high)))
        self.assertIsNotNone(memory.take("n", "", "n"))
