"""Notes of transfers under way."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from shutil import rmtree

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.failures import Failure
from ostore.cli.journal import FORGOTTEN_AFTER, Journal


class JournalTests(SynchronousTestCase):
    """Journal and its entries."""

    def setUp(self) -> None:
        """An empty folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="ostore-journal-"))
        self.addCleanup(rmtree, self.folder)
        self.now = time.time()

    def journal(self) -> Journal:
        """As a new command has it."""
        return Journal(self.folder, lambda: self.now)

    def test_kept(self) -> None:
        """Facts and pieces are there again, for the same transfer alone."""
        entry = self.journal().open("a", "b")
        entry.begin({"size": 3})
        entry.finished(7)
        entry.close()
        again = self.journal().open("a", "b")
        self.assertEqual((again.facts, again.pieces), ({"size": 3}, {7}))
        other = self.journal().open("ab")
        self.assertEqual(other.facts, {})
        again.forget()
        other.forget()
        self.assertEqual(list(self.folder.rglob("*.transfer")), [])

    def test_one_command(self) -> None:
        """Only one command has a transfer at a time."""
        entry = self.journal().open("a")
        self.assertRaisesRegex(Failure, "another", self.journal().open, "a")
        entry.close()
        self.journal().open("a").close()

    @given(st.integers(0, 60))
    @settings(deadline=None, max_examples=30)
    def test_cut(self, size: int) -> None:
        """A note that was cut at any byte is as far as it goes, or as none."""
        entry = self.journal().open("a")
        entry.begin({"size": 300})
        for piece in (1, 22, 333, 4444):
            entry.finished(piece)
        entry.close()
        os.truncate(entry.path, min(size, entry.path.stat().st_size))
        again = self.journal().open("a")
        self.assertLessEqual(again.pieces, {1, 22, 333, 4444})
        self.assertIn(again.facts, ({}, {"size": 300}))
        again.forget()

    def test_swept(self) -> None:
        """What nobody went on with for long is removed, but not what is under way."""
        kept, live = self.journal().open("kept"), self.journal().open("live")
        kept.begin({})
        live.begin({})
        kept.close()
        coded = self.journal().place("zst", "x")
        coded.write_bytes(b"x")
        old = self.now - FORGOTTEN_AFTER - 1
        for path in (kept.path, live.path, coded):
            os.utime(path, (old, old))
        self.journal().open("another").close()
        self.assertFalse(kept.path.exists())
        self.assertFalse(coded.exists())
        self.assertTrue(live.path.exists())
        live.forget()

    def test_unusable(self) -> None:
        """A folder that cannot be made is told."""
        (self.folder / "transfers").write_bytes(b"")
        self.assertRaisesRegex(Failure, "XDG_STATE_HOME", self.journal().open, "a")
