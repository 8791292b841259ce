"""Records of uploads, and what nodes hold of one together."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.table import ROW as PACKED
from ostore.model.conditions import WriteCondition
from ostore.model.errors import Malformed
from ostore.model.resuming import (
    ROW,
    STRIPE,
    Paused,
    Tail,
    UploadRecord,
    UploadState,
    outcome_from_json,
    outcome_to_json,
)
from ostore.model.standing import newest, standing
from ostore.model.versions import Version

N, K, Q = 6, 4, 5
NODES = {index: f"{index:032x}" for index in range(N)}
RECORD = UploadRecord("a/b", 10 * STRIPE + 7, K, N - K, Q, NODES, "ab" * 16)


def rows(count: int, seed: int = 0) -> bytes:
    """So many rows; another seed gives others."""
    return b"".join(bytes([seed, number]) * 6 + b"." for number in range(count))


def state(
    stripes: int, settled: int, tails: tuple[Tail, ...] = (), seed: int = 0
) -> UploadState:
    """What a node says."""
    return UploadState(settled, settled, False, "", rows(stripes, seed), tails)


class RecordTests(SynchronousTestCase):
    """To text and back."""

    def test_round(self) -> None:
        """A record is read as it was written."""
        record = attrs.evolve(
            RECORD,
            digest="cd" * 32,
            headers={"content-type": "text/plain", "x-ostore-meta-ä": "ö"},
            replaced=("ef" * 16,),
            condition=WriteCondition.parse(
                '"a", W/"b"', "*", "Sun, 06 Nov 1994 08:49:37 GMT", create_only=True
            ),
        )
        self.assertEqual(UploadRecord.from_json(record.to_json()), record)
        self.assertEqual(UploadRecord.from_json(RECORD.to_json()), RECORD)

    @settings(deadline=None)
    @given(st.text())
    def test_anything(self, text: str) -> None:
        """What is no record is malformed."""
        self.assertRaises(Malformed, UploadRecord.from_json, text)
        self.assertRaises(Malformed, outcome_from_json, text)

    def test_missing(self) -> None:
        """Every field that has no default is needed, and no other is known."""
        shown = json.loads(RECORD.to_json())
        for key in ("name", "size", "nodes", "condition"):
            rest = {k: v for k, v in shown.items() if k != key}
            self.assertRaises(Malformed, UploadRecord.from_json, json.dumps(rest))
        more = json.dumps({**shown, "more": 1})
        self.assertRaises(Malformed, UploadRecord.from_json, more)

    def test_outcome(self) -> None:
        """A version's answer is the same again."""
        version = Version("a", 3, "ab" * 32, 5, 9, headers={"content-type": "x/y"})
        again = outcome_from_json(outcome_to_json(version))
        self.assertEqual(again.to_json(), version.to_json())

    def test_majority(self) -> None:
        """Whoever is left out of a claim cannot be a write quorum, nor hide k."""
        for k in range(1, 20):
            for m in range(20):
                for quorum in range(k, k + m + 1):
                    record = attrs.evolve(RECORD, data=k, parity=m, quorum=quorum)
                    left_out = record.shards - record.majority
                    self.assertLess(left_out, quorum)
                    self.assertLessEqual(k, record.majority)
                    self.assertLess(left_out, record.majority)

    def test_offset(self) -> None:
        """Whole stripes and a tail, the last stripe as short as it is."""
        self.assertEqual(RECORD.stripes, 11)
        self.assertEqual(RECORD.offset(0, 5), 5)
        self.assertEqual(RECORD.offset(10, 5), 10 * STRIPE + 5)
        self.assertEqual(RECORD.offset(11), RECORD.size)


