"""A cluster gets its id once, and from a quorum; nodes of another one get nothing."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.joining import Joining
from ostore.model.errors import MetadataUnavailable, Refused
from ostore.model.nodes import Boot, Heartbeat, Members
from ostore.model.versions import ClusterFacts
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start

BEAT = Heartbeat("", Boot(1, "0" * 16), 1, "http://x:1", "z", 1, 2, 0, "up", 0.0)
OURS = ClusterFacts("c" * 32, 3)


class Metadata:
    """Keeps the facts of a cluster."""

    def __init__(self) -> None:
        self.facts: ClusterFacts | None = None
        self.away = False
        self.made = 0

    async def cluster(self) -> ClusterFacts | None:
        """What is kept."""
        if self.away:
            raise MetadataUnavailable("away")
        return self.facts

    async def create_cluster(self, facts: ClusterFacts) -> ClusterFacts:
        """The first one stays."""
        if self.away:
            raise MetadataUnavailable("away")
        self.made += 1
        self.facts = self.facts or facts
        return self.facts


class JoiningTests(SynchronousTestCase):
    """Heartbeats in, a cluster out."""

    def setUp(self) -> None:
        """No nodes, no metadata, no time passed."""
        self.time = task.Clock()
        clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.metadata = Metadata()
        self.adopted: list[tuple[str, ClusterFacts]] = []
        self.refusing = ""
        self.members = Members(10.0)
        self.seq = 0
        self.joining = Joining(
            self.metadata,  # type: ignore[arg-type]  # all that is asked of it
            self.adopt,
            clock,
            lambda n: b"\x07" * n,
            quorum=5,
            heartbeat=5.0,
        )

    async def adopt(self, node: str, facts: ClusterFacts) -> None:
        """A node is told to join."""
        if node == self.refusing:
            raise Refused("it holds shards")
        self.adopted.append((node, facts))

    def hear(self, nodes: Iterable[str], cluster: str = "", epoch: int = 0) -> None:
        """Heartbeats of these nodes."""
        for node in nodes:
            self.seq += 1
            beat = attrs.evolve(
                BEAT, node=node, seq=self.seq, cluster=cluster, epoch=epoch
            )
            self.members = self.members.heard(beat, self.time.seconds())

    def look(self) -> list[str]:
        """One look; the brakes behind it."""
        self.successResultOf(start(self.joining.look(self.members)))
        return self.joining.brakes

    def beat(self, node: str) -> Heartbeat:
        """The last heartbeat of a node."""
        return self.members.by_id[node].beat

    def test_new_cluster(self) -> None:
        """It is made once a write quorum was heard for one period, and not before."""
        self.hear("abcd")
        self.assertIn("4 nodes are heard, a write needs 5", self.look()[0])
        self.time.advance(4)
        self.hear("abcde")
        self.look()
        self.time.advance(4.9)
        self.look()
        self.assertEqual(self.metadata.made, 0)
        self.time.advance(0.2)
        self.assertEqual(self.look(), [])
        facts = ClusterFacts("07" * 16, 1)
        self.assertEqual(self.metadata.facts, facts)
        self.assertEqual(self.adopted, [(node, facts) for node in "abcde"])
        self.assertFalse(self.joining.belongs(self.beat("a")))
        self.hear("a", facts.id, 1)
        self.assertTrue(self.joining.belongs(self.beat("a")))

    def test_quorum_lost_meanwhile(self) -> None:
        """The period begins anew when a node went away within it."""
        self.hear("abcde")
        self.look()
        self.time.advance(4)
        self.hear("abcd")
        self.time.advance(7)
        self.hear("abcd")
        self.look()
        self.hear("e")
        self.look()
        self.assertEqual(self.metadata.made, 0)

    def test_forgetful_metadata(self) -> None:
        """Metadata without an id under nodes that bear one: nothing is made, ever."""
        self.hear("abcdef")
        self.hear("a", OURS.id, 3)
        for _ in range(3):
            self.assertIn("the metadata knows of no cluster", self.look()[0])
            self.time.advance(3)
        self.assertEqual((self.metadata.made, self.adopted), (0, []))

    def test_older_metadata(self) -> None:
        """A node with a higher epoch: a brake, and the node is left as it is."""
        self.metadata.facts = OURS
        self.hear("a", OURS.id, 4)
        self.assertIn("older copy", self.look()[0])
        self.assertEqual(self.adopted, [])

    def test_foreign_node(self) -> None:
        """A node of another cluster gets nothing, and is told of."""
        self.metadata.facts = OURS
        self.hear("ab", OURS.id, 3)
        self.hear("x", "d" * 32, 1)
        self.assertIn("x belongs to another cluster", self.look()[0])
        self.assertFalse(self.joining.belongs(self.beat("x")))
        self.assertTrue(self.joining.belongs(self.beat("a")))

    def test_new_node(self) -> None:
        """A node without an id joins; one that refuses is told of and asked again."""
        self.metadata.facts = OURS
        self.hear("ab", OURS.id, 3)
        self.hear("n")
        self.assertEqual(self.look(), [])
        self.assertEqual(self.adopted, [("n", OURS)])
        self.refusing = "n"
        self.assertEqual(self.look(), ["cluster: n did not join: it holds shards"])
        self.refusing = ""
        self.assertEqual(self.look(), [])

    def test_metadata_away(self) -> None:
        """What was known stays while the metadata is away."""
        self.metadata.away = True
        self.assertEqual(len(self.look()), 1)
        self.metadata.away, self.metadata.facts = False, OURS
        self.look()
        self.metadata.away = True
        self.assertEqual(self.look(), [])
        self.assertEqual(self.joining.known, OURS)
