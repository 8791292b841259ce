"""Nodes of this very process."""

from __future__ import annotations

from zope.interface import implementer

from ostore.interfaces import INodes, IShardsAtHand, IShardStore, IUploads
from ostore.model.errors import NodeUnreachable


@implementer(INodes)
class LocalNodes:
    """Stores by node id; whoever starts and stops the nodes keeps it up to date."""

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[IShardStore, IUploads | None, str]] = {}
        self._at_hand: dict[str, IShardsAtHand] = {}

    def add(
        self,
        node: str,
        store: IShardStore,
        place: str,
        uploads: IUploads | None = None,
        at_hand: IShardsAtHand | None = None,
    ) -> None:
        """Reach that node; a second time replaces what was there."""
        self._nodes[node] = store, uploads, place
        self._at_hand.pop(node, None)
        if at_hand is not None:
            self._at_hand[node] = at_hand

    def remove(self, node: str) -> None:
        """Reach it no longer; nothing if it was unknown."""
        self._nodes.pop(node, None)
        self._at_hand.pop(node, None)

    def at_hand(self, node: str) -> IShardsAtHand | None:
        """What the store of that node can say at once."""
        return self._at_hand.get(node)

    def store(self, node: str) -> IShardStore:
        """The shards of that node."""
        return self._entry(node)[0]

    def uploads(self, node: str) -> IUploads:
        """Its resumable uploads, if it takes any."""
        uploads = self._entry(node)[1]
        if uploads is None:
            raise NodeUnreachable("that node takes no resumable uploads")
        return uploads

    def place(self, node: str) -> str:
        """How `/locate` names it."""
        return self._entry(node)[2]

    def _entry(self, node: str) -> tuple[IShardStore, IUploads | None, str]:
        try:
            return self._nodes[node]
        except KeyError:
            raise NodeUnreachable("there is no node of that id here") from None
