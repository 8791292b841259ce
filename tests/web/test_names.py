"""Any name a client can write is a name of its own, through real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection
from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

from tests.web.serving import Served

PIECES = st.sampled_from(
    ["..", ".", "/", "//", "?", "#", "%", "%2F", "+", " ", "&", ";", "\\", "é", "💾"]
)
NAMES = (
    st.lists(st.one_of(PIECES, st.text(max_size=6)), min_size=1, max_size=12)
    .map("".join)
    .filter(lambda name: name and "\0" not in name and len(name.encode()) <= 1024)
)
SAFE = st.sampled_from(["", "/", "/.~-_", "!$&'()*+,;=:@/"])


class NameTests(Served):
    """Names on the wire."""

    async def in_thread(self, check: Callable[[HTTPConnection], None]) -> None:
        """Run a blocking client beside the server."""

        def run() -> None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                check(connection)
            finally:
                connection.close()

        await deferToThread(run)

    async def test_any_name(self) -> None:
        """PUT, GET, listing and DELETE agree on every name, however it is encoded."""

        def check(connection: HTTPConnection) -> None:
            def ask(method: str, target: str, body: bytes | None = None) -> bytes:
                connection.request(method, target, body)
                answer = connection.getresponse()
                data = answer.read()
                assert answer.status == 200, (method, target, answer.status, data)
                return data

            @settings(max_examples=80, deadline=None, database=None)
            @given(name=NAMES, safe=SAFE)
            @example(name="..", safe="/")
            @example(name="../../etc/passwd", safe="/")
            @example(name="/", safe="/")
            @example(name="//a//", safe="")
            @example(name="a%2Fb", safe="")
            @example(name="?version=1", safe="")
            @example(name="#", safe="")
            @example(name="💾", safe="")
            @example(name="http://x/", safe="!$&'()*+,;=:@/")
            @example(name="x" * 1024, safe="")
            @example(name="é" * 512, safe="")
            def prove(name: str, safe: str) -> None:
                path = quote(name, safe=safe)
                content = name.encode()
                stored = json.loads(ask("PUT", f"/objects/{path}", content))
                assert stored["name"] == name
                assert ask("GET", f"/objects/{path}") == content
                assert ask("GET", f"/objects/{quote(name, safe='')}") == content
                listed = ask("GET", f"/versions/{path}").splitlines()
                assert json.loads(listed[-1]) == stored
                assert json.loads(ask("DELETE", f"/objects/{path}"))["name"] == name
                assert set(self.store.names) == {name}
                self.store.names.clear()

            prove()

        await self.in_thread(check)

    async def test_names_apart(self) -> None:
        """Names that a path would confuse are different objects."""
        names = ["a/b", "a//b", "/a/b", "a/./b", "a/../b", "b", "a%2Fb", "a/b/", "A/b"]
        for name in names:
            target = f"/objects/{quote(name, safe='')}"
            answer = await self.ask("PUT", target, body=name.encode())
            self.assertEqual(answer.json()["version"], 1, name)
        for name in names:
            target = f"/objects/{quote(name, safe='/')}"
            self.assertEqual((await self.ask("GET", target)).body, name.encode())

    async def test_escapes(self) -> None:
        """A slash is a slash, encoded or not; what is encoded twice is decoded once."""
        self.store.fill("a/b", b"slash")
        self.store.fill("a%2Fb", b"percent")
        for path, body in (
            ("a/b", b"slash"),
            ("a%2Fb", b"slash"),
            ("%61%2fb", b"slash"),
            ("a%252Fb", b"percent"),
        ):
            self.assertEqual((await self.ask("GET", f"/objects/{path}")).body, body)

    async def test_plus(self) -> None:
        """`+` in a path is itself."""
        self.store.fill("a+b", b"plus")
        self.assertEqual((await self.ask("GET", "/objects/a+b")).body, b"plus")
