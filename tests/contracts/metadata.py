"""What every `IMetadataStore` must do; mixed into a TestCase for each of them.

Uses the interface alone. `make_store` may be a coroutine that waits, and gives a store
that is empty and started, and that is stopped again by the test's clean-up. Listings
and hash pages of some stores lag behind the writes: `settle` waits until they show
what was acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock as Timers
from zope.interface.verify import verifyObject

from ostore.interfaces import IMetadataStore
from ostore.model.conditions import EntityTags, WriteCondition
from ostore.model.errors import (
    AlreadyExists,
    ConditionFailed,
    NotFound,
    OstoreError,
)
from ostore.model.layouts import Layout
from ostore.model.versions import ClusterFacts, Degraded, NewVersion, Page, Version
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase

    Base = TestCase
else:
    Base = object

T = TypeVar("T")

CREATE_ONLY = WriteCondition(create_only=True)

NAMES = (
    " ",
    "  two  spaces ",
    "%",
    "%2F",
    "*",
    "?",
    "a",
    "a/",
    "a/b",
    "a//b",
    "a/b/c",
    "a0",
    "a_1",
    "a_1/2",
    "aX1",
    "A",
    '"double"',
    "'single'; DROP TABLE version; --",
    "\\",
    "\n",
    "/",
    "//",
    "_1",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\N{PILE OF POO}",
    "\U0010ffff",
    "\U0010ffff/x",
    "n" * 1024,
    "é" * 512,
    "\N{PILE OF POO}" * 256,
)
"""Names that a careless store would mix up, cut, sort wrongly or run."""


def hash_of(number: int) -> str:
    """A content hash."""
    return f"{number:064x}"


def layout_of(number: int, data: int = 4, parity: int = 2) -> Layout:
    """A layout with an id of its own."""
    return Layout(data, parity, 5, f"{number:032x}")


_put_ids = count(1)


def put(name: str, content: int = 1, **more: Any) -> NewVersion:
    """A version that wants to be written."""
    more.setdefault("put_id", f"{next(_put_ids):032x}")
    return NewVersion(name, hash=hash_of(content), size=5, **more)


def marker(name: str, **more: Any) -> NewVersion:
    """A delete marker that wants to be written."""
    more.setdefault("put_id", f"{next(_put_ids):032x}")
    return NewVersion(name, deleted=True, **more)


def entries(live: Iterable[str], prefix: str, delimiter: str) -> list[tuple[str, bool]]:
    """A whole listing, naively: (entry, whether it is a prefix), in order."""
    found = set()
    for name in live:
        if name.startswith(prefix):
            head, hit, _ = name[len(prefix) :].partition(delimiter or "\0")
            found.add((prefix + head + hit, True) if hit else (name, False))
    return sorted(found, key=lambda entry: entry[0].encode())


def shown(page: Page) -> list[tuple[str, bool]]:
    """A page's entries in order."""
    both = [(item.name, False) for item in page.items]
    both += [(prefix, True) for prefix in page.prefixes]
    return sorted(both, key=lambda entry: entry[0].encode())


