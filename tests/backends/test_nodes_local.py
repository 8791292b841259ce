"""Nodes of the same process, by id."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ostore.backends.nodes.local import LocalNodes
from ostore.interfaces import INodes
from ostore.model.errors import NodeUnreachable
from tests.backends.test_shards_crash import NOW, node_on
from tests.support.disk import SimulatedDisk


class Locals(SynchronousTestCase):
    """Who is there may change at any time."""

    def test_by_id(self) -> None:
        """A node that was added is reached until it is removed; others never are."""
        nodes = LocalNodes()
        verifyObject(INodes, nodes)
        one = node_on(SimulatedDisk(lambda: NOW)).store
        two = node_on(SimulatedDisk(lambda: NOW)).store
        self.assertRaises(NodeUnreachable, nodes.store, "a")
        nodes.add("a", one, "nodes/1")
        nodes.add("b", two, "nodes/2")
        self.assertIs(nodes.store("a"), one)
        self.assertEqual((nodes.place("a"), nodes.place("b")), ("nodes/1", "nodes/2"))
        nodes.add("a", two, "nodes/3")
        self.assertIs(nodes.store("a"), two)
        nodes.remove("a")
        nodes.remove("a")
        self.assertRaises(NodeUnreachable, nodes.store, "a")
        self.assertRaises(NodeUnreachable, nodes.place, "a")
        self.assertIs(nodes.store("b"), two)
