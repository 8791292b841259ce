"""A version of a content that is there already: nothing is sent, all is made sure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NoReturn

import attrs

from ostore.engine.intake import Writing
from ostore.engine.recording import Recording
from ostore.engine.renewing import Renewing
from ostore.engine.repairs import Repairs
from ostore.model.census import Standing
from ostore.model.conditions import WriteCondition
from ostore.model.errors import OutcomeUnknown, Unavailable
from ostore.model.layouts import Layout
from ostore.model.versions import NO_HEADERS, NewVersion, Version

Mend = Callable[[Version, Layout, Collection[int]], Awaitable[Version]]
"""`mend(version, layout, present)`: too few of the layout it relies on are left."""


@attrs.frozen
class PutRequest:
    """What the client asked for, beside the body.

    `digest` is the promised SHA-256 in hex; `size` the announced length or None.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    headers: Mapping[str, str] = NO_HEADERS
    condition: WriteCondition = WriteCondition()
    put_id: str | None = None
    bucket: str = ""


class Referring:
    """Writes versions that refer to shards; one an engine.

    The shards are renewed before the version is written and again behind it: whoever
    collects garbage meanwhile sees either the renewal or the version.
    """

    def __init__(
        self,
        writing: Writing,
        recording: Recording,
        renewing: Renewing,
        repairs: Repairs,
    ) -> None:
        self._writing = writing
        self._recording = recording
        self._renewing = renewing
        self._repairs = repairs

    async def known(
        self,
        request: PutRequest,
        hash: str,
        size: int,
        mend: Mend | None = None,
        recorded: Callable[[], None] = lambda: None,
    ) -> Version | None:
        """The new version if the content can be relied on, else None.

        `recorded` is called before the version is written. `mend` is for shards that
        went away behind it; without one the version is taken back: Unavailable.
        """
        cluster = self._writing.cluster
        remembered = cluster.remembered(hash)
        if remembered is not None and cluster.settled_on(remembered):
            present = await self._present(hash, size, remembered)
            if len(present) == remembered.layout.shards:
                return await self._rely(
                    request, hash, remembered, present, mend, recorded
                )
            cluster.places.forget(hash)
        census = await cluster.locate(hash)
        for standing in census.standings():
            present = await self._present(hash, size, standing)
            if present:
                return await self._rely(
                    request, hash, standing, present, mend, recorded
                )
        return None

    async def _present(
        self, hash: str, size: int, standing: Standing
    ) -> Mapping[int, str]:
        """A write quorum of shards that are renewed, or nothing."""
        quorum = self._writing.quorum(standing.layout)
        if standing.layout.size != size or len(standing.spread) < quorum:
            return {}
        present = await self._renewing.renew(hash, standing)
        return present if len(present) >= quorum else {}

    async def _rely(
        self,
        request: PutRequest,
        hash: str,
        standing: Standing,
        present: Mapping[int, str],
        mend: Mend | None,
        recorded: Callable[[], None],
    ) -> Version:
        """Write the version, and make sure that its shards are still there."""
        layout = standing.layout
        missing = tuple(i for i in range(layout.shards) if i not in present)
        recorded()
        version = await self.record(request, hash, layout, missing)
        again = await self._renewing.renew(hash, standing)
        if len(again) < self._writing.quorum(layout):
            return await (mend or self._take_back)(version, layout, again)
        return await self.mark(version, hash, layout, again)

    async def record(
        self, request: PutRequest, hash: str, layout: Layout, missing: tuple[int, ...]
    ) -> Version:
        """Write the version; what is missing of its shards goes to be mended."""
        version = await self._recording.add(
            NewVersion(
                name=request.name,
                bucket=request.bucket,
                put_id=request.put_id or self._recording.put_id(),
                hash=hash,
                size=layout.size,
                headers=request.headers,
                layout=layout,
                degraded=missing,
                condition=request.condition,
            )
        )
        self._queue(version, hash, layout, missing)
        return version

    async def mark(
        self, version: Version, hash: str, layout: Layout, present: Collection[int]
    ) -> Version:
        """The version, once it says that it lacks all shards but those present.

        They go to be mended first, so that no repair that is under way takes the mark
        away again. What cannot be marked is acknowledged all the same: the quorum
        stands, the repair is queued, and the census job finds it without that.
        """
        refers = _refers(version, hash, layout)
        known = {*present, *(version.degraded if refers else ())}
        lost = tuple(i for i in range(layout.shards) if i not in known)
        self._queue(version, hash, layout, lost)
        if not (lost and refers and await self._recording.mark(version, lost)):
            return version
        return attrs.evolve(version, degraded=tuple(sorted({*version.degraded, *lost})))

    def _queue(
        self, version: Version, hash: str, layout: Layout, missing: tuple[int, ...]
    ) -> None:
        """Have these shards mended, and then the version's mark cleared."""
        if missing:
            refers = _refers(version, hash, layout)
            mark = (version.bucket, version.name, version.number)
            marks = frozenset([mark] if refers else [])
            self._repairs.found(hash, layout, dict.fromkeys(missing, ""), marks=marks)

    async def _take_back(self, version: Version, *_: object) -> NoReturn:
        if await self._recording.take_back(version):
            raise Unavailable("the content went away while it was referred to")
        raise OutcomeUnknown(
            "the shards of this version went away, and the version could not be taken "
            "back"
        )


def _refers(version: Version, hash: str, layout: Layout) -> bool:
    """Not so when the put_id had made another version before."""
    return (version.hash, version.layout) == (hash, layout)
