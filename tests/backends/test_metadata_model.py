"""The SQLite store against plain dictionaries, whatever is done in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.rows import bits, indices, successor
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.model.conditions import EntityTags, WriteCondition
from ostore.model.errors import NotFound, OstoreError
from ostore.model.versions import NewVersion, Version
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from tests.contracts.metadata import entries, hash_of, layout_of, shown

T = TypeVar("T")

Key = tuple[str, str]

NAMES = st.text("ab/é\U0001f4a9", min_size=1, max_size=4)
SOME = st.sampled_from(["a", "a/b", "é", "\U0001f4a9/a"])
BUCKETS = st.sampled_from(["", "", "", "x"])
CONTENTS = st.integers(1, 4)
CONDITIONS = st.one_of(
    st.just(WriteCondition()),
    st.just(WriteCondition(create_only=True)),
    CONTENTS.map(
        lambda n: WriteCondition(if_match=EntityTags(strong=frozenset([hash_of(n)])))
    ),
    st.just(WriteCondition(if_none_match=EntityTags(any=True))),
)


def run(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """What a coroutine gives that waits for nothing."""
    outcomes: list[T | Failure] = []
    ended = Deferred.fromCoroutine(work).addBoth(outcomes.append)
    assert ended.called
    (outcome,) = outcomes
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome


class StoreMachine(RuleBasedStateMachine):
    """Writes, deletes, purges and mends; after each step the store is as the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.folder = tempfile.mkdtemp()
        clock = Clock(Timers(), lambda: 0.0, lambda: self.now)
        self.store = SqliteStore(
            str(Path(self.folder) / "metadata.sqlite"),
            clock,
            InlineWorkers(),
            InlineWriter(),
            durable=False,
        )
        run(self.store.start())
        self.versions: dict[Key, dict[int, Version]] = {}
        self.high: dict[Key, int] = {}
        self.created: dict[Key, int] = {}
        self.put_ids = 0

    def teardown(self) -> None:
        """Remove the store's folder."""
        run(self.store.stop())
        shutil.rmtree(self.folder)

    def newest(self, key: Key) -> Version | None:
        """The model's newest version."""
        standing = self.versions.get(key)
        return standing[max(standing)] if standing else None

    def add(self, new: NewVersion) -> None:
        """Write through both; they agree on the outcome."""
        key = (new.bucket, new.name)
        below = self.newest(key)
        etag = None if below is None or below.deleted else below.hash
        expected: type[OstoreError] | None = None
        if new.deleted and etag is None:
            expected = NotFound
        else:
            try:
                new.condition.check(etag)
            except OstoreError as error:
                expected = type(error)
        try:
            made = run(self.store.add_version(new))
        except OstoreError as error:
            assert type(error) is expected, (error, expected)
            return
        assert expected is None, expected
        number = self.high.get(key, 0) + 1
        created = max(int(self.now * 1000), self.created.get(key, 0) + 1)
        assert made == Version(
            name=new.name,
            number=number,
            hash=new.hash,
            size=new.size,
            created=created,
            deleted=new.deleted,
            put_id=new.put_id,
            bucket=new.bucket,
            layout=new.layout,
            degraded=new.degraded,
        )
        self.high[key], self.created[key] = number, created
        self.versions.setdefault(key, {})[number] = made

    def put_id(self) -> str:
        """A new one."""
        self.put_ids += 1
        return f"{self.put_ids:032x}"

    @rule(
        bucket=BUCKETS,
        name=st.one_of(NAMES, SOME),
        content=CONTENTS,
        missing=st.sets(st.integers(0, 5), max_size=2),
        condition=CONDITIONS,
    )
    def put(
        self,
        bucket: str,
        name: str,
        content: int,
        missing: set[int],
        condition: WriteCondition,
    ) -> None:
        """A version, perhaps with shards missing, perhaps refused."""
        self.add(
            NewVersion(
                name,
                self.put_id(),
                hash=hash_of(content),
                size=5,
                bucket=bucket,
                layout=layout_of(content % 2),
                degraded=tuple(sorted(missing)),
                condition=condition,
            )
        )

    @rule(bucket=BUCKETS, name=SOME, condition=CONDITIONS)
    def delete(self, bucket: str, name: str, condition: WriteCondition) -> None:
        """A marker, perhaps refused."""
        self.add(
            NewVersion(
                name, self.put_id(), deleted=True, bucket=bucket, condition=condition
            )
        )

    @rule(number=st.integers(1, 100))
    def repeat(self, number: int) -> None:
        """An old put_id once more, of a version that is still there."""
        for key, standing in self.versions.items():
            for version in standing.values():
                if version.put_id == f"{number:032x}":
                    new = NewVersion(key[1], version.put_id, bucket=key[0])
                    assert run(self.store.add_version(new)) == version

    @rule(bucket=BUCKETS, name=SOME, back=st.integers(0, 3))
    def purge(self, bucket: str, name: str, back: int) -> None:
        """One of the newest numbers, there or not."""
        number = self.high.get((bucket, name), 0) - back
        standing = self.versions.get((bucket, name), {})
        gone = standing.pop(number, None) is not None
        assert run(self.store.purge(bucket, name, number)) is gone

    @rule(content=CONTENTS)
    def mend(self, content: int) -> None:
        """Clear the marks of one content."""
        for each in run(self.store.degraded("", 100)):
            if each.hash == hash_of(content):
                run(self.store.clear_degraded(each.marks))
                for bucket, name, number in each.marks:
                    standing = self.versions[bucket, name]
                    found = run(self.store.version(bucket, name, number))
                    assert found is not None
                    assert found.degraded == ()
                    standing[number] = found

    @rule(bucket=BUCKETS, name=SOME, back=st.integers(0, 3), index=st.integers(0, 5))
    def lack(self, bucket: str, name: str, back: int, index: int) -> None:
        """One of the newest numbers, there or not, says that it lacks a shard."""
        number = self.high.get((bucket, name), 0) - back
        run(self.store.mark_degraded([(bucket, name, number)], [index]))
        standing = self.versions.get((bucket, name), {})
        found = standing.get(number)
        if found is not None and not found.deleted:
            degraded = tuple(sorted({*found.degraded, index}))
            standing[number] = attrs.evolve(found, degraded=degraded)

    @rule(seconds=st.sampled_from([-100.0, 0.0, 0.001, 50.0]))
    def tick(self, seconds: float) -> None:
        """The wall clock moves, or jumps back."""
        self.now += seconds

    @rule()
    def open_again(self) -> None:
        """The process ends and the next one takes over."""
        run(self.store.stop())
        path, clock = self.store._place.path, self.store._clock
        self.store = SqliteStore(
            path, clock, InlineWorkers(), InlineWriter(), durable=False
        )
        run(self.store.start())

    @invariant()
    def versions_agree(self) -> None:
        """Every version by number, newest and in the pages of its bucket."""
        for bucket in ("", "x"):
            expected = [
                version
                for (of, name), standing in sorted(self.versions.items())
                for _, version in sorted(standing.items())
                if of == bucket
            ]
            found = run(self.store.all_versions(bucket, ("", 0), 1000))
            assert list(found) == expected
        for key in self.high:
            assert run(self.store.latest(*key)) == self.newest(key)

    @invariant()
    def listings_agree(self) -> None:
        """The whole listing, plain and rolled up."""
        for bucket in ("", "x"):
            live = []
            for key in self.versions:
                newest = self.newest(key)
                if key[0] == bucket and newest is not None and not newest.deleted:
                    live.append(key[1])
            for delimiter in ("", "/"):
                page = run(self.store.listing(bucket, "", delimiter, "", 1000))
                assert shown(page) == entries(live, "", delimiter)

    @invariant()
    def contents_agree(self) -> None:
        """Hashes that are referred to, and what is incomplete, worst first."""
        standing = [v for every in self.versions.values() for v in every.values()]
        hashes = sorted({v.hash for v in standing if not v.deleted})
        assert list(run(self.store.hashes("", 100))) == hashes
        missing: dict[tuple[str, str], set[int]] = {}
        marks: dict[tuple[str, str], set[tuple[str, str, int]]] = {}
        for v in standing:
            if v.degraded and v.layout is not None:
                content = (v.hash, v.layout.id)
                missing.setdefault(content, set()).update(v.degraded)
                marks.setdefault(content, set()).add((v.bucket, v.name, v.number))
        order = sorted(missing, key=lambda content: (-len(missing[content]), content))
        assert [
            ((each.hash, each.layout.id), set(each.missing), set(each.marks))
            for each in run(self.store.degraded("", 100))
        ] == [(content, missing[content], marks[content]) for content in order]


class ModelTests(SynchronousTestCase):
    """The machine, and the little functions it stands on."""

    def test_store_agrees_with_the_model(self) -> None:
        """No sequence of steps makes the store differ from plain dictionaries."""
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=60, stateful_step_count=30, deadline=None, database=None
            ),
        )

    def test_successor_is_the_end_of_a_prefix(self) -> None:
        """It is greater than all that begin so, and nothing lies between."""
        self.assertEqual(successor("a"), "b")
        self.assertEqual(successor("a/"), "a0")
        self.assertEqual(successor("\ud7ff"), "\ue000")
        self.assertEqual(successor("a\U0010ffff\U0010ffff"), "b")
        self.assertIsNone(successor("\U0010ffff"))
        self.assertIsNone(successor(""))

    def test_shard_sets(self) -> None:
        """Indices come back ascending and once."""
        self.assertEqual(indices(bits((31, 0, 7, 7))), (0, 7, 31))
        self.assertEqual(indices(bits(())), ())
