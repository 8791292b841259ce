"""What is left on the nodes of an upload when it has ended, and how it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice

import attrs

from ostore.engine.intake import Writing
from ostore.engine.polling import poll
from ostore.engine.session import Session
from ostore.model.errors import NodeUnreachable

PAUSE = 1.0
"""Seconds between two looks at who can be reached again."""
TOGETHER = 64
"""What is done in one of them at most."""
MOST = 10_000
"""Nodes of uploads that are remembered; of those before them the rest expires."""

Work = Callable[[str], Awaitable[None]]


@attrs.frozen
class _Owed:
    """What a node is still to be told of an upload, while it may hold something."""

    work: Work
    until: float


class Clearing:
    """Has nodes drop what they hold of uploads that became versions.

    Owned by Resuming. A node that cannot be reached is told when it is heard again,
    until what it holds has expired; a restart of this service leaves it to that.
    """

    def __init__(self, writing: Writing, expiry: float) -> None:
        self._house = writing
        self._expiry = expiry
        self._owed: dict[tuple[str, str], _Owed] = {}
        self._busy = False

    def __len__(self) -> int:
        """Nodes of uploads that are still to be told."""
        return len(self._owed)

    async def end(self, session: Session, outcome: str) -> None:
        """Leave the outcome on the nodes that were written, and nothing on the others.

        Does not wait for those that were left out.
        """
        upload, epoch, nodes = session.upload, session.epoch, self._house.nodes

        async def finish(node: str) -> None:
            await nodes.uploads(node).finish(upload, epoch, outcome)

        async def remove(node: str) -> None:
            await nodes.uploads(node).remove(upload)

        rest = [(node, upload) for node in session.left_out]
        for node in await session.finish(outcome):
            self._owe((node, upload), finish)
        for key in rest:
            self._owe(key, remove)
        if rest:
            self._house.tasks.spawn(
                "removing the rest of an upload", partial(self._tell, rest)
            )

    def _owe(self, key: tuple[str, str], work: Work) -> None:
        self._owed[key] = _Owed(work, self._house.clock.monotonic() + self._expiry)
        while len(self._owed) > MOST:
            del self._owed[next(iter(self._owed))]
        if not self._busy:
            self._busy = True
            self._house.cluster.beside("clearing after uploads", self._run)

    async def _run(self) -> None:
        try:
            while self._owed:
                await self._house.clock.sleep(PAUSE)
                now = self._house.clock.monotonic()
                for key, owed in list(self._owed.items()):
                    if owed.until < now:
                        del self._owed[key]
                live = self._house.cluster.live()
                heard = {each.beat.node for each in live if each.suspected is None}
                due = (key for key in self._owed if key[0] in heard)
                await self._tell(list(islice(due, TOGETHER)))
        finally:
            self._busy = False

    async def _tell(self, keys: Iterable[tuple[str, str]]) -> None:
        """Try these once; one that cannot be reached is suspect until it is heard."""

        async def tell(key: tuple[str, str]) -> None:
            if (owed := self._owed.get(key)) is not None:
                await owed.work(key[0])

        found = await poll(self._house.clock, keys, tell)
        for key in found.answers:
            self._owed.pop(key, None)
        for key, error in found.failures.items():
            if isinstance(error, NodeUnreachable):
                self._house.cluster.suspect(key[0])
            else:
                self._owed.pop(key, None)  # it holds none, or another has claimed it
