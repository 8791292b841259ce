"""Resumable uploads under any order of events, against what must hold of them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.resuming import Progress
from ostore.model.errors import ClientGone, NotFound
from ostore.model.resuming import Busy, Paused, WrongPart
from tests.engine.test_resuming import UploadCase
from tests.support.engine import MIB, Rig, some_bytes

SIZES = st.sampled_from([1, 1000, MIB - 1, MIB, MIB + 1, 3 * MIB])
APIS = 3


class Case(UploadCase):
    """Lends the machine its nodes and its clock."""

    expiry = 200.0  # longer than any history waits

    def runTest(self) -> None:  # noqa: N802 - unittest's name
        """Nothing: the machine calls the rest."""


class UploadMachine(RuleBasedStateMachine):
    """One upload, three apis, seven nodes of which at most one is away at a time.

    `least` bytes were acknowledged; nothing may ever say less.
    """

    @initialize(seed=st.integers(0, 1000), size=st.integers(1, 6 * MIB))
    def begin(self, seed: int, size: int) -> None:
        """An upload that was begun."""
        self.case = Case()
        self.case.setUp()
        self.case.rise(7)
        self.content = some_bytes(size, seed)
        self.token = self.case.start(size)
        self.apis = [self.case.other() for _ in range(APIS)]
        self.away: Rig | None = None
        self.least = 0
        self.finished = False

    def teardown(self) -> None:
        """It can be brought to its end, and the object is exact."""
        if not hasattr(self, "case"):
            return
        case = self.case
        try:
            if self.away is not None:
                self.away.come_back()
            case.pass_(11)
            for _ in range(20):
                if self.finished:
                    break
                self.send(0, 3 * MIB)
                case.pass_(1)
            case.assertTrue(self.finished)
            asked = case.outcome(self.token, size=len(self.content))
            case.assertEqual((asked.number, case.versions()), (1, [1]))
            case.assertEqual(case.run_(case.get()), self.content)
        finally:
            case.expire()
            case.doCleanups()

    def send(self, api: int, size: int, end: Exception | None = None) -> None:
        """Ask what is held, and send a part from there."""
        case, which = self.case, self.apis[api]
        try:
            held = case.held(self.token, which)
            case.assertGreaterEqual(held, self.least)
            part = self.content[held : held + size]
            progress = case.finish(case.part(self.token, held, part, which, end))
        except (Paused, Busy, WrongPart, ClientGone):
            return
        except NotFound:
            case.assertTrue(self.finished)
            return
        self.took(progress, held + len(part))

    def took(self, progress: Progress, end: int) -> None:
        """An answer came."""
        self.case.assertEqual(progress.held, end)
        self.least = end
        self.finished = self.finished or progress.version is not None

    @rule(api=st.integers(0, APIS - 1), size=SIZES)
    def part(self, api: int, size: int) -> None:
        """A part through any api."""
        self.send(api, size)

    @rule(api=st.integers(0, APIS - 1), size=SIZES)
    def cut(self, api: int, size: int) -> None:
        """A part that is cut off."""
        self.send(api, size, ClientGone("gone"))

    @rule(one=st.integers(0, APIS - 1), two=st.integers(0, APIS - 1), size=SIZES)
    def both(self, one: int, two: int, size: int) -> None:
        """The same part through two apis at once: it is there once at most."""
        case = self.case
        try:
            held = case.held(self.token, self.apis[one])
        except (NotFound, Paused):
            return
        part = self.content[held : held + size]
        running = [
            case.part(self.token, held, part, self.apis[api]) for api in (one, two)
        ]
        for each in running:
            try:
                progress = case.finish(each)
            except (Paused, Busy, WrongPart, NotFound):
                continue
            self.took(progress, held + len(part))

    @rule(api=st.integers(0, APIS - 1))
    def restart(self, api: int) -> None:
        """An api forgets all."""
        self.apis[api] = self.case.other()

    @precondition(lambda self: self.away is None)
    @rule(node=st.integers(0, 6))
    def goes(self, node: int) -> None:
        """A node goes out of reach."""
        self.away = self.case.rigs[node]
        self.away.go()

    @precondition(lambda self: self.away is not None)
    @rule(heard=st.booleans())
    def comes(self, heard: bool) -> None:
        """It comes back, heard or not."""
        assert self.away is not None
        self.away.come_back()
        self.away = None
        if heard:
            self.case.pass_(6)

    @rule(seconds=st.sampled_from([0.1, 3.0, 6.0]))
    def waits(self, seconds: float) -> None:
        """Time goes by."""
        self.case.pass_(seconds)

    @invariant()
    def never_less(self) -> None:
        """Whoever answers says at least what was acknowledged."""
        if not hasattr(self, "case") or self.finished:
            return
        try:
            held = self.case.held(self.token, self.case.other())
        except (Paused, NotFound):
            return
        self.case.assertGreaterEqual(held, self.least)


class MachineTests(SynchronousTestCase):
    """Many short histories."""

    def test_histories(self) -> None:
        """Whatever happens: nothing acknowledged is lost, and the end is exact."""
        run_state_machine_as_test(
            UploadMachine,
            settings=settings(
                max_examples=25, stateful_step_count=12, deadline=None, database=None
            ),
        )
