"""Ages on two clocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.ages import KNOWN, WallWatch, known_for


class WatchTests(SynchronousTestCase):
    """WallWatch."""

    def test_known(self) -> None:
        """Long ages are known for ten minutes, short ones for as long as they are."""
        self.assertEqual(known_for(1.0), 1.0)
        self.assertEqual(known_for(7 * 86400.0), KNOWN)

    def test_begins_in_doubt(self) -> None:
        """No age counts before it was known, then it does."""
        watch = WallWatch()
        self.assertTrue(watch.counts(0.0, 1e9, 50.0))
        self.assertFalse(watch.counts(3600.0, 1e9 + KNOWN - 1, 50.0 + KNOWN - 1))
        self.assertTrue(watch.counts(3600.0, 1e9 + KNOWN, 50.0 + KNOWN))

    def test_jump(self) -> None:
        """A jump either way puts every age in doubt again."""
        for jump in (-1e6, -2.0, 2.0, 1e6):
            watch = WallWatch()
            watch.look(1e9, 0.0)
            self.assertTrue(watch.counts(9e9, 1e9 + KNOWN, KNOWN))
            self.assertFalse(watch.counts(9e9, 1e9 + KNOWN + 1 + jump, KNOWN + 1))
            self.assertFalse(watch.counts(9e9, 1e9 + KNOWN * 2 + jump, KNOWN * 2))

    def test_drift(self) -> None:
        """A clock that is slewed is followed."""
        watch = WallWatch()
        for second in range(0, 86400, 300):
            watch.look(1e9 + second * 1.0005, float(second))
        self.assertTrue(watch.counts(9e9, 1e9 + 86400 * 1.0005, 86400.0))

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.tuples(st.floats(0.1, 900), st.sampled_from([0, 0, 0, -1e5, 1e5])))
    )
    def test_never_soon_after_a_jump(self, steps: list[tuple[float, float]]) -> None:
        """Whatever happens, an age counts only `known_for` after the last jump."""
        watch, wall, monotonic, jumped = WallWatch(), 1e9, 0.0, 0.0
        watch.look(wall, monotonic)
        for passed, jump in steps:
            wall, monotonic = wall + passed + jump, monotonic + passed
            if jump:
                jumped = monotonic
            for age in (1.0, 300.0, 1e6):
                self.assertEqual(
                    watch.counts(age, wall, monotonic),
                    monotonic - jumped >= known_for(age),
                )
