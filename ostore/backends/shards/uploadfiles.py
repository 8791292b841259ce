"""The blocking half of resumable uploads: their records in temp/."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs

from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.smallfiles import FRESH, read_whole, replace
from ostore.backends.shards.uploadtails import UploadTails
from ostore.model.errors import Malformed, ShardMissing, ShardRotten

MAX_RECORD = 1 << 20
"""Bytes of a record that is read."""

_SUFFIX = ".upload"


@attrs.frozen
class Envelope:
    """The file of a record: the claimant's text, and what the node adds to it.

    `expires` is in seconds since 1970, `expiry` how long a claim renews it for.
    """

    record: str
    expiry: float
    expires: float
    epoch: int = 0
    settled: int = 0
    outcome: str | None = None

    def pack(self) -> bytes:
        """The bytes of the file."""
        return json.dumps({"v": 1, **attrs.asdict(self)}).encode()

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Read what pack() gave. Raises Malformed."""
        try:
            shown = json.loads(data)
            if shown.pop("v") != 1:
                raise ValueError
            return cls(**shown)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Malformed("this is no record of an upload") from None


class UploadFiles:
    """Reads and writes them for Uploads, one call for each upload at a time.

    Runs on worker threads. Raises NodeUnreachable and NodeFull for what the disk does.
    """

    def __init__(
        self, shelf: Shelf, tails: UploadTails, wall: Callable[[], float]
    ) -> None:
        self._disk = shelf.disk
        self._shelf = shelf
        self._tails = tails
        self._wall = wall

    def begin(self, upload: str, envelope: Envelope) -> None:
        """A new upload, durable. Raises ShardRefused when there is one."""
        self._shelf.close(self._shelf.create(upload))
        try:
            self.write(upload, envelope)
        except BaseException:
            self._shelf.drop(upload)
            raise

    def read(self, upload: str) -> Envelope:
        """Its record. Raises ShardMissing, also when it is rotten or has expired."""
        path = self._disk.paths.record(upload)
        with self._shelf.at_root():
            try:
                data = read_whole(self._disk, path, MAX_RECORD)
                envelope = Envelope.parse(data)
            except (FileNotFoundError, Malformed, ShardRotten):
                raise ShardMissing("there is no such upload here") from None
            if envelope.expires < self._wall():
                raise ShardMissing("the upload has expired")
            return envelope

    def write(self, upload: str, envelope: Envelope) -> None:
        """Put another record in its place, durably."""
        packed = envelope.pack()

        def write(fd: int) -> None:
            self._disk.files.pwrite(fd, [packed], 0)

        with self._shelf.at_root():
            replace(self._shelf, self._disk.paths.record(upload), write)

    def remove(self, upload: str) -> None:
        """Everything of it, the record first."""
        paths = self._disk.paths
        with self._shelf.at_root(), suppress(FileNotFoundError):
            self._disk.unname(paths.record(upload))
        self._shelf.drop(upload)
        self._tails.drop(upload, self._tails.all(upload))

    def clean(self, upload: str) -> None:
        """All but the record."""
        self._shelf.drop(upload)
        self._tails.drop(upload, self._tails.all(upload))

    def sweep(self) -> list[str]:
        """Remove what no upload owns, and uploads that have expired; the others."""
        names = self._shelf.temporaries()
        kept = self.living(names)
        with self._shelf.at_root():
            for name in names:
                owner = name.partition(".")[0]
                if owner not in kept or name.endswith(FRESH):
                    self._disk.drop(f"{self._disk.paths.temp}/{name}")
        return sorted(kept)

    def listed(self) -> list[str]:
        """The uploads that have a record, expired or not."""
        names = self._shelf.temporaries()
        return [n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX)]

    def living(self, names: Sequence[str]) -> set[str]:
        """Those among the names in temp/ whose record can be read and has not expired."""
        kept = set()
        for name in names:
            if name.endswith(_SUFFIX):
                with suppress(ShardMissing, Malformed):
                    self.read(name.removesuffix(_SUFFIX))
                    kept.add(name.removesuffix(_SUFFIX))
        return kept
