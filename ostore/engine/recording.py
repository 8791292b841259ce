"""Writing a version so that its fate is known, or said to be unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ostore.interfaces import IMetadataStore
from ostore.model.errors import MetadataUnavailable, OstoreError, OutcomeUnknown
from ostore.model.versions import NewVersion, Version
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import shielded, start

RESOLVE = 10.0
"""Seconds for which the fate of an ambiguous write is asked for."""
MARKING = 10.0
"""Seconds for which a mark is tried to be set."""
PAUSE = 0.25
"""Seconds between two tries."""

_log = Logger()


class Recording:
    """The one way in which the engine writes versions."""

    def __init__(
        self, metadata: IMetadataStore, clock: Clock, entropy: Callable[[int], bytes]
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._entropy = entropy

    def put_id(self) -> str:
        """A fresh id for one write: 32 hex digits."""
        return self._entropy(16).hex()

    async def add(self, new: NewVersion) -> Version:
        """Write it; an ambiguous outcome is resolved by its put_id.

        Raises OutcomeUnknown when it stays ambiguous: the version may yet appear. A
        caller that is cancelled meanwhile (its client left) does not stop the write.
        """
        writing = start(self._metadata.add_version(new))
        try:
            return await writing
        except CancelledError:
            raise OutcomeUnknown("the write may yet appear") from None
        except OutcomeUnknown:
            return await self._resolve(new)

    async def _resolve(self, new: NewVersion) -> Version:
        deadline = self._clock.monotonic() + RESOLVE
        while (left := deadline - self._clock.monotonic()) > 0:
            try:
                found = await self._clock.within(
                    min(2.0, left),
                    self._metadata.by_put_id(new.bucket, new.name, new.put_id),
                )
            except (MetadataUnavailable, TimedOut):
                found = None
            if found is not None:
                return found
            await self._clock.sleep(PAUSE)
        raise OutcomeUnknown(
            "the write was sent, and whether it happened could not be learned: "
            "it may yet appear"
        )

    async def mark(self, version: Version, missing: Sequence[int]) -> bool:
        """Have it say that it lacks these shards too; False when unsure after MARKING.

        A try that is under way goes on when the caller is cancelled.
        """
        marks = [(version.bucket, version.name, version.number)]
        deadline = self._clock.monotonic() + MARKING
        while True:
            left = deadline - self._clock.monotonic()
            work = self._metadata.mark_degraded(marks, missing)
            try:
                await self._clock.within(left, shielded(work))
            except (OstoreError, TimedOut) as error:
                if left <= PAUSE or isinstance(error, TimedOut):
                    _log.warn(
                        "a version of {hash} does not say that it lacks shards: "
                        "{error}",
                        hash=version.hash,
                        error=str(error),
                    )
                    return False
            else:
                return True
            await self._clock.sleep(PAUSE)

    async def take_back(self, version: Version) -> bool:
        """Remove a version whose shards could not be kept; False when unsure."""
        try:
            await self._metadata.purge(version.bucket, version.name, version.number)
        except (MetadataUnavailable, OutcomeUnknown):
            return False
        return True
