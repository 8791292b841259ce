"""Upload tokens: short, signed, and nothing in them that a client may choose.

A token is base64url (RFC 4648, without padding) of a version byte, the upload's id
(16 bytes), the first 8 bytes of the id of each of its nodes (zeros where there is
none), and the first 16 bytes of an HMAC-SHA256 over all that. The key comes from the
cluster secret by HKDF-SHA256 (RFC 5869).
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import attrs
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostore.model.errors import OstoreError
from ostore.model.layouts import MAX_SHARDS

VERSION = 1
GUESS = 16
"""Hex digits of a node's id that a token holds."""

_ID, _NODE, _MAC = 16, GUESS // 2, 16
_LEAST = 1 + _ID + _NODE + _MAC
_MOST = 1 + _ID + MAX_SHARDS * _NODE + _MAC
_TEXT = re.compile(rf"[A-Za-z0-9_-]{{1,{-(-_MOST * 4 // 3)}}}")


class Forged(OstoreError):
    """Not a token of this cluster."""


@attrs.frozen
class Token:
    """An upload, and where its parts were put at first.

    `upload` has 32 hex digits; `nodes` are beginnings of node ids by shard index, ""
    where that shard had no node.
    """

    upload: str
    nodes: tuple[str, ...]


class Tokens:
    """Writes tokens with the first secret, reads those of any; holds only keys."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("tokens need at least one secret")
        self._keys = [
            HKDF(SHA256(), length=32, salt=None, info=b"ostore upload token 1").derive(
                secret
            )
            for secret in secrets
        ]

    def seal(self, token: Token) -> str:
        """The token as a client gets it; node ids may be whole."""
        parts = [bytes([VERSION]), bytes.fromhex(token.upload)]
        parts += [bytes.fromhex(node[:GUESS] or "0" * GUESS) for node in token.nodes]
        body = b"".join(parts)
        return _encode(body + _mac(self._keys[0], body))

    def open(self, text: str) -> Token:
        """The token in `text`. Raises Forged, and nothing else."""
        raw = _decode(text)
        body, mac = raw[:-_MAC], raw[-_MAC:]
        good = [hmac.compare_digest(_mac(key, body), mac) for key in self._keys]
        nodes = body[1 + _ID :]
        if not any(good) or len(nodes) % _NODE or body[0] != VERSION:
            raise Forged("this is no upload token of ours")
        guesses = (nodes[at : at + _NODE] for at in range(0, len(nodes), _NODE))
        return Token(
            body[1 : 1 + _ID].hex(),
            tuple(each.hex() if any(each) else "" for each in guesses),
        )


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_MAC]


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Raises Forged; one text alone stands for each token."""
    if _TEXT.fullmatch(text) and len(text) % 4 != 1:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if _LEAST <= len(raw) <= _MOST and _encode(raw) == text:
            return raw
    raise Forged("this is no upload token of ours")
