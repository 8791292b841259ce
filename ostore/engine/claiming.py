"""Finding a resumable upload on its nodes, and becoming the one who writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from ostore.engine.intake import Writing
from ostore.engine.polling import poll
from ostore.engine.recovering import Recovery
from ostore.engine.session import Session
from ostore.interfaces import IUploads
from ostore.model.errors import (
    NodeUnreachable,
    NotFound,
    OstoreError,
    ShardMissing,
)
from ostore.model.resuming import (
    Busy,
    Paused,
    UploadRecord,
    UploadState,
    outcome_from_json,
)
from ostore.model.standing import Standing, newest, standing
from ostore.model.tokens import GUESS, Token
from ostore.model.versions import Version

TRIES = 3
"""Epochs that one claim tries."""
PAUSE = 0.2
"""Seconds between two of them, at most."""


class Finished(OstoreError):
    """The upload is finished; `version` is what became of it."""

    def __init__(self, version: Version) -> None:
        super().__init__("the upload is finished")
        self.version = version


@attrs.frozen
class Found:
    """An upload as its nodes tell of it: states by shard index.

    `without` are nodes that answered, and have nothing of it.
    """

    record: UploadRecord
    states: Mapping[int, UploadState]
    without: frozenset[str]

    @property
    def active(self) -> bool:
        """Whether somebody writes it, as far as one of them knows."""
        return any(state.active for state in self.states.values())

    def standing(self) -> Standing:
        """What is held. Raises Paused."""
        return standing(self.record, self.states)


class Claiming:
    """Asks and claims; owned by Resuming."""

    def __init__(self, writing: Writing, expiry: float) -> None:
        self._house = writing
        self._expiry = expiry

    def nodes(self, token: Token) -> list[str]:
        """The ids that a token's beginnings stand for, as far as they were heard."""
        known = {node[:GUESS]: node for node in self._house.cluster.members.by_id}
        return [known[guess] for guess in token.nodes if guess in known]

    def everyone(self) -> set[str]:
        """All nodes that are alive."""
        return {member.beat.node for member in self._house.cluster.live()}

    async def survey(self, upload: str, first: Iterable[str], shards: int) -> Found:
        """Ask the nodes of an upload, those that its record names, and all if need be.

        `shards` is how many nodes it had at first. Raises NotFound, Finished, Paused.
        """
        states: dict[str, UploadState] = {}
        missing: set[str] = set()
        asked: set[str] = set()
        record: UploadRecord | None = None
        guessed = set(first)
        more = guessed or self.everyone()
        while more:
            asked |= more
            await self._look(upload, more, states, missing)
            if states:
                record = UploadRecord.from_json(newest(states))
            more = set() if record is None else set(record.nodes.values()) - asked
            if not more and not _enough(record, states):
                more = self.everyone() - asked
        if record is None:
            if shards - len(missing & guessed) > shards // 2:
                raise Paused("the nodes of the upload are out of reach")
            raise NotFound("there is no such upload, or it has expired")
        for state in states.values():
            if state.outcome is not None:
                raise Finished(outcome_from_json(state.outcome))
        found = {i: states[n] for i, n in record.nodes.items() if n in states}
        silent = set(record.nodes.values()) - states.keys() - missing
        if len(found) + len(silent) < record.majority:
            raise NotFound("there is no such upload")
        return Found(record, found, frozenset(missing))

    async def claim(self, upload: str, first: Iterable[str], shards: int) -> Session:
        """Become the one who writes it, and put in order what is there.

        Raises NotFound, Finished, Busy, Paused.
        """
        error: OstoreError = Paused("too few nodes of the upload are within reach")
        for _ in range(TRIES):
            found = await self.survey(upload, first, shards)
            record = found.record
            epoch = max(state.epoch for state in found.states.values()) + 1
            granted, refused = await self._ask(upload, found, epoch)
            try:
                if len(granted) >= record.majority and _same(record, granted):
                    recovery = Recovery(
                        self._house,
                        upload,
                        record,
                        epoch,
                        granted,
                        found.without,
                        self._expiry,
                    )
                    return await recovery.run()
            except BaseException:
                await self._release(upload, record, epoch, granted)
                raise
            await self._release(upload, record, epoch, granted)
            first = list(record.nodes.values())
            if refused:
                error = Busy("another request writes this upload")
            if any(state.active for state in refused.values()):
                break
            chance = int.from_bytes(self._house.entropy(2), "big") / 65536
            await self._house.clock.sleep(PAUSE * chance)
        raise error

    async def remove(self, upload: str, nodes: Iterable[str]) -> None:
        """Drop it on these nodes; where they cannot be reached it expires."""
        await poll(self._house.clock, nodes, lambda node: self._on(node).remove(upload))

    async def _look(
        self,
        upload: str,
        nodes: Iterable[str],
        states: dict[str, UploadState],
        missing: set[str],
    ) -> None:
        async def look(node: str) -> UploadState:
            return await self._on(node).look(upload)

        found = await poll(self._house.clock, sorted(nodes), look)
        states.update(found.answers)
        for node, error in found.failures.items():
            if isinstance(error, ShardMissing):
                missing.add(node)
            elif isinstance(error, NodeUnreachable):
                self._house.cluster.suspect(node)

    async def _ask(
        self, upload: str, found: Found, epoch: int
    ) -> tuple[dict[int, UploadState], dict[int, UploadState]]:
        async def claim(index: int) -> UploadState:
            return await self._on(found.record.nodes[index]).claim(upload, epoch)

        answers = (await poll(self._house.clock, found.states, claim)).answers
        return (
            {index: state for index, state in answers.items() if state.granted},
            {index: state for index, state in answers.items() if not state.granted},
        )

    async def _release(
        self, upload: str, record: UploadRecord, epoch: int, indices: Iterable[int]
    ) -> None:
        async def release(index: int) -> None:
            await self._on(record.nodes[index]).release(upload, epoch)

        await poll(self._house.clock, indices, release)

    def _on(self, node: str) -> IUploads:
        return self._house.nodes.uploads(node)


def _enough(record: UploadRecord | None, states: Mapping[str, UploadState]) -> bool:
    if record is None:
        return False
    return len(states.keys() & set(record.nodes.values())) >= record.majority


def _same(record: UploadRecord, granted: Mapping[int, UploadState]) -> bool:
    """Whether the record that the claim met is the one that was looked for."""
    met = newest({str(index): state for index, state in granted.items()})
    return UploadRecord.from_json(met).nodes == record.nodes
