"""Full disks: nothing more is taken, everything else goes on, and room comes back."""

from __future__ import annotations

import attrs

from ostore.engine.referring import PutRequest
from ostore.model.errors import NoSpace
from tests.support.engine import MIB, Rig, sha256, some_bytes
from tests.support.maintenance import CLUSTER, MaintenanceCase

CONTENTS = [some_bytes(MIB + number, number) for number in range(8)]


class FullTests(MaintenanceCase):
    """Disks with just the head-room left, or with nothing at all."""

    def setUp(self) -> None:
        """Eight contents on six nodes."""
        super().setUp()
        self.rise()
        for number, content in enumerate(CONTENTS):
            self.run_(self.put(content, f"{number}"))

    def used(self, rig: Rig) -> int:
        """Bytes of all files of a node."""
        return sum(len(rig.disk.content(path)) for path in rig.disk.tree())

    def fill(self, *rigs: Rig) -> None:
        """Leave no byte free."""
        for rig in rigs:
            rig.disk.capacity = self.used(rig)
        self.pass_(1)

    def states(self) -> set[str]:
        """What /cluster shows."""
        return {each["state"] for each in self.store.view()["nodes"]}

    def test_from_full_to_room(self) -> None:
        """Writes get 507; reads, deletions and both jobs work, and then writes do."""
        self.fill(*self.rigs)
        self.assertEqual(self.states(), {"full"})
        self.refused(NoSpace, self.put(some_bytes(50, 99), "new"))
        self.assertEqual(self.run_(self.get("3")), CONTENTS[3])
        self.run_(self.store.delete("7"))
        for number in range(6):
            self.purge(f"{number}")
        self.pass_(25)
        self.assertEqual(self.counts("orphans")["collected"], 6)
        self.refused(NoSpace, self.put(some_bytes(50, 99), "new"))
        self.pass_(61)
        self.assertEqual(self.counts("garbage")["shards"], 36)
        self.pass_(1)
        self.assertEqual(self.states(), {"up"})
        self.run_(self.put(some_bytes(5000, 99), "new"))
        self.assertEqual(self.run_(self.get("6")), CONTENTS[6])

    def test_known_content(self) -> None:
        """A content that is there needs no room: its version can be written."""
        self.fill(*self.rigs)
        self.refused(NoSpace, self.put(CONTENTS[0], "again"))
        self.assertEqual(
            self.run_(self.store.copy(PutRequest("copy"), "0", None)).number, 1
        )

    def test_head_room_is_kept(self) -> None:
        """A large upload stops at the head-room, and leaves nothing behind."""
        for rig in self.rigs:
            rig.disk.capacity = self.used(rig) + 60 * MIB
        self.pass_(1)
        least: list[int] = []

        class Body:
            """Two hundred pieces, with time for the watch between them."""

            left = 200

            async def read(_) -> bytes:  # noqa: N805 - the test is self
                if not Body.left:
                    return b""
                Body.left -= 1
                await self.clock.sleep(0.3)
                least.append(min(rig.disk.space("/").free for rig in self.rigs))
                return bytes(2 * MIB)

        self.engine.putting.writing.coding = attrs.evolve(
            self.engine.putting.writing.coding, compress=False
        )
        self.refused(NoSpace, self.store.put(PutRequest("large"), Body()), 300)
        self.assertLess(min(least), 20 * MIB)
        self.pass_(2)
        for rig in self.rigs:
            self.assertEqual(rig.temporaries(), [])
            self.assertGreater(rig.disk.space("/").free, 50 * MIB)

    def test_repairs_go_elsewhere(self) -> None:
        """A full node is given no shards, neither by a repair nor by rebalance."""
        full, roomy = self.add_rig(7), self.add_rig(8)
        for rig in (full, roomy):
            self.run_(rig.node.adopt(CLUSTER, 1))
        self.fill(full)
        self.pass_(6)
        self.run_(self.engine.mending.start())
        self.rigs[0].go()
        self.pass_(700)
        self.counts("census")
        self.pass_(10)
        self.counts("rebalance")
        self.assertEqual(full.disk.tree("/data/objects"), [])
        for content in CONTENTS:
            self.assertEqual(len(roomy.shards(sha256(content))), 1)
