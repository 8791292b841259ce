"""Signed requests: who asks a data node, proven by the cluster secret.

A request bears `Authorization: OSTORE1 {caller}:{mac}`, `X-Ostore-Date` (unix
seconds) and `X-Ostore-Nonce` (32 hex digits). The mac is HMAC-SHA256 (RFC 2104), in
hex, over lines joined by a newline: `OSTORE1`, method, Host and request target as
sent, date, nonce, caller, then Digest, Size and Upload-Offset, each `-` where absent.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence

import attrs
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostore.model.errors import OstoreError

SCHEME = "OSTORE1"
WINDOW = 60
"""Seconds that a date may lie from the clock of the one who checks it."""
MAX_NONCES = 500_000
"""Nonces remembered at once; beyond that requests are refused, never replayed."""
GUARDED = ("Digest", "Size", "Upload-Offset")
"""Headers that the mac covers, in their order."""

_AUTHORIZATION = re.compile(r"OSTORE1 ([\x21-\x39\x3b-\x7e]{1,128}):([0-9a-f]{64})")
_DATE = re.compile(r"[0-9]{1,12}")
_NONCE = re.compile(r"[0-9a-f]{32}")


class Unsigned(OstoreError):
    """The signature is missing or wrong; nothing was done."""


class WrongTime(Unsigned):
    """The signature is right, but its date is not of now."""


@attrs.frozen
class Signed:
    """What a mac guards; `digest`, `size` and `offset` are header values as sent."""

    method: str
    host: str
    target: str
    date: str
    nonce: str
    caller: str
    digest: str | None = None
    size: str | None = None
    offset: str | None = None

    def mac(self, secret: bytes) -> str:
        """HMAC-SHA256 in hex."""
        lines = (
            SCHEME,
            self.method,
            self.host,
            self.target,
            self.date,
            self.nonce,
            self.caller,
            *(
                "-" if value is None else value
                for value in (self.digest, self.size, self.offset)
            ),
        )
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
        return hmac.digest(secret, text, "sha256").hex()


def conversation_key(secret: bytes, authorization: str, salt: bytes) -> bytes:
    """The key of one conversation, 32 bytes, by HKDF-SHA256 (RFC 5869).

    Both ends have their share of chance in it: the caller by the `authorization` of the
    request that began it, the node by the `salt` in its answer.
    """
    return HKDF(
        SHA256(), 32, salt + authorization.encode("ascii"), b"ostore frames 1"
    ).derive(secret)


class Caller:
    """Signs requests with the first secret; one for each service that asks others.

    Keeps the clock offset of each peer, as far as its answers told it.
    """

    def __init__(
        self,
        name: str,
        secret: bytes,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.name = name
        self._secret = secret
        self._wall = wall
        self._entropy = entropy
        self._offsets: dict[str, float] = {}

    def headers(
        self,
        peer: str,
        method: str,
        host: str,
        target: str,
        guarded: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """What to send beside the `guarded` headers (those of GUARDED, as sent).

        `peer` names whose clock is meant.
        """
        given = guarded or {}
        date = str(int(self.time_of(peer)))
        nonce = self._entropy(16).hex()
        signed = Signed(
            method, host, target, date, nonce, self.name, *map(given.get, GUARDED)
        )
        return {
            "Authorization": f"{SCHEME} {self.name}:{signed.mac(self._secret)}",
            "X-Ostore-Date": date,
            "X-Ostore-Nonce": nonce,
        }

    def conversation_key(self, authorization: str, salt: bytes) -> bytes:
        """The key of what a request of ours, with that `authorization`, began."""
        return conversation_key(self._secret, authorization, salt)

    def time_of(self, peer: str) -> float:
        """Unix seconds by the peer's clock, as far as it is known."""
        return self._wall() + self._offsets.get(peer, 0.0)

    def told(self, peer: str, now: float) -> None:
        """The peer says that its clock shows `now`."""
        self._offsets[peer] = now - self._wall()

    def keep(self, peers: Collection[str]) -> None:
        """Forget the clocks of all others."""
        self._offsets = {p: self._offsets[p] for p in self._offsets.keys() & peers}


@attrs.frozen
class Proven:
    """A request whose signature fits."""

    caller: str
    authorization: str
    _secret: bytes = attrs.field(repr=False)

    def conversation_key(self, salt: bytes) -> bytes:
        """The key of what this request begins."""
        return conversation_key(self._secret, self.authorization, salt)


class Nonces:
    """Every nonce that may still be replayed; siblings of one process share one."""

    def __init__(self, limit: int = MAX_NONCES) -> None:
        self._limit = limit
        self._known: set[bytes] = set()
        self._by_second: dict[int, list[bytes]] = {}

    def take(self, nonce: str, date: int, now: float) -> bool:
        """Whether it is new; False also when too many are remembered.

        A nonce is forgotten once its date is too old to be accepted.
        """
        oldest = int(now) - WINDOW
        if self._by_second and min(self._by_second) < oldest:
            for second in [s for s in self._by_second if s < oldest]:
                self._known.difference_update(self._by_second.pop(second))
        given = bytes.fromhex(nonce)
        if given in self._known or len(self._known) >= self._limit:
            return False
        self._known.add(given)
        self._by_second.setdefault(date, []).append(given)
        return True


class AnyHost:
    """The names of a service that cannot know all of its own."""

    def __contains__(self, _: object) -> bool:
        return True


class Guard:
    """Checks the signatures of the requests to one service.

    `hosts` gives the names under which the service is reached (see AnyHost). Dates
    before the second of its own start are refused: a restart forgets the nonces before
    it.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        hosts: Callable[[], Container[str]],
        wall: Callable[[], float],
        nonces: Nonces,
    ) -> None:
        self.refused = 0
        self._secrets = tuple(secrets)
        self._hosts = hosts
        self._wall = wall
        self._nonces = nonces
        self._started = int(wall())

    def check(
        self, method: str, target: str, header: Callable[[str], str | None]
    ) -> Proven:
        """Who asks. Raises Unsigned, WrongTime; says no more than that."""
        try:
            return self._check(method, target, header)
        except Unsigned:
            self.refused += 1
            raise

    def _check(
        self, method: str, target: str, header: Callable[[str], str | None]
    ) -> Proven:
        match = _AUTHORIZATION.fullmatch(header("Authorization") or "")
        date, nonce = header("X-Ostore-Date") or "", header("X-Ostore-Nonce") or ""
        if match is None or not _DATE.fullmatch(date) or not _NONCE.fullmatch(nonce):
            raise Unsigned("the request must be signed with the cluster secret")
        host = header("Host") or ""
        signed = Signed(
            method, host, target, date, nonce, match[1], *map(header, GUARDED)
        )
        # All are compared, so that the time taken tells nothing.
        fits = [hmac.compare_digest(signed.mac(key), match[2]) for key in self._secrets]
        if not any(fits):
            raise Unsigned("the signature does not fit the request")
        if host.lower() not in self._hosts():
            raise Unsigned("the request was signed for another host")
        now = self._wall()
        if abs(int(date) - now) > WINDOW or int(date) < self._started:
            raise WrongTime("the date of the request is not of now")
        if not self._nonces.take(nonce, int(date), now):
            raise Unsigned("the request was seen before")
        secret = self._secrets[fits.index(True)]
        return Proven(match[1], match[0], secret)
