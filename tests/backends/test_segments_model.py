"""Random histories of a segment log, with faults, power cuts and copying in them."""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from random import Random
from typing import get_args

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.incoming import whole_file
from ostore.backends.shards.ledger import Ledger
from ostore.backends.shards.new import NewShard
from ostore.backends.shards.paths import Paths
from ostore.backends.shards.segments.log import SegmentLog
from ostore.backends.shards.segments.packed import PackedShards
from ostore.model.errors import NodeUnreachable
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from tests.backends.test_shards_crash import done, outcome
from tests.contracts.shards import sample
from tests.support.disk import Data, Entries, PowerCut, SimulatedDisk

ROOT = "/data"
LIMIT = 30_000
SHARDS = [sample(seed, 20_000 + 900 * seed) for seed in range(4)]
ABSENT, STANDING, GARBAGE = "absent", "standing", "garbage"


@attrs.frozen
class State:
    """Where a shard is, and since when; `since` means nothing for an absent one."""

    where: str = ABSENT
    since: float = 0.0


NOTHING = State()


class Life:
    """A log that lives through crashes, and what may be true of each shard.

    `now`: what the running process has to say; `later`: what else a start may find,
    because it was written without being acknowledged.
    """

    def __init__(self) -> None:
        self.time = task.Clock()
        self.disk = SimulatedDisk(self.wall)
        self.disk.make(ROOT)
        self.now = [NOTHING] * len(SHARDS)
        self.later: list[set[State]] = [set() for _ in SHARDS]
        self.starts = 0
        self.start()

    def wall(self) -> float:
        """Seconds since 1970."""
        return 1000.0 + self.time.seconds()

    def start(self) -> None:
        """A process on the disk as it is."""
        self.starts += 1
        self.disk.fault = None
        clock = Clock(self.time, self.time.seconds, self.wall)
        disk = Disk(self.disk, Paths(ROOT))
        entropy = Random(self.starts).randbytes
        self.log = SegmentLog(
            disk, lambda: None, InlineWorkers(), clock, entropy, limit=LIMIT
        )
        self.shards = PackedShards(self.log, clock)
        self.shards.ledger = Ledger()

    def state(self, number: int) -> State:
        """What the process says of a shard."""
        one = SHARDS[number]
        facts = [f for f in self.shards.facts(one.key.hash) if f.state != "bad"]
        standing = [f for f in facts if f.state == "whole"]
        found = standing or facts
        if not found:
            return NOTHING
        where = STANDING if standing else GARBAGE
        return State(where, self.wall() - min(f.age for f in found))

    def work(self, what: str, number: int) -> tuple[Awaitable[object], State] | None:
        """An operation and what it leads to; None when it makes no sense now."""
        one, now = SHARDS[number], self.now[number]
        hash, layout, wall = one.key.hash, one.layout, self.wall()
        parts = whole_file(one.key, layout, one.frames)
        if what == "put":
            put = self.shards.put(NewShard(one.key, layout, parts, None, 0.0))
            return put, State(STANDING, wall)
        if what == "renew" and now.where == STANDING:
            return self.shards.renew(hash, layout.id), State(STANDING, wall)
        if what == "discard" and now.where == STANDING:
            return self.shards.discard(one.key), State(GARBAGE, wall)
        if what == "restore" and now.where == GARBAGE:
            back = self.shards.give_back(hash, None, set(), fresh=True)
            return back, State(STANDING, wall)
        if what == "erase" and now.where == GARBAGE:
            return self.shards.erase(one.key, 0.0), NOTHING
        return None


NEXT = {
    ABSENT: ("put", "put", "put", "put", "stop", "kill"),
    STANDING: ("discard", "discard", "put", "renew", "stop", "kill"),
    GARBAGE: ("erase", "erase", "erase", "restore", "put", "kill"),
}
STEPS = st.tuples(
    st.integers(0, 5),
    st.integers(0, len(SHARDS) - 1),
    st.one_of(
        st.none(),
        st.none(),
        st.tuples(st.sampled_from(["cut", "fail"]), st.integers(0, 60)),
    ),
)


class Histories(SynchronousTestCase):
    """Whatever happens, what was acknowledged is so, and reads as it was written."""

    def check(self, life: Life, number: int, allowed: set[State]) -> None:
        """The shard is as it may be, and its bytes are right."""
        found = life.state(number)
        self.assertIn(found, allowed)
        if found.where == STANDING:
            one = SHARDS[number]

            async def read() -> None:
                opened = await life.shards.open(one.key, bad=False)
                assert opened is not None
                offset, length = opened.index.frame_span(0)
                data = opened.source.at_hand(length, offset)
                assert data is not None
                self.assertEqual(opened.index.frame(0, data), one.frames[0])

            done(read())

    def begin(self, life: Life, disk: SimulatedDisk) -> None:
        """Start on that disk: what was acknowledged is there, the rest may be."""
        life.disk = disk
        life.start()
        done(life.log.load())
        for number in range(len(SHARDS)):
            allowed = {life.now[number], *life.later[number]}
            self.check(life, number, allowed)
            life.now[number] = life.state(number)
            life.later[number] = set()

    def step(
        self, life: Life, choice: int, number: int, fault: object, seed: int
    ) -> None:
        """One operation, with what happens to the disk in it."""
        rng = Random(seed)
        what = NEXT[life.now[number].where][choice]
        life.time.advance(1)
        if what == "kill":
            self.begin(life, life.disk.copy())
            return
        if what == "stop":
            done(life.log.stop())
            self.begin(life, life.disk.copy())
            return
        begun = life.work(what, number)
        if begun is None:
            return
        work, after = begun
        cut = False
        if isinstance(fault, tuple):
            kind, distance = fault
            at = len(life.disk.operations) + distance
            if kind == "cut":
                life.disk.cut_before = at
            else:
                life.disk.fault = lambda o: errno.EIO if o.number == at else None
        result = outcome(work)
        cut = life.disk.dark
        life.disk.cut_before = life.disk.fault = None
        if not isinstance(result, Failure):
            life.now[number] = after
            life.later = [set() for _ in SHARDS]
        else:
            life.later[number].add(after)
            if not cut:
                result.trap(NodeUnreachable)
        if cut:
            entries, data = rng.choice(get_args(Entries)), rng.choice(get_args(Data))
            self.begin(life, life.disk.after_power_cut(rng, entries, data))
        for each in range(len(SHARDS)):
            self.check(life, each, {life.now[each]})

    @settings(deadline=None, max_examples=50)
    @given(st.lists(STEPS, min_size=20, max_size=70), st.integers(0, 1 << 32))
    def test_any_history(self, steps: list[tuple[int, int, object]], seed: int) -> None:
        """No acknowledged change is lost, none is undone, nothing else is made up."""
        life = Life()
        done(life.log.load())
        for position, (choice, number, fault) in enumerate(steps):
            self.step(life, choice, number, fault, seed + position)
        self.flushLoggedErrors(PowerCut)
        self.begin(life, life.disk.copy())
        copied = life.disk.names(f"{ROOT}/segments")
        self.assertEqual([name for name in copied if not name.endswith(".seg")], [])
