"""The checker of histories: it refuses what is wrong and takes whatever is right."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.model.conditions import EntityTags, WriteCondition
from ostore.model.errors import AlreadyExists, ConditionFailed, NotFound
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.tasks import start
from tests.support.linearizable import (
    UNKNOWN,
    Add,
    Answer,
    ByPutId,
    Call,
    Get,
    Latest,
    Operation,
    Purge,
    Seen,
    Versions,
    explain,
)
from tests.support.recorder import Nothing, Recorder, ask, told

CREATE_ONLY = WriteCondition(create_only=True)
CONDITIONS = (
    WriteCondition(),
    WriteCondition(),
    CREATE_ONLY,
    WriteCondition(if_match=EntityTags(strong=frozenset("x"))),
    WriteCondition(if_none_match=EntityTags(any=True)),
)
CALLS: st.SearchStrategy[Call] = st.one_of(
    st.builds(
        Add,
        st.integers(0, 7).map(str),
        st.just("x"),
        st.just(False),
        st.sampled_from(CONDITIONS),
    ),
    st.builds(Add, st.integers(8, 9).map(str), st.just("y")),
    st.builds(Add, st.integers(10, 12).map(str), st.just(""), st.just(True)),
    st.just(Latest()),
    st.builds(Get, st.integers(0, 4)),
    st.builds(ByPutId, st.integers(0, 12).map(str)),
    st.builds(Versions, st.integers(0, 3), st.integers(1, 3)),
    st.builds(Purge, st.integers(0, 4)),
)
STEPS = st.lists(
    st.tuples(
        CALLS,
        st.sampled_from(["told", "told", "told", "lost", "dropped"]),
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    max_size=14,
)
"""A call, what becomes of it, and how long before and after its step it is under way."""


def version(number: int) -> Seen:
    """What `put(number)` is to make."""
    return Seen(number, f"content {number}", False, 10 * number, f"put {number}")


def put(number: int) -> Add:
    """The write that makes that version."""
    return Add(f"put {number}", f"content {number}")


def written(number: int) -> tuple[Call, Answer]:
    """A write and its version."""
    return put(number), version(number)


def in_turn(*steps: tuple[Call, Answer]) -> list[Operation]:
    """Each begins when the one before it is over."""
    return [
        Operation(call, answer, 2 * i, 2 * i + 1)
        for i, (call, answer) in enumerate(steps)
    ]


def then(before: Sequence[Operation], *steps: tuple[Call, Answer]) -> list[Operation]:
    """All begin together, when those before are over."""
    since = max([each.returned for each in before], default=0.0) + 1
    later = [Operation(call, answer, since, since + 1) for call, answer in steps]
    return [*before, *later]


class CheckerTests(SynchronousTestCase):
    """Histories by hand."""

    def assertRight(self, history: Sequence[Operation]) -> None:
        """It can be explained."""
        self.assertIsNone(explain(history))

    def assertWrong(self, history: Sequence[Operation]) -> None:
        """It cannot, in whatever order it is told."""
        self.assertIsNotNone(explain(history))
        self.assertIsNotNone(explain(history[::-1]))

    # The five that matter most

    def test_one_number_for_two_writes(self) -> None:
        """Two racing writes both told that they made version 1: wrong."""
        other = attrs.evolve(version(1), put_id="put 2", hash="content 2", created=11)
        self.assertWrong(then([], written(1), (put(2), other)))
        same = attrs.evolve(version(1), put_id="put 2")
        twin = Add("put 2", "content 1")
        self.assertWrong(then([], written(1), (twin, same)))
        self.assertRight(then([], written(1), written(2)))

    def test_an_acknowledged_write_that_is_lost(self) -> None:
        """A version that was told and is not among the name's: wrong."""
        before = in_turn(written(1), written(2))
        self.assertWrong(then(before, (Versions(), (version(1),))))
        self.assertWrong(then(before, (Get(2), None)))
        self.assertWrong(then(before, (ByPutId("put 1"), None)))
        self.assertWrong(then(before, (Purge(1), False)))
        self.assertRight(then(before, (Versions(), (version(1), version(2)))))

    def test_a_stale_read(self) -> None:
        """The version below, read after the write was acknowledged: wrong."""
        before = in_turn(written(1), written(2))
        self.assertWrong(then(before, (Latest(), version(1))))
        self.assertRight([*before, Operation(Latest(), version(1), 2.5, 9)])
        marker = attrs.evolve(version(2), hash="", deleted=True)
        deleted = in_turn(written(1), (Add("put 2", deleted=True), marker))
        self.assertWrong(then(deleted, (Latest(), version(1))))
        self.assertRight(then(deleted, (Latest(), marker)))

    def test_a_number_used_again_after_a_purge(self) -> None:
        """The number of a purged version given to another: wrong."""
        again = attrs.evolve(version(2), number=1)
        self.assertWrong(in_turn(written(1), (Purge(1), True), (put(2), again)))
        quiet = in_turn((put(1), UNKNOWN), (Purge(1), True), (put(2), again))
        self.assertWrong(quiet)
        self.assertRight(in_turn(written(1), (Purge(1), True), written(2)))

    def test_two_readers_of_two_orders(self) -> None:
        """One reader sees version 2 and then 1, another 1 and then 2: wrong."""
        writes = [Operation(*written(n), 0, 100) for n in (1, 2)]
        forth = [
            Operation(Latest(), version(1), 1, 2),
            Operation(Latest(), version(2), 3, 4),
        ]
        back = [
            Operation(Latest(), version(2), 5, 6),
            Operation(Latest(), version(1), 7, 8),
        ]
        self.assertRight([*writes, *forth])
        self.assertWrong([*writes, *back])
        self.assertWrong([*writes, *forth, *back])
        unsure = [Operation(put(n), UNKNOWN, 0) for n in (1, 2)]
        self.assertRight([*unsure, *forth])
        self.assertWrong([*unsure, *forth, *back])

    # Others

    def test_a_number_left_out(self) -> None:
        """Numbers of a name without other writers have no gaps."""
        self.assertWrong(in_turn(written(1), written(3)))
        self.assertWrong(in_turn(written(2)))
        unsure = [Operation(put(2), UNKNOWN, 0.5)]
        self.assertRight([*unsure, *in_turn(written(1), written(3))])
        late = [Operation(put(2), UNKNOWN, 3.5)]
        self.assertWrong([*late, *in_turn(written(1), written(3))])

    def test_time_that_does_not_grow(self) -> None:
        """`created` of a later version is later, even over a purge."""
        late = attrs.evolve(version(2), created=10)
        self.assertWrong(in_turn(written(1), (put(2), late)))
        self.assertWrong(in_turn(written(1), (Purge(1), True), (put(2), late)))

    def test_what_is_below_the_newest_shows(self) -> None:
        """Without the newest the one below is the latest, and nothing else."""
        before = in_turn(written(1), written(2), (Purge(2), True))
        self.assertRight(then(before, (Latest(), version(1)), (Get(2), None)))
        self.assertWrong(then(before, (Latest(), None)))
        self.assertWrong(then(before, (Purge(2), True)))
        self.assertWrong(then(before[:2], (Purge(2), True), (Purge(2), True)))

    def test_markers_and_conditions(self) -> None:
        """Of two racing deletions, creators or replacers one goes through."""
        first = in_turn(written(1))
        markers = [
            (Add(f"put {n}", deleted=True), Seen(n, "", True, 10 * n, f"put {n}"))
            for n in (2, 3)
        ]
        self.assertWrong(then(first, *markers))
        self.assertRight(then(first, markers[0], (markers[1][0], NotFound)))
        self.assertWrong(then([], (markers[0][0], UNKNOWN), (Latest(), markers[0][1])))
        creators = [attrs.evolve(put(n), condition=CREATE_ONLY) for n in (1, 2)]
        self.assertWrong(then([], *zip(creators, map(version, (1, 2)), strict=True)))
        lost: tuple[Call, Answer] = (creators[1], AlreadyExists)
        self.assertRight(then([], (creators[0], version(1)), lost))
        self.assertWrong(then([], (creators[0], AlreadyExists), lost))
        old = WriteCondition(if_match=EntityTags(strong=frozenset(["content 1"])))
        replacers = [attrs.evolve(put(n), condition=old) for n in (2, 3)]
        self.assertWrong(
            then(first, *zip(replacers, map(version, (2, 3)), strict=True))
        )
        self.assertRight(
            then(first, (replacers[0], version(2)), (replacers[1], ConditionFailed))
        )

    def test_a_write_that_is_repeated(self) -> None:
        """The same put_id gives the same version, whatever was written between."""
        self.assertRight(in_turn(written(1), written(2), written(1)))
        twice = attrs.evolve(version(2), put_id="put 1", hash="content 1")
        self.assertWrong(in_turn(written(1), (put(1), twice)))

    def test_a_write_of_unknown_outcome(self) -> None:
        """It may show late or never, but not twice and not before it was begun."""
        unsure = [Operation(put(1), UNKNOWN, 5)]
        reads: list[tuple[Call, Answer]] = [
            (Latest(), None),
            (Latest(), None),
            (Latest(), None),
            (Latest(), version(1)),
        ]
        self.assertRight([*unsure, *in_turn(*reads)])
        self.assertWrong([*unsure, *in_turn(*reads[::-1])])
        self.assertRight([*unsure, *in_turn(*reads[:3])])
        self.assertWrong([*unsure, *in_turn(*reads, (Latest(), None))])
        purged = [Operation(Purge(1), UNKNOWN, 0)]
        self.assertRight([*unsure, *purged, *in_turn(*reads, (Latest(), None))])
        self.assertWrong([*unsure, *purged, *in_turn(*reads, *reads)])

    def test_a_long_history(self) -> None:
        """Thousands of operations with few at a time are checked all the same."""
        history = [
            Operation(*written(n), 10 * n + shift, 10 * n + shift + 15)
            for n, shift in zip(range(1, 1500), [0, 7] * 750, strict=False)
        ]
        self.assertRight(history)
        lost = Operation(Latest(), version(700), 10_000, 10_001)
        self.assertWrong([*history, lost])


