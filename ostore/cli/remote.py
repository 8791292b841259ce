"""What the service can be asked, one method a request; no files, no screens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from ostore.cli.answer import CHUNK, Answer
from ostore.cli.client import Body, Client
from ostore.cli.failures import Misused, Refused, Unreachable
from ostore.model.digest import digest_header

Version = dict[str, Any]
"""A version as the service gives it in JSON."""

MAX_NAME = 1024
PAGE = 1000
_HASH = re.compile("(?:[A-Za-z0-9+/]{43}=)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z$")
OUTCOME_WAIT = 900.0
"""Seconds that the read-back at the end of an upload may take."""


def target(name: str, version: int | None = None, *, below: str = "objects") -> str:
    """The request target of a name. Raises Misused for one that none can have."""
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise Misused(f"the name {name!a} is not UTF-8") from None
    if not 0 < len(raw) <= MAX_NAME or b"\0" in raw:
        raise Misused(f"the name {name!a} is not 1 to {MAX_NAME} bytes without NUL")
    query = "" if version is None else f"?version={version}"
    return f"/{below}/{quote(raw, safe='/')}{query}"


def version_of(value: Any) -> Version:
    """A version from JSON. Raises Unreachable for anything else."""
    kinds = {"name": str, "version": int, "size": int, "hash": str, "created": str}
    if (
        not isinstance(value, dict)
        or any(type(value.get(key)) is not kind for key, kind in kinds.items())
        or not isinstance(value.get("deleted"), bool)
        or not isinstance(value.get("metadata", {}), dict)
        or not _HASH.fullmatch(value["hash"])
        or not _TIME.match(value["created"])
    ):
        raise Unreachable("the answer is no version: is this an ostore?")
    return value


def hash_of(version: Version) -> str:
    """The content's SHA-256 in hex."""
    from base64 import b64decode  # noqa: PLC0415  # what few verbs need

    return b64decode(version["hash"]).hex()


class Remote:
    """The service, as the verbs see it; threads may share it."""

    def __init__(self, client: Client, entropy: Callable[[int], bytes]) -> None:
        self.client = client
        self._entropy = entropy

    def key(self) -> str:
        """A new Idempotency-Key."""
        return self._entropy(16).hex()

    def put(
        self,
        name: str,
        headers: Mapping[str, str],
        body: Body,
        size: int | None,
        hash: str | None,
        *,
        attempts: int | None = None,
    ) -> Version:
        """Write a new version; a body that can be begun anew is sent until it is."""
        head = {"Idempotency-Key": self.key(), **headers}
        if size is not None:
            head["Content-Length"] = str(size)
        if hash is not None:
            head["Digest"] = digest_header(hash)
        answer = self.client.ask("PUT", target(name), head, body, attempts=attempts)
        return self._version(answer)

    def copy(
        self, name: str, version: int | None, to: str, headers: Mapping[str, str]
    ) -> Version:
        """A new version of `to` with the content and headers of another."""
        source = target(name, version).removeprefix("/objects/")
        head = {
            "Idempotency-Key": self.key(),
            "X-Ostore-Copy-From": source,
            **headers,
        }
        return self._version(self.client.ask("PUT", target(to), head))

    def delete(self, name: str) -> Version:
        """Add a delete marker."""
        head = {"Idempotency-Key": self.key()}
        return self._version(self.client.ask("DELETE", target(name), head))

    def erase(self, name: str, version: int) -> None:
        """Remove one version for good."""
        lost = False
        for failed in range(1, self.client.backoff.attempts + 1):
            try:
                answer = self.client.once(
                    "DELETE", target(name, version), accept=(204,)
                )
            except Refused as error:
                if error.code == 404 and lost:
                    return
                self.client.pause(failed, error)
            except Unreachable as error:
                lost = True
                self.client.pause(failed, error)
            else:
                answer.read(0)
                return

    def head(self, name: str, version: int | None = None) -> Answer:
        """The headers of a version; its body is empty."""
        answer = self.client.ask("HEAD", target(name, version))
        answer.read(0)
        return answer

    def names(
        self, prefix: str = "", delimiter: str = "", *, most: int | None = None
    ) -> Iterator[Version | str]:
        """Newest versions, and prefixes as texts, in the order of their bytes."""
        after, left = "", most
        while left is None or left > 0:
            query = {
                "prefix": prefix,
                "delimiter": delimiter,
                "after": after,
                "limit": str(PAGE if left is None else min(PAGE, left)),
            }
            given = urlencode(
                {key: value for key, value in query.items() if value},
                quote_via=quote,
                safe="/",
            )
            page = self.client.ask("GET", f"/objects/?{given}").json()
            try:
                found = [version_of(item) for item in page["items"]]
                prefixes = [str(prefix) for prefix in page["prefixes"]]
                next = None if page["next"] is None else str(page["next"])
            except (LookupError, TypeError) as error:
                raise Unreachable(
                    "the answer is no listing: is this an ostore?"
                ) from error
            entries: list[Version | str] = [*found, *prefixes]
            entries.sort(key=lambda e: e if isinstance(e, str) else e["name"])
            yield from entries
            if next is None:
                return
            if next <= after:
                raise Unreachable("the listing goes round in circles")
            after = next
            left = None if left is None else left - len(entries)

    def versions(self, name: str = "") -> Iterator[Version]:
        """All versions of one name, or of all, as they come."""
        where = target(name, below="versions") if name else "/versions/"
        for line in lines(self.client.ask("GET", where)):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Unreachable("a line of the listing is not JSON") from error
            yield version_of(found)

    @staticmethod
    def _version(answer: Answer) -> Version:
        return version_of(answer.json())


def lines(answer: Answer) -> Iterator[bytes]:
    """The lines of a body, without their ends."""
    buffer = memoryview(bytearray(CHUNK))
    rest = b""
    try:
        while count := answer.into(buffer):
            *whole, rest = (rest + bytes(buffer[:count])).split(b"\n")
            yield from whole
        if rest:
            yield rest
    finally:
        answer.close()
