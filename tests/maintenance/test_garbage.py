"""Garbage: what is removed for good, when, and what comes back."""

from __future__ import annotations

from ostore.model.errors import MetadataUnavailable, NodeUnreachable
from ostore.model.layouts import ShardKey
from tests.support.engine import fails, sha256, some_bytes
from tests.support.maintenance import MaintenanceCase

ONE, OTHER = some_bytes(70_000), some_bytes(777, 2)


class ExpiryTests(MaintenanceCase):
    """What lay in garbage for the expiry."""

    def setUp(self) -> None:
        """One content in garbage, one standing."""
        super().setUp()
        self.rise()
        self.run_(self.put(ONE, "one"))
        self.run_(self.put(OTHER, "other"))
        self.purge("one")
        self.pass_(25)
        self.counts("orphans")
        self.assertEqual(len(self.in_garbage(ONE)), 6)

    def test_expires(self) -> None:
        """It is removed when it is old enough, and its bytes are counted."""
        self.assertEqual(self.counts("garbage"), {"garbage": 6})
        self.pass_(61)
        size = sum(
            len(rig.disk.content(path))
            for rig in self.rigs
            for path in rig.disk.tree("/data/garbage")
        )
        counts = self.counts("garbage")
        self.assertEqual(
            counts, {"garbage": 6, "expired": 6, "shards": 6, "bytes": size}
        )
        self.assertEqual(self.in_garbage(ONE), [])
        self.assert_whole(OTHER)

    def test_dry_run(self) -> None:
        """A dry run removes nothing."""
        self.pass_(61)
        counts = self.counts("garbage", dry_run=True)
        self.assertEqual(counts, {"garbage": 6, "expired": 6})
        self.assertEqual(len(self.in_garbage(ONE)), 6)

    def test_put_again(self) -> None:
        """A content that was written again is whole after the expiry."""
        self.run_(self.put(ONE, "again"))
        self.pass_(61)
        self.counts("garbage")
        self.assert_whole(ONE)
        self.assertEqual(self.run_(self.get("again")), ONE)
        self.assertEqual(self.in_garbage(ONE), [])

    def test_comes_back(self) -> None:
        """What a version refers to comes back instead of being removed."""
        version = self.run_(self.put(ONE, "again"))
        for rig in self.rigs:
            key = self._key(rig.shards(sha256(ONE))[0])
            token = self.run_(rig.node.store.condemn(key))
            for path in rig.disk.tree("/data/garbage"):
                rig.disk.delete(path)
            self.assertTrue(self.run_(rig.node.store.discard(key, token)))
        self.assertEqual(version.hash, sha256(ONE))
        self.assertEqual(self.standing(ONE), 0)
        self.pass_(61)
        counts = self.counts("garbage")
        self.assertEqual(counts["restored"], 6)
        self.assert_whole(ONE)
        self.assertEqual(self.run_(self.get("again")), ONE)

    def _key(self, path: str) -> ShardKey:
        hash, index, layout = path.rpartition("/")[2].split(".")
        return ShardKey(hash, int(index), layout)

    def test_unsure(self) -> None:
        """While a node cannot say what it has, nothing of a needed content goes."""
        self.run_(self.put(ONE, "again"))
        self.pass_(61)
        self.rigs[3].rules["find"] = fails(NodeUnreachable("counting"))
        counts = self.counts("garbage")
        self.assertNotIn("shards", counts)

    def test_metadata_away(self) -> None:
        """Without an answer from the metadata nothing is removed."""
        self.pass_(61)
        self.metadata.rules["content"] = fails(MetadataUnavailable("away"))
        self.assertEqual(self.job("garbage").state, "failed")
        self.assertEqual(len(self.in_garbage(ONE)), 6)
        self.metadata.rules.clear()
        self.assertEqual(self.counts("garbage")["shards"], 6)

    def test_put_during_the_run(self) -> None:
        """A content that is written again while its garbage is removed is whole."""
        self.pass_(61)

        async def meanwhile(*_: object) -> None:
            del self.rigs[2].rules["erase"]
            await self.put(ONE, "again")

        self.rigs[2].rules["erase"] = meanwhile
        self.counts("garbage")
        self.assert_whole(ONE)
        self.assertEqual(self.run_(self.get("again")), ONE)
