"""Temporaries and uploads that nobody goes on with."""

from __future__ import annotations

from ostore.model.errors import NodeUnreachable
from tests.support.engine import fails
from tests.support.maintenance import MaintenanceCase

DAY = 24 * 3600.0
ID = "1" * 32


class UploadsTests(MaintenanceCase):
    """The job `uploads`."""

    def test_temporaries(self) -> None:
        """A temporary that nobody touched for a day goes, a younger one stays."""
        self.rise()
        temporaries = self.rigs[0].node.store.temporaries
        old = self.run_(temporaries.create())
        for rig in self.rigs:
            self.run_(rig.member._sweep.stop())
        self.time.advance(DAY - 100)
        self.pass_(1)
        new = self.run_(temporaries.create())
        self.assertEqual(self.counts("uploads"), {"nodes": 6})
        self.time.advance(200)
        self.pass_(1)
        found = {"nodes": 6, "expired": 1}
        self.assertEqual(self.counts("uploads", dry_run=True), found)
        self.assertEqual(len(self.rigs[0].temporaries()), 2)
        self.assertEqual(self.counts("uploads"), {**found, "removed": 1})
        self.assertEqual(self.rigs[0].temporaries(), [new])
        self.assertNotEqual(old, new)
        self.run_(temporaries.remove(new))

    def test_uploads(self) -> None:
        """A resumable upload goes when it has expired; a dry run only counts it."""
        self.rise()
        uploads = self.rigs[1].node.store.uploads
        self.run_(uploads.begin(ID, "{}", 60.0))
        for rig in self.rigs:
            self.run_(rig.member._sweep.stop())
        self.assertEqual(self.counts("uploads", dry_run=True), {"nodes": 6})
        self.assertEqual(self.counts("uploads"), {"nodes": 6})
        self.pass_(61)
        found = {"nodes": 6, "expired": 1}
        self.assertEqual(self.counts("uploads", dry_run=True), found)
        self.assertEqual(len(self.rigs[1].temporaries()), 2)
        self.assertEqual(self.counts("uploads"), {**found, "removed": 1})
        self.assertEqual(self.rigs[1].temporaries(), [])

    def test_a_node_is_away(self) -> None:
        """The others are swept."""
        self.rise()
        self.rigs[0].rules["sweep"] = fails(NodeUnreachable("away"))
        self.assertEqual(self.counts("uploads"), {"nodes": 5})