@attrs.frozen
class Story:
    """A past: what was acknowledged, and what each node holds of it and of more."""

    acknowledged: int
    tail: int
    states: Mapping[int, UploadState]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """One claimant settled on some nodes, and wrote on from there.

    Others were left at an earlier epoch, with what is true, or with what a claimant
    wrote there that was never acknowledged.
    """
    base = draw(st.integers(0, 6))
    settled = draw(st.sets(st.sampled_from(range(N)), min_size=Q))
    acknowledged = base + draw(st.integers(0, 3))
    tail = draw(st.integers(0, 2))
    kept = draw(st.permutations(sorted(settled)))[: draw(st.integers(Q, len(settled)))]
    states = {}
    for index in range(N):
        further = acknowledged + draw(st.integers(0, 2))
        if index in kept:
            mine = Tail(acknowledged, 2, tail)
            own = (mine,) if tail and further == acknowledged else ()
            states[index] = state(further, 2, own)
        elif index in settled:
            states[index] = state(base + draw(st.integers(0, 4)), 2)
        else:
            old = draw(st.integers(0, base))
            strange = rows(draw(st.integers(0, 3)), 9)
            states[index] = UploadState(
                1, 1, False, "", rows(old) + strange, (Tail(acknowledged, 1, 9),)
            )
    return Story(acknowledged, tail, states)


class StandingTests(SynchronousTestCase):
    """What a claim goes on from."""

    @settings(deadline=None, max_examples=400)
    @given(stories(), st.sets(st.sampled_from(range(N)), max_size=3))
    def test_nothing_acknowledged_is_lost(self, story: Story, away: set[int]) -> None:
        """What was acknowledged is there; with two nodes away, or the upload waits."""
        seen = {i: each for i, each in story.states.items() if i not in away}
        try:
            found = standing(RECORD, seen)
        except Paused:
            self.assertGreater(len(away), 1)
            return
        self.assertGreaterEqual(found.stripes, story.acknowledged)
        if found.stripes == story.acknowledged and story.tail:
            further = any(s.stripes > story.acknowledged for s in story.states.values())
            self.assertTrue(found.tail == story.tail or further)
        self.assertEqual(found.rows, rows(found.stripes))
        self.assertGreaterEqual(len(found.complete()), K)

    @settings(deadline=None)
    @given(stories())
    def test_asked_twice(self, story: Story) -> None:
        """With all nodes there it never waits, and a quorum of them can hold it."""
        found = standing(RECORD, story.states)
        ready = found.complete() | set(found.rebuild(Q))
        self.assertGreaterEqual(len(ready), Q)
        self.assertLessEqual(found.acknowledged(Q)[0], found.stripes)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 5), min_size=N, max_size=N), st.integers(0, 3))
    def test_one_epoch(self, counts: list[int], away: int) -> None:
        """Nodes of one epoch: what k of them hold, unless more may be elsewhere."""
        states = {i: state(count, 1) for i, count in enumerate(counts[away:])}
        known = sorted(counts[away:], reverse=True)
        if len(known) < RECORD.majority:
            self.assertRaises(Paused, standing, RECORD, states)
            return
        stripes = known[K - 1]
        more = sum(count > stripes for count in known)
        if more and more + away >= Q:
            self.assertRaises(Paused, standing, RECORD, states)
            return
        found = standing(RECORD, states)
        self.assertEqual(found.stripes, stripes)
        self.assertEqual(
            found.prefix, {i: min(s.stripes, stripes) for i, s in states.items()}
        )

    def test_others_with_other_bytes(self) -> None:
        """Frames that differ count for nothing, however many there are."""
        states = {i: state(3, 2) for i in range(5)} | {5: state(5, 1, seed=7)}
        found = standing(RECORD, states)
        self.assertEqual((found.stripes, found.prefix[5]), (3, 0))

    def test_tails_of_older_claims(self) -> None:
        """A tail counts under the settled epoch alone."""
        old, new = Tail(3, 1, 500), Tail(3, 2, 100)
        states = {i: state(3, 2, (old, new)) for i in range(4)}
        states |= {i: state(3, 1, (old,)) for i in (4, 5)}
        found = standing(RECORD, states)
        self.assertEqual(found.tail, 100)
        self.assertEqual(found.tails, frozenset(range(4)))

    def test_newest(self) -> None:
        """The record of the highest settled epoch stands, claimed or not."""
        one = UploadState(9, 1, False, "old")
        two = UploadState(3, 3, False, "new")
        self.assertEqual(newest({"a": one, "b": two}), "new")

    def test_row(self) -> None:
        """Rows are as long here as in the tables of the coder."""
        self.assertEqual(PACKED.size, ROW)
