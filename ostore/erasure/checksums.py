"""CRC-32C, the checksum of everything a shard is made of."""

from __future__ import annotations

from fastcrc import crc32

from ostore.erasure.geometry import Buffer


def crc32c(data: Buffer, crc: int = 0) -> int:
    """CRC-32C (Castagnoli, RFC 3720) of `data`, going on from `crc`."""
    value: int = crc32.iscsi(data, crc)
    return value
