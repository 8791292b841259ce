"""One name's head: its newest versions, its archives, and how each change is made.

A head is changed by compare-and-set, so all of this is pure: a head goes in and the
next one comes out. When a head outgrows `INLINE` versions, or `WEIGHT`, its oldest
move to an archive. An archive is never changed: a new one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs

from ostore.model.errors import NotFound
from ostore.model.versions import NewVersion, Version

INLINE = 64
"""The most versions in a head."""
KEPT = 32
"""At least so many stay in it when others move to an archive, if they are light."""
WEIGHT = 128 * 1024
"""About the most bytes of versions in a head that holds more than one."""
ARCHIVED = 512
"""The most versions in an archive."""
ARCHIVE_WEIGHT = 1024 * 1024
"""About the most bytes of versions in an archive that holds more than one."""


@attrs.frozen
class Archive:
    """What a head says of one archive: `count` versions, numbers `first` to `last`."""

    id: str
    first: int
    last: int
    count: int


@attrs.frozen
class Head:
    """All that is known of a name.

    `high` is the greatest number ever used, `created` the greatest time ever given;
    both outlive the versions. `versions` ascend; `archives` ascend too, and all they
    hold is older. Only a head without archives may be without versions.
    """

    bucket: str
    name: str
    high: int = 0
    created: int = 0
    versions: tuple[Version, ...] = ()
    archives: tuple[Archive, ...] = ()

    @property
    def latest(self) -> Version | None:
        """The newest version, which may be a delete marker."""
        return self.versions[-1] if self.versions else None

    @property
    def live(self) -> bool:
        """Whether there is a newest version that is no marker."""
        return bool(self.versions) and not self.versions[-1].deleted

    def version(self, number: int) -> Version | None:
        """The version of that number, unless it is absent or archived."""
        return next((one for one in self.versions if one.number == number), None)

    def by_put_id(self, put_id: str) -> Version | None:
        """The version that this put_id made, unless it is absent or archived."""
        return next((one for one in self.versions if one.put_id == put_id), None)

    def archive_of(self, number: int) -> Archive | None:
        """The archive that holds the number, if any does."""
        return next(
            (one for one in self.archives if one.first <= number <= one.last), None
        )


@attrs.frozen
class Change:
    """A next head; `written` archives must stand before it, `dropped` go after it."""

    head: Head
    written: tuple[tuple[Archive, tuple[Version, ...]], ...] = ()
    dropped: tuple[Archive, ...] = ()


def weight(versions: Iterable[Version]) -> int:
    """About how many bytes the versions take."""
    return sum(
        350 + sum(len(key) + len(value) for key, value in one.headers.items())
        for one in versions
    )


def append(head: Head, new: NewVersion, now: int) -> tuple[Head, Version]:
    """The head with one more version, `now` being milliseconds since 1970.

    What there is not to delete is NotFound whatever the condition says, as RFC 9110
    section 13.2.1 asks. Raises AlreadyExists, ConditionFailed.
    """
    below = head.latest
    etag = None if below is None or below.deleted else below.hash
    if new.deleted and etag is None:
        raise NotFound("there is nothing to delete")
    new.condition.check(etag, None if below is None else below.created / 1000)
    made = Version(
        name=new.name,
        number=head.high + 1,
        hash=new.hash,
        size=new.size,
        created=max(now, head.created + 1),
        deleted=new.deleted,
        put_id=new.put_id,
        bucket=new.bucket,
        headers=dict(new.headers),
        layout=new.layout,
        degraded=tuple(sorted(set(new.degraded))),
    )
    versions = (*head.versions, made)
    return attrs.evolve(
        head, high=made.number, created=made.created, versions=versions
    ), made


def overflows(head: Head) -> bool:
    """Whether some of its versions must move to an archive."""
    return len(head.versions) > INLINE or (
        len(head.versions) > 1 and weight(head.versions) > WEIGHT
    )


def wants_newest(head: Head) -> bool:
    """Whether `settle` needs what the newest archive holds."""
    if not head.archives:
        return False
    return not head.versions or (
        overflows(head) and head.archives[-1].count + INLINE - KEPT < ARCHIVED
    )


def settle(
    head: Head, newest: Sequence[Version] | None, new_id: Callable[[], str]
) -> Change:
    """Bring a changed head into its bounds.

    `newest` is what the newest archive holds, wanted when `wants_newest` says so.
    """
    if not (overflows(head) or (head.archives and not head.versions)):
        return Change(head)
    pool = list(head.versions)
    kept_archives = head.archives
    dropped: tuple[Archive, ...] = ()
    if newest is not None:
        pool = [*newest, *pool]
        kept_archives, dropped = head.archives[:-1], head.archives[-1:]
    stay = _stay(pool)
    spilled, inline = pool[: len(pool) - stay], pool[len(pool) - stay :]
    written = tuple((_archive(part, new_id()), tuple(part)) for part in _parts(spilled))
    archives = (*kept_archives, *(archive for archive, _ in written))
    settled = attrs.evolve(head, versions=tuple(inline), archives=archives)
    return Change(settled, written, dropped)


def purge(head: Head, number: int) -> Head:
    """The head without that version of its own."""
    left = tuple(one for one in head.versions if one.number != number)
    return attrs.evolve(head, versions=left)


def mark(
    versions: Iterable[Version], numbers: Iterable[int], missing: Iterable[int]
) -> tuple[Version, ...]:
    """The versions, those of these numbers lacking these shards too."""
    marked, more = frozenset(numbers), frozenset(missing)
    return tuple(
        attrs.evolve(one, degraded=tuple(sorted(more.union(one.degraded))))
        if one.number in marked and one.layout is not None
        else one
        for one in versions
    )


def unmark(versions: Iterable[Version], numbers: Iterable[int]) -> tuple[Version, ...]:
    """The versions, those of these numbers without their `degraded` mark."""
    cleared = frozenset(numbers)
    return tuple(
        attrs.evolve(one, degraded=()) if one.number in cleared else one
        for one in versions
    )


def rewrite(
    head: Head, archive: Archive, versions: Sequence[Version], new_id: str
) -> Change:
    """Put another archive, or none when `versions` is empty, into the place of one."""
    at = head.archives.index(archive)
    standing = _archive(versions, new_id) if versions else None
    archives = (
        *head.archives[:at],
        *(() if standing is None else (standing,)),
        *head.archives[at + 1 :],
    )
    written = () if standing is None else ((standing, tuple(versions)),)
    return Change(attrs.evolve(head, archives=archives), written, (archive,))


def _stay(versions: Sequence[Version]) -> int:
    """How many of the newest stay in the head: at most KEPT, half the weight."""
    total = count = 0
    for one in reversed(versions):
        total += weight([one])
        if count and (count == KEPT or total > WEIGHT // 2):
            break
        count += 1
    return count


def _parts(versions: Sequence[Version]) -> list[list[Version]]:
    parts: list[list[Version]] = []
    total = 0
    for one in versions:
        total += weight([one])
        if not parts or len(parts[-1]) == ARCHIVED or total > ARCHIVE_WEIGHT:
            parts.append([])
            total = weight([one])
        parts[-1].append(one)
    return parts


def _archive(versions: Sequence[Version], id: str) -> Archive:
    return Archive(id, versions[0].number, versions[-1].number, len(versions))
