"""SHA-256 as it is written: hex inside, base64 in headers and JSON.

A hash inside ostore is always 64 lower-case hex digits.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence

from ostore.model.errors import Malformed

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The hash of no bytes at all."""

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")
_BASE64_URL = re.compile(r"[A-Za-z0-9_-]{43}=?")

# RFC 8941: one member of a dictionary, its value and its parameters.
_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE = rf"(?:{_STRING}|:[A-Za-z0-9+/=]*:|[A-Za-z0-9!#$%&'*+.^_`|~:/?@-]+)"
_PARAMETERS = rf"(?:;[ ]*{_KEY}(?:={_BARE})?)*"
_INNER_LIST = rf'\((?:{_STRING}|[^()"])*\)'
_MEMBER = re.compile(
    rf"(?P<key>{_KEY})(?:=(?P<value>{_BARE}|{_INNER_LIST}))?{_PARAMETERS}"
)
_PREFERENCE = re.compile(r"[0-9]|10")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def parse_hex(text: str) -> str:
    """The hash that 64 hex digits of either case name. Raises Malformed."""
    if _HEX.fullmatch(text) is None:
        raise Malformed("a SHA-256 in hex has 64 digits")
    return text.lower()


def hex_to_base64(hash: str) -> str:
    """Standard base64 (RFC 4648, padded) of a hash in hex."""
    return b64encode(bytes.fromhex(hash)).decode("ascii")


def parse_content_hash(text: str) -> str:
    """The hash in hex from hex, base64 or base64url (there `=` may be left out).

    Raises Malformed.
    """
    if _HEX.fullmatch(text):
        return text.lower()
    standard = text
    if _BASE64_URL.fullmatch(text):
        standard = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"}) + "="
    found = _from_base64(standard)
    if found is None:
        raise Malformed(
            "a content hash is a SHA-256: 64 hex digits, or 32 bytes in base64 "
            "or base64url"
        )
    return found


def parse_digest_headers(
    digest: Sequence[str], content_digest: Sequence[str], repr_digest: Sequence[str]
) -> str | None:
    """The one SHA-256 that these header lines promise; None when none does.

    `Digest` follows RFC 3230, `Content-Digest` and `Repr-Digest` RFC 9530. Other
    algorithms are ignored. Raises Malformed, also when two promises differ.
    """
    promised = set(_digest_values(digest))
    promised.update(_dictionary_values("Content-Digest", content_digest))
    promised.update(_dictionary_values("Repr-Digest", repr_digest))
    if len(promised) > 1:
        raise Malformed("the digest headers promise different SHA-256 values")
    return promised.pop() if promised else None


def wanted(header: str | None) -> bool | None:
    """Whether Want-Repr-Digest (RFC 9530, 4) asks for a SHA-256; None: it says nothing.

    What breaks the syntax says nothing.
    """
    if header is None:
        return None
    try:
        found = dict(_members(header, Malformed("")))
    except Malformed:
        return None
    value = found.get("sha-256", "")
    return None if _PREFERENCE.fullmatch(value) is None else value != "0"


def digest_header(hash: str) -> str:
    """The value of `Digest` (RFC 3230)."""
    return f"SHA-256={hex_to_base64(hash)}"


def repr_digest_header(hash: str) -> str:
    """The value of `Repr-Digest` and `Content-Digest` (RFC 9530)."""
    return f"sha-256=:{hex_to_base64(hash)}:"


def _from_base64(text: str) -> str | None:
    if _BASE64.fullmatch(text) is None:
        return None
    raw = b64decode(text)
    # The last digit holds two bits too many: they must be zero.
    return raw.hex() if b64encode(raw).decode("ascii") == text else None


def _digest_values(lines: Sequence[str]) -> Iterator[str]:
    wrong = Malformed("Digest must read 'SHA-256=<base64 of 32 bytes>'")
    for line in lines:
        parts = [part.strip(" \t") for part in line.split(",")]
        if not any(parts):
            raise wrong
        for part in filter(None, parts):
            algorithm, equals, value = part.partition("=")
            if not equals or not algorithm:
                raise wrong
            if algorithm.lower() == "sha-256":
                found = _from_base64(value)
                if found is None:
                    raise wrong
                yield found


def _dictionary_values(header: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    text = ", ".join(lines).strip(" ")
    wrong = Malformed(f"{header} must read 'sha-256=:<base64 of 32 bytes>:'")
    for key, value in _members(text, wrong):
        if key == "sha-256":
            framed = len(value) > 2 and value[0] == value[-1] == ":"
            found = _from_base64(value[1:-1]) if framed else None
            if found is None:
                raise wrong
            yield found


def _members(text: str, wrong: Malformed) -> Iterator[tuple[str, str]]:
    """Keys and values of a dictionary (RFC 8941, 3.2); raises `wrong`."""
    at = 0
    while True:
        member = _MEMBER.match(text, at)
        if member is None:
            raise wrong
        yield member["key"], member["value"] or ""
        if member.end() == len(text):
            return
        comma = _COMMA.match(text, member.end())
        if comma is None:
            raise wrong
        at = comma.end()
