"""What clients store, and what every shard of it has to look like."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import product
from random import Random

from ostore.backends.shards.incoming import whole_file
from ostore.erasure.codec import Codecs
from ostore.erasure.compressing import compress, promising
from ostore.erasure.encoder import Encoder
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.model.layouts import ShardKey

_CODECS = Codecs("zfec")


def _words(size: int) -> bytes:
    """Bytes that shrink."""
    rng = Random(size)
    line = b" ".join(rng.randbytes(4).hex().encode() for _ in range(40))
    return (line * (size // len(line) + 1))[:size]


CONTENTS = (
    b"",
    b"x",
    Random(2).randbytes(300),
    _words(3000),
    Random(4).randbytes(3000),
    _words(40_000),
    Random(6).randbytes(20_000),
    _words(900),
    _words(STRIPE + 70_000),
    Random(9).randbytes(STRIPE + 17),
)
SMALL, LARGE = range(8), range(8, 10)
HASHES = tuple(hashlib.sha256(content).hexdigest() for content in CONTENTS)
BY_HASH = dict(zip(HASHES, CONTENTS, strict=True))


@cache
def shard_files(
    hash: str, data: int, parity: int, compressing: tuple[bool, ...]
) -> tuple[str, tuple[bytes, ...]]:
    """The layout id, and the file of each shard, with each stripe coded so."""
    geometry = Geometry(data, parity)
    encoder = Encoder(geometry, _CODECS.get(geometry))
    stripes = encoder.feed(BY_HASH[hash])
    tail = encoder.finish()
    coded = []
    cut = [*stripes, *([] if tail is None else [tail])]
    for raw, small in zip(cut, compressing, strict=True):
        shrunk = compress(raw) if small and promising(raw) else None
        coded.append(encoder.code(raw, shrunk))
    layout = encoder.layout()
    files = []
    for index in range(geometry.shards):
        frames = [frames[index] for frames in coded]
        key = ShardKey(hash, index, layout.id)
        files.append(b"".join(whole_file(key, layout, frames)))
    return layout.id, tuple(files)


@cache
def layouts(hash: str, data: int, parity: int) -> Mapping[str, tuple[bytes, ...]]:
    """The same by layout id, of all codings: parts of an upload may go to two apis."""
    stripes = -(-len(BY_HASH[hash]) // STRIPE)
    return dict(
        shard_files(hash, data, parity, each)
        for each in product((True, False), repeat=stripes)
    )