class ExecutionTests(SynchronousTestCase):
    """Histories that a store really made."""

    def setUp(self) -> None:
        """A store; every example has a name of its own in it."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.store = SqliteStore(
            str(Path(folder) / "metadata.sqlite"),
            Clock(Timers(), lambda: 0.0, lambda: 1000.0),
            InlineWorkers(),
            InlineWriter(),
            durable=False,
        )
        self.successResultOf(start(self.store.start()))
        self.names = 0

    def executed(self, steps: Any) -> list[Operation]:
        """Run the calls one by one; each is under way for a while around its step."""
        self.names += 1
        history = []
        for at, (call, fate, before, after) in enumerate(steps):
            write = isinstance(call, Add | Purge)
            answer: Answer = UNKNOWN
            if fate != "dropped":
                done = ask(self.store, f"name {self.names}", call)
                answer = self.successResultOf(start(done))
            if fate == "told":
                history.append(Operation(call, answer, at - before, at + after + 0.5))
            elif write:
                history.append(Operation(call, UNKNOWN, at - before))
        return history

    def test_whatever_was_executed_is_right(self) -> None:
        """Single steps in any order, stretched over any time, some told to nobody."""

        @settings(max_examples=150, deadline=None, database=None)
        @given(STEPS)
        def check(steps: Any) -> None:
            history = self.executed(steps)
            self.assertIsNone(explain(history))

        check()

    def test_a_changed_answer_is_wrong(self) -> None:
        """With all steps apart in time, no answer can be exchanged for another."""
        others: list[Answer] = [None, True, False, (), NotFound, Seen(9, "x", False, 9)]

        @settings(max_examples=80, deadline=None, database=None)
        @given(STEPS, st.integers(0, 99), st.sampled_from(others))
        def check(steps: Any, which: int, other: Answer) -> None:
            apart = [(call, "told", 0, 0) for call, *_ in steps]
            history = self.executed(apart)
            if history:
                at = which % len(history)
                standing = history[at].answer
                history[at] = attrs.evolve(history[at], answer=other)
                self.assertEqual(explain(history) is None, standing is other)

        check()


class RecorderTests(SynchronousTestCase):
    """What becomes of answers and errors."""

    def recorded(self, call: Call, error: Exception | None = None) -> list[Operation]:
        """The history of one call that answers True or fails."""
        times = iter(range(9))
        recorder = Recorder(lambda: next(times))

        async def work() -> Answer:
            if error is not None:
                raise error
            return True

        self.successResultOf(start(recorder.run("n", call, work())))
        return recorder.histories.get("n", [])

    def test_answers_and_errors(self) -> None:
        """An answer has its times; a write that broke is unknown, a read is nothing."""
        self.assertEqual(self.recorded(Purge(1)), [Operation(Purge(1), True, 0, 1)])
        lost = self.recorded(Purge(1), OSError("cut"))
        self.assertEqual(lost, [Operation(Purge(1), UNKNOWN, 0)])
        self.assertEqual(self.recorded(Latest(), OSError("cut")), [])
        self.assertEqual(self.recorded(put(1), Nothing()), [])

    def test_a_wrong_history_is_named(self) -> None:
        """`wrong` tells the name and the operations that do not fit."""
        times = iter(range(9))
        recorder = Recorder(lambda: next(times))

        async def work() -> Answer:
            return True

        self.assertIsNone(recorder.wrong())
        self.successResultOf(start(recorder.run("name 7", Purge(1), work())))
        self.assertRegex(recorder.wrong() or "", r"(?s)'name 7': .*Purge")

    def test_http(self) -> None:
        """Statuses, headers and JSON of the HTTP interface as answers."""
        shown = (
            b'{"name":"n","version":3,"size":1,"hash":"q80=","created":'
            b'"1970-01-01T00:00:01.234Z","deleted":false}'
        )
        seen = Seen(3, "abcd", False, 1234)
        tag = {"x-ostore-version": "3", "etag": '"abcd-gzip"'}
        hidden = {"x-ostore-version": "3", "x-ostore-delete-marker": "true"}
        table: list[tuple[Call, int, dict[str, str], bytes, Answer]] = [
            (put(1), 200, {}, shown, seen),
            (put(1), 201, {}, shown, seen),
            (put(1), 404, {}, b"", NotFound),
            (put(1), 409, {}, b"", AlreadyExists),
            (put(1), 412, {}, b"", ConditionFailed),
            (put(1), 503, {}, b"", UNKNOWN),
            (Purge(1), 204, {}, b"", True),
            (Purge(1), 404, {}, b"", False),
            (Latest(), 200, tag, b"", Seen(3, "abcd")),
            (Latest(), 404, hidden, b"", Seen(3, "", True)),
            (Get(1), 404, {}, b"", None),
            (Versions(), 200, {}, shown + b"\n" + shown + b"\n", (seen, seen)),
        ]
        for call, status, headers, body, answer in table:
            self.assertEqual(told(call, status, headers, body), answer)
        for call, status in ((put(1), 400), (Latest(), 503), (Versions(), 503)):
            self.assertRaises(Nothing, told, call, status, {}, b"")
