"""Who is alive, as told by heartbeats."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.nodes import Boot, Heartbeat, Members

TIMEOUT = 10.0
FIRST = Boot(1, "1" * 16)
BEAT = Heartbeat("n1", FIRST, 1, "http://n1", "z", 5, 10, 0, "up", 0.0)


def beat(counter: int, chance: str, seq: int, state: str = "up") -> Heartbeat:
    """A heartbeat of n1."""
    return attrs.evolve(BEAT, boot=Boot(counter, chance * 16), seq=seq, state=state)


def state(members: Members, now: float) -> str:
    """The state of n1."""
    return members.by_id["n1"].state(now, members.timeout)


class MembersTests(SynchronousTestCase):
    """One node after another event."""

    def setUp(self) -> None:
        """n1 was heard at 0."""
        self.members = Members(TIMEOUT).heard(BEAT, 0.0)

    def test_down(self) -> None:
        """A node is there up to the time-out, then down until it is heard again."""
        self.assertEqual(state(self.members, TIMEOUT), "up")
        self.assertEqual(state(self.members, TIMEOUT + 0.1), "down")
        self.assertEqual(self.members.live(TIMEOUT + 0.1), [])
        again = self.members.heard(beat(1, "1", 2), 99.0)
        self.assertEqual(state(again, 99.0), "up")

    def test_suspect(self) -> None:
        """A suspect stays live, is not trusted, and is cleared by a heartbeat."""
        members = self.members.suspect("n1", 1.0)
        self.assertEqual(state(members, 1.0), "suspect")
        self.assertEqual(len(members.live(1.0)), 1)
        self.assertEqual(members.trusted(1.0), [])
        self.assertEqual(members.suspect("n1", 5.0), members)
        self.assertEqual(members.suspect("n2", 5.0), members)
        self.assertEqual(state(members, TIMEOUT + 1), "down")
        members = members.heard(beat(1, "1", 2, "full"), 2.0)
        self.assertEqual(state(members, 2.0), "full")
        self.assertEqual(len(members.trusted(2.0)), 1)

    def test_resumed(self) -> None:
        """After deafness who was there has a whole time-out; who was down stays down."""
        kept = self.members.resumed(TIMEOUT, 500.0)
        self.assertEqual(state(kept, 500.0 + TIMEOUT), "up")
        self.assertEqual(state(kept, 500.0 + TIMEOUT + 0.1), "down")
        gone = self.members.resumed(TIMEOUT + 0.1, 500.0)
        self.assertEqual(state(gone, 500.0), "down")
        self.assertEqual(gone.last_down(500.0), 0.0)

    def test_resumed_judges_nobody(self) -> None:
        """Deafness clears no suspicion, takes no heartbeat and makes nobody older."""
        suspect = self.members.suspect("n1", 1.0).resumed(1.0, 2.0)
        self.assertEqual(state(suspect, 2.0), "suspect")
        self.assertEqual(suspect.by_id["n1"].beat, BEAT)
        self.assertEqual(self.members.resumed(0.0, -1.0), self.members)

    def test_repeated(self) -> None:
        """A heartbeat that was seen before neither revives nor clears."""
        members = self.members.suspect("n1", 1.0)
        self.assertIs(members.heard(BEAT, 99.0), members)
        self.assertEqual(state(members, 99.0), "down")

    def test_older_boot(self) -> None:
        """One late heartbeat of an older boot, or of equal count, changes nothing."""
        members = self.members.heard(beat(2, "2", 1), 1.0)
        for late in (beat(1, "1", 9), beat(2, "3", 9)):
            after = members.heard(late, 8.0)
            self.assertEqual(after.by_id["n1"].beat.boot, Boot(2, "2" * 16))
            self.assertEqual(after.by_id["n1"].heard, 1.0)
            self.assertEqual(state(after, 8.0), "up")
            self.assertEqual(state(after.heard(late, 8.5), 8.5), "up")

    def test_new_boot(self) -> None:
        """A newer boot counts from any sequence number on."""
        members = self.members.heard(beat(2, "2", 0), 1.0)
        self.assertEqual(members.by_id["n1"].beat.seq, 0)

    def test_conflict(self) -> None:
        """Two processes that go on under one id get nothing until a newer boot."""
        members = self.members.heard(beat(2, "2", 1), 1.0)
        members = members.heard(beat(1, "1", 8), 2.0).heard(beat(1, "1", 9), 3.0)
        self.assertEqual(state(members, 3.0), "conflict")
        self.assertEqual(members.live(3.0), [])
        members = members.heard(beat(2, "2", 2), 4.0)
        self.assertEqual(state(members, 4.0), "conflict")
        members = members.heard(beat(3, "3", 1), 5.0)
        self.assertEqual(state(members, 5.0), "up")

    def test_last_down(self) -> None:
        """The node that left last is the one that counts."""
        self.assertIsNone(self.members.last_down(1.0))
        members = self.members.heard(attrs.evolve(BEAT, node="n2"), 5.0)
        self.assertEqual(members.last_down(12.0), 0.0)
        self.assertEqual(members.last_down(16.0), 5.0)


class MembersMachine(RuleBasedStateMachine):
    """Members against a plain account of what was heard when."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.members = Members(TIMEOUT)
        self.newest: tuple[int, str, int] | None = None
        self.heard = 0.0
        self.suspected = False

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(
        counter=st.integers(1, 3), chance=st.sampled_from("ab"), seq=st.integers(0, 3)
    )
    def hear(self, counter: int, chance: str, seq: int) -> None:
        """A heartbeat comes, in order or not."""
        before = self.members
        self.members = before.heard(beat(counter, chance, seq), self.now)
        newest = self.newest
        if (
            newest is None
            or counter > newest[0]
            or ((counter, chance) == newest[:2] and seq > newest[2])
        ):
            self.newest = (counter, chance, seq)
            self.heard = self.now
            self.suspected = False

    @rule()
    def suspect(self) -> None:
        """It refuses a connection."""
        self.members = self.members.suspect("n1", self.now)
        self.suspected = self.newest is not None

    @invariant()
    def agrees(self) -> None:
        """The newest heartbeat counts, its arrival is the life sign, nothing else."""
        if self.newest is None:
            assert not self.members.by_id
            return
        member = self.members.by_id["n1"]
        boot = member.beat.boot
        assert (boot.counter, boot.random[0], member.beat.seq) == self.newest
        assert member.heard == self.heard
        assert (member.suspected is not None) == self.suspected
        down = self.now - self.heard > TIMEOUT
        live = not down and not member.conflict
        assert bool(self.members.live(self.now)) == live
        assert bool(self.members.trusted(self.now)) == (live and not self.suspected)
        last = self.heard if down and not member.conflict else None
        assert self.members.last_down(self.now) == last


class MachineTests(SynchronousTestCase):
    """Runs the machine under Trial."""

    def test_machine(self) -> None:
        """In every order of events the newest word of a node is what counts."""
        machine = MembersMachine.TestCase
        machine.settings = settings(
            deadline=None, max_examples=100, stateful_step_count=30
        )
        machine("runTest").debug()

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 20), max_size=20))
    def test_sequence_never_goes_back(self, numbers: list[int]) -> None:
        """Within a boot the last heartbeat kept is the one with the highest number."""
        members = Members(TIMEOUT).heard(BEAT, 0.0)
        for number in numbers:
            members = members.heard(beat(1, "1", number), 1.0)
        self.assertEqual(members.by_id["n1"].beat.seq, max([1, *numbers]))
