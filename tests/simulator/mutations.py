"""Bugs put in on purpose: what the simulator has to catch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import attrs

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.segments.scanner import Scanned, Scanner
from ostore.backends.shards.shelf import Naming, Shelf
from ostore.engine.collecting import Collected, Collecting
from ostore.engine.putting import Put
from ostore.engine.referring import PutRequest, Referring
from ostore.engine.tending import Tending
from ostore.model.census import Census, Standing
from ostore.model.collecting import Held
from ostore.model.layouts import Layout
from ostore.model.versions import Version

Mutation = Callable[[], AbstractContextManager[object]]


def _replaced(*attributes: tuple[type, str, object]) -> Mutation:
    """Other code for some methods."""

    @contextmanager
    def patched() -> Any:
        with ExitStack() as stack:
            for where, name, code in attributes:
                stack.enter_context(patch.object(where, name, code))
            yield

    return patched


def _no_sync(_: Disk, __: str) -> None:
    """The folder's names are not made durable."""


def _any_time(_: Shelf, __: Naming) -> None:
    """The deadline is not looked at."""


async def _any_epoch(_: ShardNode, __: int) -> None:
    """Every epoch is welcome."""


class _Blind:
    """Metadata in which nobody refers to anything."""

    async def content(self, _: str) -> None:
        """Never asked for real."""


_collect = Collecting.collect


async def _collect_unasked(
    self: Collecting, hash: str, shards: Sequence[Held], age: float, epoch: int
) -> Collected:
    blind = copy.copy(self)
    blind._metadata = _Blind()  # type: ignore[assignment]  # all that is asked for
    return await _collect(blind, hash, shards, age, epoch)


async def _rely_once(
    self: Referring,
    request: PutRequest,
    hash: str,
    standing: Standing,
    present: Mapping[int, str],
    _: object,
    recorded: Callable[[], None],
) -> Version:
    layout = standing.layout
    missing = tuple(i for i in range(layout.shards) if i not in present)
    recorded()
    return await self.record(request, hash, layout, missing)


_renewed = Put._renewed


async def _renewed_once(
    self: Put, hash: str, layout: Layout, version: Version | None = None
) -> Mapping[int, str]:
    if version is None:
        return await _renewed(self, hash, layout)
    return dict.fromkeys(range(layout.shards), "")


_standings = Census.standings


def _mixed(self: Census) -> list[Standing]:
    """As if all shards of one size were of one layout."""
    by_size: dict[int, Standing] = {}
    for each in _standings(self):
        known = by_size.get(each.layout.size, each)
        places = {
            index: (*known.places.get(index, ()), *each.places.get(index, ()))
            for index in sorted({*known.places, *each.places})
        }
        by_size[each.layout.size] = attrs.evolve(each, places=places)
    return list(by_size.values())


_record = Referring.record


async def _record_whole(
    self: Referring,
    request: PutRequest,
    hash: str,
    layout: Layout,
    _: tuple[int, ...],
) -> Version:
    return await _record(self, request, hash, layout, ())


_preferred = Tending._preferred


def _by_chance(self: Tending, hash: str, leaving: frozenset[str]) -> Sequence[str]:
    """Another order each time, the same in each play."""
    nodes = list(_preferred(self, hash, leaving))
    Random(f"{hash} {self._clock.monotonic()}").shuffle(nodes)
    return nodes


_scan = Scanner.run


def _cut_at_the_hole(self: Scanner, synced: int = 0) -> Scanned:
    """As if everything behind a bad record had never been there."""
    scanned = _scan(self, synced)
    end = min((offset for offset, _ in self._damaged), default=scanned.end)
    rows = [row for row in scanned.rows if row.offset < end]
    return Scanned(rows, end, 0)


MUTATIONS: Mapping[str, Mutation] = {
    "folder fsync left out": _replaced((Disk, "sync_folder", _no_sync)),
    "metadata not asked again before the move": _replaced(
        (Collecting, "collect", _collect_unasked)
    ),
    "second renew left out": _replaced(
        (Referring, "_rely", _rely_once), (Put, "_renewed", _renewed_once)
    ),
    "layouts mixed": _replaced((Census, "standings", _mixed)),
    "late commit accepted": _replaced((Shelf, "_in_time", _any_time)),
    "lease epoch ignored": _replaced((ShardNode, "_fence", _any_epoch)),
    "duplicate keeper picked at random": _replaced((Tending, "_preferred", _by_chance)),
    "degraded not written": _replaced((Referring, "record", _record_whole)),
    "unsure taken for none": _replaced(
        (Census, "unsure", property(lambda _: frozenset()))
    ),
    "torn tail cut in the middle": _replaced((Scanner, "run", _cut_at_the_hole)),
}
