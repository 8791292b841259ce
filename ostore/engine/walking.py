"""Going over everything that is held and everything that is referred to, in step."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ostore.interfaces import IMetadataStore, IShardStore
from ostore.model.collecting import Held, Stretch
from ostore.model.errors import ShardError
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

T = TypeVar("T")

PAGE = 500
"""Shards, or hashes, fetched at once."""
PATIENCE = 60.0
"""Seconds for a page."""
LAST = "f" * 64
"""The last hash there is."""


class _Source(Generic[T]):
    """One sorted list, fetched page by page."""

    def __init__(
        self,
        page: Callable[[str, int], Awaitable[Sequence[T]]],
        hash_of: Callable[[T], str],
        clock: Clock,
        after: str,
    ) -> None:
        self.fetched = after
        self._page = page
        self._hash_of = hash_of
        self._clock = clock
        self._held: deque[T] = deque()

    async def fill(self) -> None:
        """Have something at hand, if anything follows."""
        if not self._held and self.fetched < LAST:
            page = await self._clock.within(PATIENCE, self._page(self.fetched, PAGE))
            self._held.extend(page)
            self.fetched = self._hash_of(page[-1]) if page else LAST

    def take(self, until: str) -> Iterator[T]:
        """What is at hand up to that hash."""
        while self._held and self._hash_of(self._held[0]) <= until:
            yield self._held.popleft()


class Walk:
    """A merge of every node's list with the hashes of the metadata; used once.

    It covers the hashes after < hash <= until. What is written meanwhile may be seen in
    one and not in the other. A node that cannot list what it holds is left out from
    then on, and named in `unlisted`.
    """

    def __init__(
        self,
        stores: Mapping[str, IShardStore],
        metadata: IMetadataStore,
        clock: Clock,
        after: str = "",
        until: str = LAST,
    ) -> None:
        self.after = after
        """Everything up to this hash was given."""
        self.unlisted: set[str] = set()
        self._until = until
        self._nodes = {
            node: _Source(store.list, lambda facts: facts.hash, clock, after)
            for node, store in stores.items()
        }
        self._hashes = _Source(metadata.hashes, str, clock, after)

    async def next(self) -> Stretch | None:
        """The next contents; None behind the last. Raises MetadataUnavailable."""
        if self.after >= self._until:
            return None
        await self._hashes.fill()
        await self._fill_nodes()
        sources: list[_Source[Any]] = [self._hashes, *self._nodes.values()]
        self.after = until = min([self._until, *(each.fetched for each in sources)])
        held: dict[str, list[Held]] = {}
        for node, source in self._nodes.items():
            for facts in source.take(until):
                held.setdefault(facts.hash, []).append((node, facts))
        return Stretch(held, frozenset(self._hashes.take(until)))

    async def _fill_nodes(self) -> None:
        nodes = list(self._nodes)
        outcomes = await gather(self._nodes[node].fill() for node in nodes)
        for node, outcome in zip(nodes, outcomes, strict=True):
            if isinstance(outcome, ShardError | TimedOut):
                self.unlisted.add(node)
                del self._nodes[node]
            elif isinstance(outcome, Exception):
                raise outcome
