"""Retention: which versions go."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.retention import Counting, surplus
from tests.support.maintenance import MaintenanceCase


class DecisionTests(SynchronousTestCase):
    """The rule itself."""

    @given(st.sets(st.integers(1, 1000)), st.integers(0, 12))
    @settings(deadline=None, max_examples=100)
    def test_newest_stay(self, found: set[int], keep: int) -> None:
        """The newest few that exist stay, whatever the holes in the numbers."""
        numbers = sorted(found)
        gone = list(surplus(numbers, keep))
        kept = numbers[len(gone) :]
        self.assertEqual(gone + kept, numbers)
        self.assertEqual(len(kept), min(keep, len(numbers)) if keep else len(numbers))

    @given(st.lists(st.integers(1, 8), max_size=6), st.integers(1, 5))
    @settings(deadline=None, max_examples=100)
    def test_counting(self, sizes: list[int], keep: int) -> None:
        """Each name with too many is named once, others never."""
        counting = Counting(keep)
        named = [
            name
            for name, size in enumerate(sizes)
            for _ in range(size)
            if counting.exceeds(str(name))
        ]
        self.assertEqual(named, [n for n, size in enumerate(sizes) if size > keep])


class JobTests(MaintenanceCase):
    """The job."""

    def write(self, name: str, count: int) -> None:
        """So many versions."""
        for number in range(count):
            self.run_(self.put(b"%d" % number, name))

    def test_keeps_five(self) -> None:
        """Six versions become five; a second run changes nothing."""
        self.rise()
        self.write("a", 6)
        self.write("b", 2)
        counts = self.counts("retention")
        self.assertEqual(counts, {"versions": 8, "superfluous": 1, "removed": 1})
        self.assertEqual(self.versions("a"), [2, 3, 4, 5, 6])
        self.assertEqual(self.counts("retention"), {"versions": 7})
        self.assertEqual(self.versions("b"), [1, 2])

    def test_markers_and_holes(self) -> None:
        """Markers count as versions, numbers that are gone do not."""
        self.rise(keep_versions=3)
        self.write("a", 5)
        self.purge("a", 3)
        self.purge("a", 4)
        self.run_(self.store.delete("a"))
        self.counts("retention")
        self.assertEqual(self.versions("a"), [2, 5, 6])

    def test_keeps_the_latest(self) -> None:
        """With one to keep it is the newest, a marker too."""
        self.rise(keep_versions=1)
        self.write("a", 3)
        self.write("b", 3)
        self.run_(self.store.delete("b"))
        self.counts("retention")
        self.assertEqual((self.versions("a"), self.versions("b")), ([3], [4]))

    def test_zero_keeps_all(self) -> None:
        """0 keeps everything."""
        self.rise(keep_versions=0)
        self.write("a", 9)
        self.assertEqual(self.counts("retention"), {})
        self.assertEqual(len(self.versions("a")), 9)

    def test_dry_run(self) -> None:
        """A dry run only counts."""
        self.rise(keep_versions=2)
        self.write("a", 5)
        counts = self.counts("retention", dry_run=True)
        self.assertEqual(counts, {"versions": 5, "superfluous": 3})
        self.assertEqual(len(self.versions("a")), 5)

    def test_more_than_a_page(self) -> None:
        """A name with more versions than a page is trimmed to what it shall keep."""
        self.rise(keep_versions=2)
        self.patch(
            __import__("ostore.maintenance.retention", fromlist=["x"]), "PAGE", 4
        )
        self.write("a", 11)
        self.write("b", 8)
        self.counts("retention")
        self.assertEqual(self.versions("a"), [10, 11])
        self.assertEqual(self.versions("b"), [7, 8])

    def test_listing_is_behind(self) -> None:
        """Versions that a listing shows, and that are gone, do not count."""
        self.rise(keep_versions=2)
        self.write("a", 4)
        behind = self.run_(self.metadata.inner.all_versions("", ("", 0), 100))
        self.purge("a", 3)
        self.purge("a", 4)

        async def all_versions(*_: object) -> object:
            return behind

        self.metadata.inner.all_versions = all_versions
        self.counts("retention")
        self.assertEqual(self.versions("a"), [1, 2])
