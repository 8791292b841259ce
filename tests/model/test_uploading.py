"""The PUT machine: legal orders only, and a point of no return."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.layouts import Layout
from ostore.model.uploading import Facts, NoTransition, Upload

LAYOUT = Layout(4, 2, 9, "a" * 32)
ALLOWED = {
    "OPEN": {"begin", "drop"},
    "SENDING": {"end", "drop"},
    "ENDED": {"commit", "drop"},
    "COMMITTING": {"named", "record", "keep", "drop"},
    "KEPT": {"drop"},
    "DROPPED": {"drop"},
}
AFTER = {
    "begin": "SENDING",
    "end": "ENDED",
    "commit": "COMMITTING",
    "named": "COMMITTING",
    "record": "COMMITTING",
    "keep": "KEPT",
    "drop": "DROPPED",
}


class Machine(RuleBasedStateMachine):
    """Every input in every state, against the table above."""

    def __init__(self) -> None:
        super().__init__()
        self.facts = Facts()
        self.machine = Upload(self.facts)
        self.named: set[int] = set()

    def _give(self, word: str) -> None:
        before = self.facts.state
        call = getattr(self.machine, word)
        arguments = ({len(self.named)},) if word == "named" else ()
        if word in ALLOWED[before]:
            call(*arguments)
            after = before if before in ("KEPT", "DROPPED") else AFTER[word]
            assert self.facts.state == after
            self.named.update(*arguments)
        else:
            try:
                call(*arguments)
            except NoTransition:
                pass
            else:
                raise AssertionError(f"{word} was taken in {before}")
            assert self.facts.state == before

    @rule()
    def begin(self) -> None:
        """The body begins."""
        self._give("begin")

    @rule()
    def end(self) -> None:
        """The body ends."""
        self._give("end")

    @rule()
    def commit(self) -> None:
        """The digest agrees."""
        self._give("commit")

    @rule()
    @precondition(lambda self: len(self.named) < 6)
    def name(self) -> None:
        """One shard is durable."""
        self._give("named")

    @rule()
    def record(self) -> None:
        """The metadata is sent."""
        self._give("record")

    @rule()
    def keep(self) -> None:
        """The version stands."""
        self._give("keep")

    @rule()
    def drop(self) -> None:
        """Give up."""
        self._give("drop")

    @invariant()
    def durable(self) -> None:
        """Missing is exactly what was not named."""
        missing = set(self.facts.missing(LAYOUT))
        assert missing == set(range(6)) - self.named


Machine.TestCase.settings = settings(deadline=None, max_examples=60)


class UploadTests(SynchronousTestCase):
    """The machine as the engine drives it."""

    def test_random_walks(self) -> None:
        """Any order of inputs moves as the table says, or is refused."""
        Machine.TestCase("runTest").runTest()

    def test_happy_way(self) -> None:
        """A whole PUT ends KEPT and forgets nothing."""
        facts = Facts()
        machine = Upload(facts)
        machine.begin()
        machine.end()
        machine.commit()
        machine.named(range(4))
        machine.named([4])
        self.assertFalse(facts.recorded)
        machine.record()
        machine.keep()
        self.assertEqual(facts.missing(LAYOUT), (5,))
        self.assertTrue(facts.recorded)
