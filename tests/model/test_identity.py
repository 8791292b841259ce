"""Metadata and roots that do not belong together are never joined."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ostore.model.identity import Verdict, judge
from ostore.model.versions import ClusterFacts

OURS, THEIRS = ClusterFacts("ours", 3), ClusterFacts("theirs", 1)


class JudgeTests(SynchronousTestCase):
    """Every way in which the two sides can differ."""

    def test_first_start(self) -> None:
        """Nobody has an id: one is made, and every root takes it."""
        verdict = judge(None, {"a": None, "b": None})
        self.assertEqual(verdict, Verdict(create=True, adopt=("a", "b")))

    def test_metadata_lost(self) -> None:
        """A root with an id and metadata without one: refused, in one line."""
        verdict = judge(None, {"a": None, "b": OURS})
        self.assertIn("b belongs to cluster ours", verdict.refuse)
        self.assertEqual(verdict.adopt, ())

    def test_all_agree(self) -> None:
        """Nothing to do."""
        self.assertEqual(judge(OURS, {"a": OURS}), Verdict())

    def test_new_root(self) -> None:
        """A root without an id, or behind in epochs, is brought up to date."""
        verdict = judge(OURS, {"a": None, "b": ClusterFacts("ours", 2), "c": OURS})
        self.assertEqual(verdict, Verdict(adopt=("a", "b")))

    def test_foreign_root(self) -> None:
        """Another cluster's root is not used, and the brakes say so."""
        verdict = judge(OURS, {"a": OURS, "b": THEIRS})
        self.assertEqual((verdict.foreign, verdict.adopt), (("b",), ()))
        self.assertEqual(len(verdict.brakes), 1)

    def test_older_metadata(self) -> None:
        """A root that saw a higher epoch proves the metadata older: brakes."""
        verdict = judge(OURS, {"a": ClusterFacts("ours", 4)})
        self.assertIn("older copy", verdict.brakes[0])
        self.assertEqual(verdict.adopt, ())