def examples(strategy: st.SearchStrategy[T], number: int) -> list[T]:
    """What hypothesis comes up with, for tests that have to wait between them."""
    found: list[T] = []

    @settings(
        max_examples=number,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    collect()
    return found


QUERIES = st.tuples(
    st.one_of(st.just(""), st.sampled_from(["a", "a/", "é", "/", "n" * 1000, "zz"])),
    st.sampled_from(["", "/", "_", "//", "a", "é", "b/"]),
    st.one_of(
        st.just(""),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES).map(lambda name: name[: len(name) // 2]),
        st.sampled_from(NAMES).map(lambda name: name + "!"),
    ),
    st.integers(1, 12),
)
"""prefix, delimiter, after, limit of a listing over NAMES."""


class MetadataContract(Base):
    """The suite; a subclass says how a store is made."""

    store: Any

    async def make_store(self, clock: Clock) -> Any:
        """An empty store, started; it takes `created` from `clock.wall`."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Wait until pages show every acknowledged write."""

    async def set_up(self) -> None:
        """Make the store; every test calls it first."""
        self.wall = 1_700_000_000.0
        clock = Clock(Timers(), time.monotonic, lambda: self.wall)
        self.store = await self.make_store(clock)

    async def raised(self, work: Any, kind: type[OstoreError]) -> None:
        """Fail unless awaiting `work` raises `kind`."""
        (outcome,) = await gather([work])
        self.assertIsInstance(outcome, kind)

    async def whole_listing(
        self, prefix: str = "", delimiter: str = "", limit: int = 3
    ) -> list[tuple[str, bool]]:
        """All pages of a listing."""
        found: list[tuple[str, bool]] = []
        after: str | None = ""
        while after is not None:
            page = await self.store.listing("", prefix, delimiter, after, limit)
            self.assertLessEqual(len(page.items) + len(page.prefixes), limit)
            found += shown(page)
            after = page.next
        return found

    async def test_interface(self) -> None:
        """The store provides the interface, with the same signatures."""
        await self.set_up()
        verifyObject(IMetadataStore, self.store)
        self.assertIsNone(await self.store.health())

    # One name

    async def test_a_version_is_read_as_it_was_written(self) -> None:
        """Every field comes back, by each way of asking."""
        await self.set_up()
        new = NewVersion(
            name="a/b",
            put_id="ab" * 16,
            hash=hash_of(7),
            size=2**40,
            bucket="photos",
            headers={"content-type": "text/plain", "x-ostore-meta-é": '"quoted"\t☃'},
            layout=Layout(4, 2, 2**40, "cd" * 16),
            degraded=(1, 5),
        )
        made = await self.store.add_version(new)
        expected = Version(
            name=new.name,
            number=1,
            hash=new.hash,
            size=new.size,
            created=int(self.wall * 1000),
            put_id=new.put_id,
            bucket=new.bucket,
            headers=new.headers,
            layout=new.layout,
            degraded=new.degraded,
        )
        await self.settle()
        store = self.store
        self.assertEqual(made, expected)
        self.assertEqual(await store.latest("photos", "a/b"), expected)
        self.assertEqual(await store.version("photos", "a/b", 1), expected)
        self.assertEqual(await store.by_put_id("photos", "a/b", new.put_id), expected)
        self.assertEqual(await store.content(new.hash), expected)
        self.assertEqual(list(await store.versions_of("photos", "a/b", 0, 9)), [made])
        self.assertEqual(list(await store.all_versions("photos", ("", 0), 9)), [made])
        page = await store.listing("photos", "", "", "", 9)
        self.assertEqual(page, Page((expected,)))

    async def test_what_is_absent_is_none(self) -> None:
        """Absent names, numbers, put_ids and contents are None, never an error."""
        await self.set_up()
        await self.store.add_version(put("there"))
        store = self.store
        self.assertIsNone(await store.latest("", "absent"))
        for number in (-(2**70), -1, 0, 2, 2**31, 2**63, 2**70):
            self.assertIsNone(await store.version("", "there", number))
            self.assertFalse(await store.purge("", "there", number))
        self.assertIsNone(await store.by_put_id("", "there", "0f" * 16))
        self.assertIsNone(await store.content(hash_of(99)))
        self.assertEqual(list(await store.versions_of("", "absent", 0, 9)), [])
        self.assertEqual(list(await store.versions_of("", "there", 2**70, 9)), [])
        self.assertEqual(await store.listing("", "absent", "", "", 9), Page(()))

    async def test_racing_writers_get_consecutive_numbers(self) -> None:
        """50 concurrent writes of one name give 1 to 50, in the order of `created`."""
        await self.set_up()
        made = await gather([self.store.add_version(put("n")) for _ in range(50)])
        versions = [one for one in made if isinstance(one, Version)]
        versions.sort(key=lambda one: one.number)
        self.assertEqual([one.number for one in versions], list(range(1, 51)))
        created = [one.created for one in versions]
        self.assertEqual(sorted(set(created)), created)
        self.assertEqual(list(await self.store.versions_of("", "n", 0, 99)), versions)

    async def test_a_write_is_seen_at_once(self) -> None:
        """What was acknowledged is what the next read of the name gives."""
        await self.set_up()
        for number in range(1, 20):
            made = await self.store.add_version(put("n", number))
            self.assertEqual(made.number, number)
            self.assertEqual(await self.store.latest("", "n"), made)
            seen = await self.store.versions_of("", "n", number - 1, 9)
            self.assertEqual(list(seen), [made])

    async def test_the_same_put_id_finds_its_version(self) -> None:
        """A repeat writes nothing and gives the first version, conditions or not."""
        await self.set_up()
        new = put("n", condition=CREATE_ONLY)
        first = await self.store.add_version(new)
        await self.store.add_version(put("n"))
        self.assertEqual(await self.store.add_version(new), first)
        again = attrs.evolve(new, condition=WriteCondition.parse('"other"', None))
        self.assertEqual(await self.store.add_version(again), first)
        self.assertEqual((await self.store.latest("", "n")).number, 2)

    async def test_a_put_id_belongs_to_its_name(self) -> None:
        """The same put_id under other names and buckets makes versions of their own."""
        await self.set_up()
        for bucket, name in (("", "a"), ("", "b"), ("x", "a")):
            new = put(name, put_id="ee" * 16, bucket=bucket)
            made = await self.store.add_version(new)
            self.assertEqual((made.bucket, made.name, made.number), (bucket, name, 1))

    async def test_a_put_id_sent_many_times_at_once(self) -> None:
        """20 concurrent repeats make one version; a repeated marker, one marker."""
        await self.set_up()
        for number, new in enumerate((put("n"), marker("n")), 1):
            made = await gather([self.store.add_version(new) for _ in range(20)])
            self.assertEqual(made, [made[0]] * 20)
            self.assertEqual((await self.store.latest("", "n")).number, number)

    async def test_one_of_racing_creators_wins(self) -> None:
        """Of 16 that create only, one gets version 1 and the others AlreadyExists."""
        await self.set_up()
        made = await gather(
            [
                self.store.add_version(put("n", i, condition=CREATE_ONLY))
                for i in range(1, 17)
            ]
        )
        won = [one for one in made if isinstance(one, Version)]
        lost = [one for one in made if isinstance(one, AlreadyExists)]
        self.assertEqual((len(won), len(lost)), (1, 15))
        self.assertEqual(await self.store.latest("", "n"), won[0])
        self.assertEqual(won[0].number, 1)

    async def test_one_of_racing_replacers_wins(self) -> None:
        """Of 16 that name the same old content, one replaces it."""
        await self.set_up()
        await self.store.add_version(put("n", 99))
        condition = WriteCondition(if_match=EntityTags(strong=frozenset([hash_of(99)])))
        made = await gather(
            [
                self.store.add_version(put("n", i, condition=condition))
                for i in range(1, 17)
            ]
        )
        won = [one for one in made if isinstance(one, Version)]
        lost = [one for one in made if isinstance(one, ConditionFailed)]
        self.assertEqual((len(won), len(lost)), (1, 15))
        self.assertEqual(won[0].number, 2)

    async def test_unmodified_since(self) -> None:
        """The date is held against the newest version's time, to the second."""
        await self.set_up()
        add = self.store.add_version
        first = await add(put("n", 1))
        second = first.created // 1000

        def since(when: int) -> WriteCondition:
            return WriteCondition(if_unmodified_since=when)

        for refused in (
            put("n", 2, condition=since(second - 1)),
            marker("n", condition=since(second - 1)),
        ):
            await self.raised(add(refused), ConditionFailed)
        made = await add(put("n", 2, condition=since(second + 3600)))
        await add(marker("n", condition=since(made.created // 1000)))
        await add(put("n", 3, condition=since(0)))
        self.assertEqual((await self.store.latest("", "n")).number, 4)

    async def test_conditions_see_the_newest_version(self) -> None:
        """If-Match and If-None-Match hold for the newest; a marker is as good as none."""
        await self.set_up()
        add = self.store.add_version
        match = WriteCondition.parse(f'"{hash_of(1)}"', None)
        absent = WriteCondition.parse(None, "*")
        await self.raised(add(put("n", condition=match)), ConditionFailed)
        await add(put("n", 1, condition=absent))
        await self.raised(add(put("n", condition=absent)), ConditionFailed)
        await add(put("n", 2, condition=match))
        await self.raised(add(put("n", condition=match)), ConditionFailed)
        await add(marker("n"))
        await self.raised(add(put("n", condition=match)), ConditionFailed)
        made = await add(put("n", condition=CREATE_ONLY))
        self.assertEqual(made.number, 4)

    async def test_markers(self) -> None:
        """A marker hides the name from listings; what is not there is not deleted."""
        await self.set_up()
        await self.raised(self.store.add_version(marker("n")), NotFound)
        self.assertIsNone(await self.store.latest("", "n"))
        one = await self.store.add_version(put("n"))
        two = await self.store.add_version(marker("n"))
        self.assertEqual((two.number, two.deleted, two.hash), (2, True, ""))
        self.assertEqual(await self.store.latest("", "n"), two)
        await self.raised(self.store.add_version(marker("n")), NotFound)
        await self.settle()
        self.assertEqual(await self.whole_listing(), [])
        self.assertEqual(list(await self.store.versions_of("", "n", 0, 9)), [one, two])
        self.assertEqual(list(await self.store.hashes("", 9)), [hash_of(1)])
        await self.store.purge("", "n", 1)
        await self.raised(self.store.add_version(marker("n")), NotFound)

    async def test_one_of_racing_deletions_wins(self) -> None:
        """Of 8 concurrent markers one is written, the others find nothing."""
        await self.set_up()
        await self.store.add_version(put("n"))
        made = await gather([self.store.add_version(marker("n")) for _ in range(8)])
        self.assertEqual(sum(isinstance(one, Version) for one in made), 1)
        self.assertEqual(sum(isinstance(one, NotFound) for one in made), 7)

    async def test_purge_shows_the_version_below(self) -> None:
        """Without the newest the one below is the latest; no number comes again."""
        await self.set_up()
        one = await self.store.add_version(put("n", 1))
        await self.store.add_version(marker("n"))
        three = await self.store.add_version(put("n", 3))
        self.assertTrue(await self.store.purge("", "n", 3))
        self.assertFalse(await self.store.purge("", "n", 3))
        self.assertTrue((await self.store.latest("", "n")).deleted)
        await self.settle()
        self.assertEqual(await self.whole_listing(), [])
        self.assertTrue(await self.store.purge("", "n", 2))
        self.assertEqual(await self.store.latest("", "n"), one)
        await self.settle()
        self.assertEqual(await self.whole_listing(), [("n", False)])
        self.assertIsNone(await self.store.version("", "n", 3))
        self.assertIsNone(await self.store.by_put_id("", "n", three.put_id))
        self.assertEqual((await self.store.add_version(put("n"))).number, 4)

    async def test_numbers_outlive_their_versions(self) -> None:
        """A name whose versions are all gone is absent, and goes on counting."""
        await self.set_up()
        for number in (1, 2, 3):
            await self.store.add_version(put("n"))
            self.assertTrue(await self.store.purge("", "n", number))
            self.assertIsNone(await self.store.latest("", "n"))
            await self.settle()
            self.assertEqual(await self.whole_listing(), [])
        await self.raised(self.store.add_version(marker("n")), NotFound)
        made = await self.store.add_version(put("n", condition=CREATE_ONLY))
        self.assertEqual(made.number, 4)

    async def test_created_grows_whatever_the_clock_does(self) -> None:
        """A wall clock that stands still or jumps back never turns `created` round."""
        await self.set_up()
        last = 0
        for jump in (0.0, 0.0, -3600.0, 0.0002, 7200.0, -1.0):
            self.wall += jump
            made = await self.store.add_version(put("n"))
            self.assertGreater(made.created, last)
            self.assertGreaterEqual(made.created, int(self.wall * 1000))
            last = made.created
        self.assertGreater((await self.store.add_version(marker("n"))).created, last)

    async def test_names_are_nothing_but_values(self) -> None:
        """Each strange name has its own versions, and all sort by UTF-8 bytes."""
        await self.set_up()
        for content, name in enumerate(NAMES, 1):
            made = await self.store.add_version(put(name, content))
            self.assertEqual(made.number, 1, name)
        for content, name in enumerate(NAMES, 1):
            found = await self.store.latest("", name)
            self.assertEqual((found.name, found.hash), (name, hash_of(content)))
        await self.settle()
        self.assertEqual(await self.whole_listing(), entries(NAMES, "", ""))

    async def test_buckets_are_separate(self) -> None:
        """The same name in two buckets is two names; pages stay in their bucket."""
        await self.set_up()
        for bucket in ("", "a", "b"):
            for content in range(3):
                await self.store.add_version(put("n", content + 1, bucket=bucket))
        await self.store.add_version(marker("n", bucket="a"))
        self.assertTrue(await self.store.purge("b", "n", 3))
        await self.settle()
        for bucket, numbers, live in (
            ("", [1, 2, 3], 1),
            ("a", [1, 2, 3, 4], 0),
            ("b", [1, 2], 1),
        ):
            seen = await self.store.all_versions(bucket, ("", 0), 9)
            self.assertEqual([one.number for one in seen], numbers)
            page = await self.store.listing(bucket, "", "", "", 9)
            self.assertEqual(len(page.items), live)

    # Pages

    async def fill(self) -> list[str]:
        """NAMES, every fifth of them deleted; gives the live ones."""
        for name in NAMES:
            await self.store.add_version(put(name))
        for name in NAMES[::5]:
            await self.store.add_version(marker(name))
        await self.settle()
        return [name for name in NAMES if name not in NAMES[::5]]

    async def test_listing_pages_agree_with_a_plain_list(self) -> None:
        """Any prefix, delimiter, after and limit gives the naive page and its `next`."""
        await self.set_up()
        live = await self.fill()
        for prefix, delimiter, after, limit in examples(QUERIES, 150):
            page = await self.store.listing("", prefix, delimiter, after, limit)
            rest = [
                entry
                for entry in entries(live, prefix, delimiter)
                if entry[0].encode() > after.encode()
            ]
            told = (prefix, delimiter, after, limit)
            self.assertEqual(shown(page), rest[:limit], told)
            last = rest[limit - 1][0] if len(rest) > limit else None
            self.assertEqual(page.next, last, told)

    async def test_following_next_gives_everything_once(self) -> None:
        """Page by page a listing is whole: no entry twice, none left out."""
        await self.set_up()
        live = await self.fill()
        for prefix in ("", "a", "a/"):
            for delimiter in ("", "/", "_", "//"):
                for limit in (1, 2, 50):
                    self.assertEqual(
                        await self.whole_listing(prefix, delimiter, limit),
                        entries(live, prefix, delimiter),
                        (prefix, delimiter, limit),
                    )

    async def test_all_versions_by_name_then_number(self) -> None:
        """Pages of all versions go by UTF-8 name and number, markers and all."""
        await self.set_up()
        await self.fill()
        keys = sorted(
            [(name.encode(), 1) for name in NAMES]
            + [(name.encode(), 2) for name in NAMES[::5]]
        )
        for limit in (1, 7, 1000):
            found: list[tuple[bytes, int]] = []
            after = ("", 0)
            while page := await self.store.all_versions("", after, limit):
                self.assertLessEqual(len(page), limit)
                found += [(one.name.encode(), one.number) for one in page]
                after = (page[-1].name, page[-1].number)
            self.assertEqual(found, keys)

    async def test_versions_of_one_name_by_number(self) -> None:
        """Pages of one name's versions ascend, over gaps."""
        await self.set_up()
        for _ in range(9):
            await self.store.add_version(put("n"))
        for number in (1, 4, 5):
            await self.store.purge("", "n", number)
        found: list[int] = []
        while page := await self.store.versions_of("", "n", max(found, default=0), 2):
            found += [one.number for one in page]
        self.assertEqual(found, [2, 3, 6, 7, 8, 9])

    async def test_paging_while_others_write(self) -> None:
        """Writes between pages bring no entry twice and hide none that was there."""
        await self.set_up()
        before = [f"k{i:03}" for i in range(0, 60, 2)]
        for name in before:
            await self.store.add_version(put(name))
        await self.settle()
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await self.store.listing("", "", "", after, 4)
            found += [item.name for item in page.items]
            after = page.next
            for i in range(1, 60, 13):
                await self.store.add_version(put(f"k{(i + 7 * len(found)) % 60:03}"))
        self.assertEqual(sorted(set(found)), found)
        self.assertEqual(set(before) - set(found), set())

    # Contents

    async def test_hashes_and_content(self) -> None:
        """Every content that a version refers to shows, once, until the last is gone."""
        await self.set_up()
        for content in (5, 3, 9, 3, 5, 3):
            await self.store.add_version(put(f"n{content}", content))
        await self.store.add_version(put("other", 3, bucket="b"))
        await self.store.add_version(marker("n9"))
        await self.settle()
        everything = [hash_of(3), hash_of(5), hash_of(9)]
        self.assertEqual(list(await self.store.hashes("", 99)), everything)
        self.assertEqual(list(await self.store.hashes("", 2)), everything[:2])
        self.assertEqual(list(await self.store.hashes(hash_of(4), 9)), everything[1:])
        self.assertEqual(list(await self.store.hashes(hash_of(9), 9)), [])
        for hash in everything:
            self.assertEqual((await self.store.content(hash)).hash, hash)
        for number in (1, 2):
            self.assertIsNotNone(await self.store.content(hash_of(5)))
            await self.store.purge("", "n5", number)
        self.assertIsNone(await self.store.content(hash_of(5)))
        await self.settle()
        self.assertEqual(list(await self.store.hashes(hash_of(3), 9)), [hash_of(9)])

    async def degraded(self, limit: int = 99) -> list[Degraded]:
        """All pages of incomplete contents."""
        await self.settle()
        found: list[Degraded] = []
        after = ""
        while page := await self.store.degraded(after, limit):
            self.assertLessEqual(len(page), limit)
            found += page
            after = f"{page[-1].hash}/{page[-1].layout.id}"
        return found

    async def put_degraded(
        self, name: str, content: int, layout: Layout, missing: Sequence[int]
    ) -> tuple[str, str, int]:
        """Write a version with shards missing; gives its mark."""
        made = await self.store.add_version(
            put(name, content, layout=layout, degraded=tuple(missing))
        )
        return "", name, made.number

    async def test_degraded_worst_first(self) -> None:
        """The fewest shards left come first, then by hash and layout, in any pages."""
        await self.set_up()
        await self.put_degraded("one", 1, layout_of(1), [0])
        await self.put_degraded("two", 2, layout_of(2), [0, 5])
        await self.put_degraded("both", 2, layout_of(1), [3, 1])
        await self.put_degraded("wide", 0, layout_of(9, 8, 4), [0, 1, 2, 11])
        await self.put_degraded("thin", 9, layout_of(8, 2, 1), [2])
        await self.store.add_version(put("whole", 4, layout=layout_of(4)))
        order = [(9, 8), (2, 1), (2, 2), (1, 1), (0, 9)]
        for limit in (1, 2, 99):
            found = await self.degraded(limit)
            self.assertEqual(
                [(each.hash, each.layout.id) for each in found],
                [(hash_of(hash), layout_of(id).id) for hash, id in order],
            )
        found = await self.degraded()
        self.assertEqual(found[1].missing, (1, 3))
        self.assertEqual(found[4].layout, layout_of(9, 8, 4))

    async def test_degraded_unites_what_versions_miss(self) -> None:
        """Versions of one layout make one entry: all their marks, all they miss."""
        await self.set_up()
        marks = {
            await self.put_degraded("a", 1, layout_of(1), [0]),
            await self.put_degraded("a", 1, layout_of(1), [0, 4]),
            await self.put_degraded("b", 1, layout_of(1), [5]),
        }
        (found,) = await self.degraded()
        self.assertEqual((found.missing, set(found.marks)), ((0, 4, 5), marks))
        await self.store.purge("", "a", 2)
        (found,) = await self.degraded()
        self.assertEqual((found.missing, len(found.marks)), ((0, 5), 2))
        await self.store.purge("", "a", 1)
        await self.store.purge("", "b", 1)
        self.assertEqual(await self.degraded(), [])

    async def test_clear_degraded_takes_exactly_these_marks(self) -> None:
        """Marks written after the census stay; clearing nothing or twice is no error."""
        await self.set_up()
        first = await self.put_degraded("a", 1, layout_of(1), [0])
        census = (await self.degraded())[0].marks
        later = await self.put_degraded("a", 1, layout_of(1), [2])
        other = await self.put_degraded("c", 1, layout_of(2), [1])
        self.assertEqual(census, (first,))
        for _ in range(2):
            await self.store.clear_degraded([*census, ("", "absent", 7)])
            found = await self.degraded()
            self.assertEqual([each.marks for each in found], [(later,), (other,)])
            self.assertEqual([each.missing for each in found], [(2,), (1,)])
        self.assertEqual((await self.store.version("", "a", 1)).degraded, ())
        self.assertEqual((await self.store.version("", "a", 2)).degraded, (2,))
        await self.store.clear_degraded([later, other])
        await self.store.clear_degraded([])
        self.assertEqual(await self.degraded(), [])

    async def test_mark_degraded_afterwards(self) -> None:
        """What a version lacks is added to what it says; twice is as good as once."""
        await self.set_up()
        whole = await self.store.add_version(put("a", 1, layout=layout_of(1)))
        other = await self.store.add_version(put("a", 1, layout=layout_of(1)))
        marked = await self.put_degraded("b", 2, layout_of(2), [3])
        mark = ("", "a", whole.number)
        for _ in range(2):
            await self.store.mark_degraded([mark], [4, 0])
            found = await self.store.version("", "a", whole.number)
            self.assertEqual(found, attrs.evolve(whole, degraded=(0, 4)))
            self.assertEqual(await self.store.latest("", "a"), other)
            (each, _) = await self.degraded()
            self.assertEqual((each.hash, each.missing), (hash_of(1), (0, 4)))
            self.assertEqual(each.marks, (mark,))
        await self.store.mark_degraded([marked, mark], [4, 1])
        self.assertEqual(
            [(each.marks, each.missing) for each in await self.degraded()],
            [((mark,), (0, 1, 4)), ((marked,), (1, 3, 4))],
        )
        await self.store.clear_degraded([mark])
        self.assertEqual(await self.store.version("", "a", whole.number), whole)
        await self.store.purge(*marked)
        self.assertEqual(await self.degraded(), [])

    async def test_mark_degraded_makes_nothing(self) -> None:
        """Versions that are gone or never were stay so, and a delete marker is one."""
        await self.set_up()
        made = await self.store.add_version(put("a", 1, layout=layout_of(1)))
        deletion = await self.store.add_version(marker("a"))
        await self.store.purge("", "a", made.number)
        await self.store.mark_degraded(
            [("", "a", number) for number in range(4)] + [("", "absent", 1)], [0]
        )
        await self.store.mark_degraded([], [0])
        await self.store.mark_degraded([("", "a", deletion.number)], [])
        self.assertEqual(list(await self.store.versions_of("", "a", 0, 9)), [deletion])
        self.assertEqual(list(await self.store.versions_of("", "absent", 0, 9)), [])
        self.assertEqual(await self.degraded(), [])
        first = await self.store.add_version(put("absent", 1))
        self.assertEqual(first.number, 1)

    async def test_mark_degraded_among_other_changes(self) -> None:
        """Marks, writes and purges of one name at once all come to pass."""
        await self.set_up()
        for content in range(1, 5):
            await self.store.add_version(put("a", content, layout=layout_of(content)))
        marks = [self.store.mark_degraded([("", "a", 2)], [i]) for i in range(4)]
        puts = [self.store.add_version(put("a", 9)) for _ in range(3)]
        purge = self.store.purge("", "a", 3)
        for outcome in await gather([*marks, *puts, purge]):
            if isinstance(outcome, Exception):
                raise outcome
        found = await self.store.versions_of("", "a", 0, 9)
        self.assertEqual([one.number for one in found], [1, 2, 4, 5, 6, 7])
        self.assertEqual(
            [one.degraded for one in found], [(), (0, 1, 2, 3), (), (), (), ()]
        )

    async def test_mark_degraded_among_many_versions(self) -> None:
        """Old versions of a long history are marked and unmarked as new ones are."""
        await self.set_up()
        made = [
            await self.store.add_version(put("a", content, layout=layout_of(content)))
            for content in range(1, 76)
        ]
        marks = [("", "a", number) for number in (2, 40, 75)]
        await self.store.mark_degraded([*marks, ("", "a", 99)], [5])
        expected = [
            attrs.evolve(one, degraded=(5,)) if one.number in (2, 40, 75) else one
            for one in made
        ]
        self.assertEqual(list(await self.store.versions_of("", "a", 0, 99)), expected)
        found = await self.degraded()
        self.assertEqual({mark for each in found for mark in each.marks}, set(marks))
        await self.store.clear_degraded(marks)
        self.assertEqual(list(await self.store.versions_of("", "a", 0, 99)), made)
        self.assertEqual(await self.degraded(), [])

    async def test_the_degraded_cursor_outlives_its_content(self) -> None:
        """A page goes on behind the last one seen, though that was mended meanwhile.

        What could not be mended is not shown again before the end.
        """
        await self.set_up()
        for content in range(1, 6):
            missing = [0, 1] if content % 2 else [0]
            await self.put_degraded(f"n{content}", content, layout_of(1), missing)
        await self.settle()
        seen: list[str] = []
        after = ""
        while page := await self.store.degraded(after, 1):
            (each,) = page
            seen.append(each.hash)
            if each.hash != hash_of(1):
                await self.store.clear_degraded(each.marks)
                await self.settle()
            after = f"{each.hash}/{each.layout.id}"
        self.assertEqual(seen, [hash_of(content) for content in (1, 3, 5, 2, 4)])

    # The cluster

    async def test_the_cluster_is_created_once(self) -> None:
        """Of racing creators one sets the facts, and all are told those."""
        await self.set_up()
        self.assertIsNone(await self.store.cluster())
        offered = [ClusterFacts(f"{i:032x}", i) for i in range(8)]
        told = await gather([self.store.create_cluster(each) for each in offered])
        self.assertIn(told[0], offered)
        self.assertEqual(told, [told[0]] * 8)
        self.assertEqual(await self.store.cluster(), told[0])

    # The lease

    async def test_the_lease_has_one_owner(self) -> None:
        """While one has it, others get none; each change of hands raises the epoch."""
        await self.set_up()
        self.assertIsNone(await self.store.lease("a", 30))
        await self.store.create_cluster(ClusterFacts("c" * 32, 1))
        first = await self.store.lease("a", 30)
        assert first is not None
        self.assertEqual((first.owner, first.epoch), ("a", 2))
        self.assertIsNone(await self.store.lease("b", 30))
        await self.store.release("b")
        self.assertIsNone(await self.store.lease("b", 30))
        self.wall += 20
        renewed = await self.store.lease("a", 30)
        assert renewed is not None
        self.assertEqual(renewed.epoch, 2)
        self.assertGreater(renewed.until, first.until)
        self.wall += 20
        self.assertIsNone(await self.store.lease("b", 30))
        self.assertEqual(await self.store.cluster(), ClusterFacts("c" * 32, 2))

    async def test_a_lease_ends(self) -> None:
        """One that ran out or was given back is another's; its epoch is never used again."""
        await self.set_up()
        await self.store.create_cluster(ClusterFacts("c" * 32, 7))
        await self.store.lease("a", 30)
        self.wall += 31
        taken = await self.store.lease("b", 30)
        assert taken is not None
        self.assertEqual((taken.owner, taken.epoch), ("b", 9))
        await self.store.release("b")
        again = await self.store.lease("b", 30)
        assert again is not None
        self.assertEqual(again.epoch, 10)
        await self.store.release("b")
        self.assertEqual(await self.store.cluster(), ClusterFacts("c" * 32, 10))

    async def test_of_racing_owners_one_gets_the_lease(self) -> None:
        """All who ask at once but one get none."""
        await self.set_up()
        await self.store.create_cluster(ClusterFacts("c" * 32, 1))
        told = await gather([self.store.lease(f"o{i}", 30) for i in range(8)])
        self.assertEqual([each is None for each in told].count(False), 1, told)

    # Notes

    async def test_notes(self) -> None:
        """A note is kept as it was given, and replaced only over the mark it bears."""
        await self.set_up()
        self.assertIsNone(await self.store.note("k"))
        first = {"cursor": ["n", 3], "é": {"deep": None}, "list": [1, 2.5, True]}
        self.assertTrue(await self.store.set_note("k", first, ""))
        self.assertFalse(await self.store.set_note("k", {}, ""))
        note = await self.store.note("k")
        assert note is not None
        self.assertEqual(note.value, first)
        self.assertTrue(await self.store.set_note("k", {"a": 1}, note.mark))
        self.assertFalse(await self.store.set_note("k", {"a": 2}, note.mark))
        self.assertFalse(await self.store.set_note("other", {}, note.mark))
        self.assertIsNone(await self.store.note("other"))
        changed = await self.store.note("k")
        assert changed is not None
        self.assertEqual(changed.value, {"a": 1})
