"""Bytes in flight are lent out of one pool."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.streaming.budget import Budget
from ostore.streaming.tasks import start

LIMIT = 100


class Lending(RuleBasedStateMachine):
    """Any order of takes, gives and gone waiters, against a simple model."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(LIMIT)
        self.asked: list[tuple[int, Deferred[None]]] = []

    @rule(amount=st.integers(1, 150))
    def take(self, amount: int) -> None:
        """Ask for some."""
        self.asked.append((amount, start(self.budget.take(amount))))

    def held(self) -> list[int]:
        """Amounts that were granted and not given back."""
        return [amount for amount, turn in self.asked if turn.called]

    @rule(data=st.data())
    @precondition(lambda self: self.held())
    def give(self, data: st.DataObject) -> None:
        """Give some back."""
        granted = [each for each in self.asked if each[1].called]
        each = data.draw(st.sampled_from(granted))
        self.asked.remove(each)
        self.budget.give(each[0])

    @rule(data=st.data())
    @precondition(lambda self: len(self.held()) < len(self.asked))
    def leave(self, data: st.DataObject) -> None:
        """Give up waiting."""
        waiting = [each for each in self.asked if not each[1].called]
        each = data.draw(st.sampled_from(waiting))
        self.asked.remove(each)
        _ = each[1].addErrback(lambda _: None)
        each[1].cancel()

    @invariant()
    def never_more_than_the_limit(self) -> None:
        """What is lent is what is held: within the limit, or one wish alone."""
        held = self.held()
        assert self.budget.lent == sum(held)
        assert sum(held) <= LIMIT or len(held) == 1

    @invariant()
    def first_come(self) -> None:
        """Nobody is served before one who came earlier, nobody waits in vain."""
        served = [turn.called for _, turn in self.asked]
        assert served == sorted(served, reverse=True)
        waiting = [amount for amount, turn in self.asked if not turn.called]
        if waiting:
            assert self.budget.lent > 0
            assert self.budget.lent + waiting[0] > LIMIT


Lending.TestCase.settings = settings(deadline=None, max_examples=60)


class BudgetTests(SynchronousTestCase):
    """The pool."""

    def test_any_order(self) -> None:
        """Whatever the order of takes, gives and cancellations: never over the limit."""
        Lending.TestCase("runTest").runTest()

    def test_larger_than_all(self) -> None:
        """A wish above the limit is granted when nothing else is lent."""
        budget = Budget(LIMIT)
        self.successResultOf(start(budget.take(1)))
        large = start(budget.take(LIMIT + 1))
        self.assertNoResult(large)
        budget.give(1)
        self.successResultOf(large)
        self.assertEqual(budget.lent, LIMIT + 1)
        budget.give(LIMIT + 1)
        self.assertEqual(budget.lent, 0)
