"""The changes of a name: a version more or less, marks set or taken away."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from ostore.backends.metadata.elastic_changes import Plan
from ostore.backends.metadata.elastic_names import Names
from ostore.model import heads
from ostore.model.errors import OutcomeUnknown
from ostore.model.heads import Change, Head
from ostore.model.versions import NewVersion, Version


@attrs.define(eq=False)
class Add:
    """Write the next version, or find the one that this put_id made."""

    names: Names
    new: NewVersion
    wall: Callable[[], float]
    new_id: Callable[[], str]
    _sent: Head | None = attrs.field(default=None, init=False)

    async def plan(self, head: Head) -> Plan[Version]:
        """Raises NotFound, AlreadyExists, ConditionFailed, OutcomeUnknown."""
        made = await self.names.by_put_id_in(head, self.new.put_id)
        sent = self._sent
        if sent is not None and head.high >= sent.high:
            # A name's time never goes back: below that of the write it did not happen.
            reached = head.created >= sent.created
            if reached and await self.names.version_in(head, sent.high) is None:
                raise OutcomeUnknown("the write may have happened, and been removed")
            self._sent = None  # the number stands: it is this write's, or another's
        if made is not None:
            return Plan(made)
        longer, version = heads.append(head, self.new, int(self.wall() * 1000))
        return Plan(version, await _settled(self.names, longer, self.new_id))

    def sent(self, head: Head) -> None:
        """The number may be used by now."""
        self._sent = head


@attrs.define(eq=False)
class Purge:
    """Remove one version; gives whether it was there."""

    names: Names
    number: int
    new_id: Callable[[], str]
    _sent: bool = attrs.field(default=False, init=False)

    async def plan(self, head: Head) -> Plan[bool]:
        """Take it out of the head, or put a shorter archive in the place of its own.

        Raises OutcomeUnknown.
        """
        if head.version(self.number) is not None:
            shorter = heads.purge(head, self.number)
            return Plan(True, await _settled(self.names, shorter, self.new_id))
        archive = head.archive_of(self.number)
        if archive is not None:
            held = await self.names.archived(head, archive)
            left = [one for one in held if one.number != self.number]
            if len(left) < len(held):
                change = heads.rewrite(head, archive, left, self.new_id())
                return Plan(True, change)
        if self._sent:
            raise OutcomeUnknown("the version is gone; another may have removed it")
        return Plan(False)

    def sent(self, head: Head) -> None:
        """It may be gone because of us."""
        self._sent = True


@attrs.define(eq=False)
class Mark:
    """Have these numbers say that they lack these shards."""

    names: Names
    numbers: Collection[int]
    missing: Collection[int]
    new_id: Callable[[], str]

    async def plan(self, head: Head) -> Plan[None]:
        """Mark them in the head and in the archives that hold them."""

        def mark(versions: tuple[Version, ...]) -> tuple[Version, ...]:
            return heads.mark(versions, self.numbers, self.missing)

        return Plan(
            None, await _edited(self.names, head, self.numbers, mark, self.new_id)
        )

    def sent(self, head: Head) -> None:
        """Nothing to remember: marking twice is no error."""


@attrs.define(eq=False)
class Unmark:
    """Take `degraded` from these numbers; gives whether any was not marked."""

    names: Names
    numbers: Collection[int]
    new_id: Callable[[], str]

    async def plan(self, head: Head) -> Plan[bool]:
        """Unmark them in the head and in the archives that hold them."""
        marked: set[int] = set()

        def unmark(versions: tuple[Version, ...]) -> tuple[Version, ...]:
            marked.update(one.number for one in versions if one.degraded)
            return heads.unmark(versions, self.numbers)

        change = await _edited(self.names, head, self.numbers, unmark, self.new_id)
        return Plan(not marked.issuperset(self.numbers), change)

    def sent(self, head: Head) -> None:
        """Nothing to remember: unmarking twice is no error."""


async def _edited(
    names: Names,
    head: Head,
    numbers: Collection[int],
    edit: Callable[[tuple[Version, ...]], tuple[Version, ...]],
    new_id: Callable[[], str],
) -> Change | None:
    """What `edit` makes of the head and of the archives that hold these numbers.

    None when it leaves them as they are.
    """
    change = Change(attrs.evolve(head, versions=edit(head.versions)))
    for archive in head.archives:
        if not any(archive.first <= one <= archive.last for one in numbers):
            continue
        held = await names.archived(head, archive)
        edited = edit(held)
        if edited != held:
            more = heads.rewrite(change.head, archive, edited, new_id())
            change = Change(
                more.head,
                (*change.written, *more.written),
                (*change.dropped, *more.dropped),
            )
    return None if change.head == head else change


async def _settled(names: Names, head: Head, new_id: Callable[[], str]) -> Change:
    newest = None
    if heads.wants_newest(head):
        newest = await names.archived(head, head.archives[-1])
    return heads.settle(head, newest, new_id)
