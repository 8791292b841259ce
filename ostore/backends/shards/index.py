"""Which shards a node holds, kept small: bytes in dictionaries, no object for each."""

from __future__ import annotations

from collections.abc import Iterator

from ostore.model.layouts import ShardKey

_ENTRY = 18


class Index:
    """Names of shards by content hash, each with a copy number (0 outside garbage).

    A cache of the folders: the store fills it from a scan and keeps it in step. For
    one content a node seldom holds more than one shard, so an entry is index, copy
    and layout id in 18 bytes, and those of one hash stand in one bytes object.
    """

    def __init__(self) -> None:
        self._fans: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(256))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: ShardKey, copy: int = 0) -> None:
        """Note that the shard is there; again changes nothing."""
        hash = bytes.fromhex(key.hash)
        fan, entry = self._fans[hash[0]], _pack(key, copy)
        held = fan.get(hash, b"")
        if entry not in _split(held):
            fan[hash] = held + entry
            self._count += 1

    def remove(self, key: ShardKey, copy: int = 0) -> bool:
        """Note that it is gone; False when it was not known."""
        hash = bytes.fromhex(key.hash)
        fan, entry = self._fans[hash[0]], _pack(key, copy)
        held = _split(fan.get(hash, b""))
        if entry not in held:
            return False
        held.remove(entry)
        if held:
            fan[hash] = b"".join(held)
        else:
            del fan[hash]
        self._count -= 1
        return True

    def of(self, hash: str) -> list[tuple[ShardKey, int]]:
        """(shard, copy) of a content, by index, layout and copy."""
        digest = bytes.fromhex(hash)
        held = _split(self._fans[digest[0]].get(digest, b""))
        found = [(ShardKey(hash, e[0], e[2:].hex()), e[1]) for e in held]
        return sorted(found, key=lambda f: (f[0].index, f[0].layout, f[1]))

    def holds(self, hash: str) -> bool:
        """Whether anything of a content is there."""
        digest = bytes.fromhex(hash)
        return digest in self._fans[digest[0]]

    def hashes(self, after: str) -> Iterator[str]:
        """Content hashes greater than `after` (hex, may be empty), ascending.

        Only the 256th part at hand is sorted.
        """
        bound = bytes.fromhex(after)
        if not self._count:
            return
        for number in range(bound[0] if bound else 0, 256):
            for hash in sorted(h for h in self._fans[number] if h > bound):
                yield hash.hex()


def _pack(key: ShardKey, copy: int) -> bytes:
    return bytes((key.index, copy)) + bytes.fromhex(key.layout)


def _split(held: bytes) -> list[bytes]:
    return [held[at : at + _ENTRY] for at in range(0, len(held), _ENTRY)]
