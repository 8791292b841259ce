"""A name's head against a plain list: nothing lost, nothing used twice, all bounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model import heads
from ostore.model.conditions import WriteCondition
from ostore.model.errors import AlreadyExists, ConditionFailed, NotFound
from ostore.model.heads import Archive, Change, Head
from ostore.model.layouts import Layout
from ostore.model.versions import NewVersion, Version


class Shelf:
    """A head and its archives, changed as a store changes them."""

    def __init__(self) -> None:
        self.head = Head("b", "n")
        self.archives: dict[str, tuple[Version, ...]] = {}
        self.ids = map(str, count())

    def take(self, change: Change) -> None:
        """Archives first, then the head, then what is dropped."""
        for archive, versions in change.written:
            assert archive.id not in self.archives
            self.archives[archive.id] = versions
        self.head = change.head
        for archive in change.dropped:
            del self.archives[archive.id]

    def settle(self, head: Head) -> Change:
        """The change that brings `head` into its bounds."""
        newest = None
        if heads.wants_newest(head):
            newest = self.archives[head.archives[-1].id]
        return heads.settle(head, newest, lambda: next(self.ids))

    def put(self, now: int = 0, size: int = 0, **more: Any) -> Version:
        """Append a version with headers of that many characters."""
        new = NewVersion("n", "p", bucket="b", headers={"h": "x" * size})
        head, made = heads.append(self.head, attrs.evolve(new, **more), now)
        self.take(self.settle(head))
        return made

    def purge(self, number: int) -> bool:
        """Remove one, wherever it lies."""
        archive = self.head.archive_of(number)
        if self.head.version(number) is not None:
            self.take(self.settle(heads.purge(self.head, number)))
            return True
        if archive is None:
            return False
        held = self.archives[archive.id]
        left = [one for one in held if one.number != number]
        if len(left) == len(held):
            return False
        self.take(heads.rewrite(self.head, archive, left, next(self.ids)))
        return True

    def whole(self) -> list[Version]:
        """Every version, oldest first."""
        found: list[Version] = []
        for archive in self.head.archives:
            found += self.archives[archive.id]
        return [*found, *self.head.versions]


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 90), st.sampled_from([0, 900, 9000])),
    st.tuples(st.just("purge"), st.integers(1, 90), st.sampled_from([1, -1])),
    st.tuples(st.just("purge all"), st.just(0), st.just(1)),
)


class HeadTests(SynchronousTestCase):
    """Changes one after the other."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(STEPS, max_size=14))
    def test_against_a_plain_list(self, steps: Sequence[tuple[str, int, int]]) -> None:
        """Whatever is put and purged: all versions there, in order, within bounds."""
        shelf, model, high = Shelf(), list[Version](), 0
        for verb, times, what in steps:
            if verb == "put":
                for _ in range(times):
                    high += 1
                    model.append(shelf.put(size=what))
                    self.assertEqual(model[-1].number, high)
            else:
                order = [one.number for one in model][::what]
                for number in order[: times or None]:
                    self.assertTrue(shelf.purge(number))
                    self.assertFalse(shelf.purge(number))
                    model = [one for one in model if one.number != number]
                    self.assertEqual(shelf.head.latest, model[-1] if model else None)
            self.assertEqual(shelf.whole(), model)
            self.check(shelf)
        self.assertEqual(shelf.put().number, high + 1)

    def check(self, shelf: Shelf) -> None:
        """Bounds, and that the head says of its archives what they hold."""
        head = shelf.head
        self.assertLessEqual(len(head.versions), heads.INLINE)
        if len(head.versions) > 1:
            self.assertLessEqual(heads.weight(head.versions), heads.WEIGHT)
        if head.archives:
            self.assertTrue(head.versions)
        self.assertEqual({one.id for one in head.archives}, set(shelf.archives))
        for archive in head.archives:
            held = shelf.archives[archive.id]
            told = (archive.first, archive.last, archive.count)
            numbers = [one.number for one in held]
            self.assertEqual(told, (numbers[0], numbers[-1], len(numbers)))
            self.assertLessEqual(len(held), heads.ARCHIVED)

    def test_thousands_of_versions_fill_archives(self) -> None:
        """5,000 light versions lie in about ten archives, each number found in one."""
        shelf = Shelf()
        for _ in range(5000):
            shelf.put()
        self.assertLessEqual(len(shelf.head.archives), 12)
        for number in (1, 512, 513, 4900):
            archive = shelf.head.archive_of(number)
            assert archive is not None
            held = shelf.archives[archive.id]
            self.assertIn(number, [one.number for one in held])
        self.assertIsNone(shelf.head.archive_of(5000))
        self.assertIsNone(shelf.head.archive_of(5001))

    def test_time_only_grows(self) -> None:
        """`created` is the clock, or 1 ms behind the greatest there ever was."""
        shelf = Shelf()
        self.assertEqual(shelf.put(now=1000).created, 1000)
        self.assertEqual(shelf.put(now=10).created, 1001)
        shelf.purge(2)
        self.assertEqual(shelf.put(now=10).created, 1002)

    def test_conditions_are_those_of_the_newest(self) -> None:
        """A marker or nothing counts as absent; what is absent is not deleted."""
        shelf = Shelf()
        only = WriteCondition(create_only=True)
        match = WriteCondition.parse('"abc"', None)
        self.assertRaises(NotFound, shelf.put, deleted=True, condition=match)
        self.assertRaises(ConditionFailed, shelf.put, condition=match)
        shelf.put(hash="abc", condition=only)
        self.assertRaises(AlreadyExists, shelf.put, condition=only)
        shelf.put(deleted=True, condition=match)
        self.assertFalse(shelf.head.live)
        self.assertRaises(NotFound, shelf.put, deleted=True)
        self.assertEqual(shelf.put(condition=only).number, 3)

    def test_marks_go_from_these_numbers_alone(self) -> None:
        """`unmark` clears the numbers given and touches no other."""
        shelf = Shelf()
        layout = Layout(4, 2, 5, "0" * 32)
        made = [shelf.put(layout=layout, degraded=(5, 1, 1)) for _ in range(3)]
        self.assertEqual(made[0].degraded, (1, 5))
        left = heads.unmark(shelf.head.versions, [2, 9])
        self.assertEqual([one.degraded for one in left], [(1, 5), (), (1, 5)])
        self.assertEqual(left[0], made[0])

    def test_marks_are_added(self) -> None:
        """`mark` adds to what these numbers lack; what has no shards lacks none."""
        shelf = Shelf()
        layout = Layout(4, 2, 5, "0" * 32)
        made = [shelf.put(layout=layout, degraded=(5,)) for _ in range(2)]
        made.append(shelf.put(deleted=True))
        found = heads.mark(shelf.head.versions, [2, 3, 9], [1, 5])
        self.assertEqual([one.degraded for one in found], [(5,), (1, 5), ()])
        self.assertEqual((found[0], found[2]), (made[0], made[2]))
        self.assertEqual(heads.mark(found, [2], [1]), found)

    def test_a_settled_head_needs_no_archive(self) -> None:
        """A head within its bounds is left alone, and asks for nothing."""
        head = Head("b", "n", 9, 9, (), ())
        self.assertEqual(heads.settle(head, None, lambda: "x"), Change(head))
        shelf = Shelf()
        for _ in range(70):
            shelf.put()
        self.assertFalse(heads.wants_newest(shelf.head))
        self.assertEqual(shelf.settle(shelf.head), Change(shelf.head))
        self.assertIsInstance(shelf.head.archives[0], Archive)
