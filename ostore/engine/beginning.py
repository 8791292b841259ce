"""The beginning of a resumable upload: a record on its nodes, and a token."""

from __future__ import annotations

from contextlib import suppress

import attrs

from ostore.engine.claiming import Claiming, Finished
from ostore.engine.putting import Putting
from ostore.engine.referring import PutRequest
from ostore.interfaces import IUploads
from ostore.model.errors import NotFound, Refused
from ostore.model.resuming import Paused, UploadRecord
from ostore.model.tokens import Token, Tokens
from ostore.model.versions import Version
from ostore.streaming.fanout import QuorumLost


@attrs.frozen
class Begun:
    """An upload that may be sent now; `token` names it."""

    token: str
    size: int


class Beginning:
    """Begins uploads; owned by Resuming."""

    def __init__(
        self, putting: Putting, claiming: Claiming, tokens: Tokens, expiry: float
    ) -> None:
        self._putting = putting
        self._house = putting.writing
        self._claiming = claiming
        self._tokens = tokens
        self._expiry = expiry

    async def begin(self, request: PutRequest, size: int) -> Begun | Version:
        """A new upload of so many bytes, or the one its put_id began before.

        A Version when that one is finished. Raises TooFewNodes, NoSpace, Refused,
        Paused, ConditionFailed.
        """
        await self._putting.foresee(request)
        if request.put_id is not None:
            made = await self._putting.made_before(request)
            if made is not None:
                return made
            with suppress(NotFound):
                return await self._begun_before(request, request.put_id, size)
        upload = request.put_id or self._house.entropy(16).hex()
        record = self._record(request, upload, size)
        await self._spread(upload, record)
        return self._begun(upload, record)

    def _record(self, request: PutRequest, upload: str, size: int) -> UploadRecord:
        geometry = self._house.coding.geometry
        return UploadRecord(
            name=request.name,
            size=size,
            data=geometry.data,
            parity=geometry.parity,
            quorum=self._house.coding.quorum,
            nodes=self._house.place(upload),
            put_id=upload,
            digest=request.digest,
            bucket=request.bucket,
            headers=request.headers,
            condition=request.condition,
        )

    async def _spread(self, upload: str, record: UploadRecord) -> None:
        begun: dict[int, IUploads] = {}

        def left_out(_: int, node: str, error: Exception) -> None:
            self._house.left_out(node, error)

        fanout = self._house.fan(record.nodes, left_out)
        text = record.to_json()

        async def begin(index: int, node: str) -> None:
            uploads = self._house.nodes.uploads(node)
            await uploads.begin(upload, text, self._expiry)
            begun[index] = uploads

        try:
            await fanout.each(begin)
        except QuorumLost:
            # Only what this call began: the same key may be in use elsewhere.
            nodes = [record.nodes[index] for index in begun]
            await self._claiming.remove(upload, nodes)
            raise self._house.too_few(fanout.failures.values()) from None

    async def _begun_before(
        self, request: PutRequest, upload: str, size: int
    ) -> Begun | Version:
        everyone = self._claiming.everyone()
        try:
            found = await self._claiming.survey(upload, everyone, 0)
        except Finished as end:
            return end.version
        if (found.record.name, found.record.size) != (request.name, size):
            raise Refused(
                "the Idempotency-Key belongs to an upload of another size: take a "
                "fresh key"
            )
        claimed = any(state.epoch for state in found.states.values())
        if len(found.states) < found.record.majority and not claimed:
            # A beginning that failed may have left as much on some nodes.
            raise Paused("too few nodes tell whether such an upload was begun")
        return self._begun(upload, found.record)

    def _begun(self, upload: str, record: UploadRecord) -> Begun:
        nodes = tuple(record.nodes.get(index, "") for index in range(record.shards))
        return Begun(self._tokens.seal(Token(upload, nodes)), record.size)
