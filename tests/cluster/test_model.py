"""Random operations through real HTTP, compared with a plain dict."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.support.child import serve
from tests.support.standalone import digest, some_bytes

CONTENTS = (b"", b"1", b"two", some_bytes(5000), some_bytes((1 << 20) + 1))
NAMES = ("a", "a/b", "a/c", "b", "ü *", "..")

names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
numbers = st.integers(1, 6)


@attrs.define
class Model:
    """What the store ought to hold: content by name and number, None for a marker."""

    versions: dict[str, dict[int, bytes | None]] = attrs.field(factory=dict)
    high: dict[str, int] = attrs.field(factory=dict)

    def add(self, name: str, content: bytes | None) -> int:
        """The next version; gives its number."""
        number = self.high[name] = self.high.get(name, 0) + 1
        self.versions.setdefault(name, {})[number] = content
        return number

    def latest(self, name: str) -> tuple[int, bytes | None]:
        """The newest version and its number; (0, None) without any."""
        return max(self.versions.get(name, {}).items(), default=(0, None))

    def live(self) -> dict[str, int]:
        """The names that are listed, and their newest numbers."""
        found = {name: self.latest(name) for name in self.versions}
        return {
            name: number
            for name, (number, content) in sorted(found.items(), key=_by_name)
            if content is not None
        }


def _by_name(item: tuple[str, Any]) -> bytes:
    return item[0].encode()


class Objects(RuleBasedStateMachine):
    """One example: names below a prefix of its own, in a store that all share."""

    port: ClassVar[int]
    prefixes: ClassVar[Iterator[int]]

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"run {next(self.prefixes)}/"
        self.model = Model()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def teardown(self) -> None:
        """Close the connection, which all requests shared."""
        self.connection.close()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request on the example's connection."""
        self.connection.request(method, target, body, headers or {})
        answer = self.connection.getresponse()
        return answer, answer.read()

    def path(self, name: str, number: int | None = None) -> str:
        """The target of an object."""
        query = "" if number is None else f"?version={number}"
        return f"/objects/{quote(self.prefix + name, safe='')}{query}"

    @rule(name=names, content=contents)
    def put(self, name: str, content: bytes) -> None:
        """PUT makes the next version."""
        headers = dict([digest(content)])
        answer, body = self.ask("PUT", self.path(name), content, headers)
        assert answer.status == 200, body
        assert json.loads(body)["version"] == self.model.add(name, content)

    @rule(name=names, content=contents)
    def wrong(self, name: str, content: bytes) -> None:
        """A wrong digest makes none."""
        headers = dict([digest(content + b"x")])
        answer, _ = self.ask("PUT", self.path(name), content, headers)
        assert answer.status == 400

    @rule(name=names, content=contents)
    def create(self, name: str, content: bytes) -> None:
        """POST creates what is absent or deleted."""
        answer, _ = self.ask("POST", self.path(name), content)
        if self.model.latest(name)[1] is None:
            assert answer.status == 201
            self.model.add(name, content)
        else:
            assert answer.status == 409

    @rule(name=names)
    def delete(self, name: str) -> None:
        """DELETE adds a marker where there is something to delete."""
        answer, body = self.ask("DELETE", self.path(name))
        if self.model.latest(name)[1] is None:
            assert answer.status == 404
        else:
            assert answer.status == 200
            assert json.loads(body)["version"] == self.model.add(name, None)

    @rule(name=names, number=numbers)
    def purge(self, name: str, number: int) -> None:
        """DELETE of a version removes it for good."""
        answer, _ = self.ask("DELETE", self.path(name, number))
        known = self.model.versions.get(name, {})
        assert answer.status == (204 if number in known else 404)
        known.pop(number, None)

    @rule(name=names)
    def get(self, name: str) -> None:
        """GET gives the newest version."""
        number, content = self.model.latest(name)
        answer, body = self.ask("GET", self.path(name))
        if content is None:
            assert answer.status == 404
            marker = answer.getheader("X-Ostore-Delete-Marker")
            assert marker == ("true" if number else None)
        else:
            assert answer.status == 200
            assert body == content
            assert answer.getheader("X-Ostore-Version") == str(number)

    @rule(name=names, number=numbers)
    def get_version(self, name: str, number: int) -> None:
        """GET of a version gives that one."""
        content = self.model.versions.get(name, {}).get(number)
        answer, body = self.ask("GET", self.path(name, number))
        assert answer.status == (404 if content is None else 200)
        assert content is None or body == content

    @rule(name=names, first=st.integers(0, 6000), length=st.integers(1, 6000))
    def get_part(self, name: str, first: int, length: int) -> None:
        """GET of a range gives that part."""
        _, content = self.model.latest(name)
        asked = {"Range": f"bytes={first}-{first + length - 1}"}
        answer, body = self.ask("GET", self.path(name), headers=asked)
        if content is None:
            assert answer.status == 404
        elif first >= len(content):
            assert answer.status in (200, 416)
            assert answer.status == 416 or not content
        else:
            assert answer.status == 206
            assert body == content[first : first + length]

    @rule(name=names)
    def versions(self, name: str) -> None:
        """The versions of a name are those that were made and not purged."""
        target = f"/versions/{quote(self.prefix + name, safe='')}"
        _, body = self.ask("GET", target)
        shown = [json.loads(line) for line in body.splitlines()]
        known = self.model.versions.get(name, {})
        assert [(each["version"], each["deleted"], each["size"]) for each in shown] == [
            (number, content is None, len(content or b""))
            for number, content in sorted(known.items())
        ]

    @invariant()
    def listing(self) -> None:
        """The listing has the names that are there, in order, page by page."""
        shown: dict[str, int] = {}
        after = ""
        while True:
            query = f"?prefix={quote(self.prefix)}&limit=2&after={quote(after)}"
            _, body = self.ask("GET", f"/objects/{query}")
            page = json.loads(body)
            for each in page["items"]:
                shown[each["name"].removeprefix(self.prefix)] = each["version"]
            if page["next"] is None:
                break
            after = page["next"]
        expected = self.model.live()
        assert list(shown.items()) == list(expected.items())


class ModelTests(SynchronousTestCase):
    """The store is a dict of numbered versions, whatever is asked in which order."""

    def test_against_a_dict(self) -> None:
        """Every answer of every sequence is the one that the dict gives."""
        child = serve(Path(self.mktemp()).absolute() / "root")
        self.addCleanup(child.close)
        Objects.port, Objects.prefixes = child.ready(), count()
        bounded = settings(
            deadline=None,
            max_examples=25,
            stateful_step_count=20,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Objects, settings=bounded)
        self.assertEqual(child.stderr, "")
