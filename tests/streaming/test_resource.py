"""From method to coroutine, from error to answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.model import errors
from ostore.streaming.problem import Problem, as_problem
from ostore.streaming.resource import (
    LONGEST_TARGET,
    Call,
    Dispatcher,
    Resource,
    hide_after,
    printable,
)
from tests.streaming.wire import REAL, RawClient, Response, SiteCase, until


class Thing(Resource):
    """Raises what it is given, or answers."""

    allowed = ("GET", "HEAD", "PUT")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.before = b""
        self.query: dict[str, list[str]] = {}
        self.go: Deferred[None] | None = None

    async def get(self, call: Call) -> None:
        """Answer, fail, or wait, as told."""
        self.query = call.query
        if self.go is not None:
            await self.go
        if self.before:
            await call.reply.write(self.before)
        if self.error is not None:
            call.reply.headers["ETag"] = "never"
            raise self.error
        call.reply.send(200, {"X-Seen": call.header("x-mine") or ""}, b"thing")

    async def put(self, call: Call) -> None:
        """Read the body."""
        while await call.body.read():
            pass
        call.reply.send(200)


class DispatchCase(SiteCase):
    """One thing behind a dispatcher on a real socket."""

    async def start(self) -> RawClient:
        """Serve the thing; gives a client."""
        self.thing = Thing()
        self.lines: list[dict[str, Any]] = []

        def route(call: Call) -> Resource:
            if call.path == b"/absent":
                raise errors.NotFound("nothing there")
            return self.thing

        dispatcher = Dispatcher(route, REAL, self.lines.append, hide_after("/temp/"))
        await self.serve(dispatcher)
        return await self.client()

    async def ask(
        self, client: RawClient, method: bytes = b"GET", target: bytes = b"/x"
    ) -> Response:
        """One request and its answer."""
        client.send(method, b" ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n")
        return await client.response(head_only=method == b"HEAD")


class MethodTests(DispatchCase):
    """GET, HEAD, OPTIONS and the rest."""

    async def test_get_and_head(self) -> None:
        """HEAD is GET without its body."""
        client = await self.start()
        got = await self.ask(client)
        self.assertEqual((got.status, got.body), (200, b"thing"))
        head = await self.ask(client, b"HEAD")
        self.assertEqual(head.headers["Content-Length"], "5")
        await self.still_alive(client)

    async def test_own_head(self) -> None:
        """A resource with a `head` of its own has it called."""
        client = await self.start()

        async def head(call: Call) -> None:
            call.reply.send(200, {"X-Own": "1"})

        self.thing.head = head  # type: ignore[attr-defined]  # that is the point
        self.assertEqual((await self.ask(client, b"HEAD")).headers["X-Own"], "1")

    async def test_options(self) -> None:
        """OPTIONS is 204 with Allow."""
        client = await self.start()
        response = await self.ask(client, b"OPTIONS")
        self.assertEqual(response.status, 204)
        self.assertEqual(response.headers["Allow"], "GET, HEAD, PUT, OPTIONS")
        await self.still_alive(client)

    async def test_other_methods(self) -> None:
        """405 with Allow, also for names that are Python attributes."""
        client = await self.start()
        for method in b"DELETE", b"SERVE", b"get", b"__class__":
            response = await self.ask(client, method)
            self.assertEqual(response.status, 405)
            self.assertEqual(response.headers["Allow"], "GET, HEAD, PUT, OPTIONS")

    async def test_query(self) -> None:
        """Decoded parameters; bad ones are 400."""
        client = await self.start()
        await self.ask(client, target=b"/x?a=%C3%A9&a=&b")
        self.assertEqual(self.thing.query, {"a": ["\xe9", ""], "b": [""]})
        for target in b"/x?a=%FF", b"/x?" + b"a&" * 200:
            response = await self.ask(client, target=target)
            self.assertEqual(response.status, 400)


class ErrorTests(DispatchCase):
    """Every error has its answer."""

    async def test_problem_document(self) -> None:
        """problem+json with type, title, status, detail and the request id."""
        client = await self.start()
        self.thing.error = errors.DigestMismatch("the body has another digest")
        response = await self.ask(client)
        self.assertEqual(response.headers["Content-Type"], "application/problem+json")
        self.assertNotIn("ETag", response.headers)
        document = json.loads(response.body)
        self.assertEqual(
            document,
            {
                "type": "urn:ostore:problem:digest-mismatch",
                "title": "The body is not what its digest says",
                "status": 400,
                "detail": "the body has another digest",
                "request_id": response.headers["X-Request-Id"],
            },
        )
        await self.still_nothing_logged()

    async def still_nothing_logged(self) -> None:
        """No error reached the log."""
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_route_error(self) -> None:
        """An error while routing is answered the same way."""
        client = await self.start()
        self.assertEqual((await self.ask(client, target=b"/absent")).status, 404)

    async def test_crash(self) -> None:
        """An unknown error is 500 with a fixed sentence; only the log knows more."""
        client = await self.start()
        self.thing.error = KeyError("secret of mine")
        response = await self.ask(client)
        self.assertEqual(response.status, 500)
        for word in b"secret", b"KeyError", b"Traceback":
            self.assertNotIn(word, response.body)
        self.assertEqual(json.loads(response.body)["type"], "about:blank")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        await self.still_dispatching(client)

    async def still_dispatching(self, client: RawClient) -> None:
        """The connection still reaches the thing."""
        self.thing.error = None
        self.assertEqual((await self.ask(client)).status, 200)

    async def test_error_behind_the_first_byte(self) -> None:
        """The connection is cut: no problem document inside a body."""
        client = await self.start()
        self.thing.before = b"half"
        self.thing.error = errors.TooFewShards("gone")
        client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.closed()
        self.assertNotIn(b"problem", client.inbox)
        self.assertFalse(client.inbox.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.lines[0]["complete"], False)

    async def test_no_answer(self) -> None:
        """A method that returns without an answer is a mistake of ours."""
        client = await self.start()

        async def silent(call: Call) -> None:
            pass

        self.thing.get = silent  # type: ignore[method-assign]  # that is the point
        self.assertEqual((await self.ask(client)).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class LogTests(DispatchCase):
    """One line a request."""

    async def test_line(self) -> None:
        """Method, target, status, bytes both ways, agent, and no other header."""
        client = await self.start()
        client.send(
            b"PUT /x?y=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nUser-Agent: a\tb\xff\r\n"
            b"Authorization: sesame\r\n\r\nabc"
        )
        response = await client.response()
        await until(lambda: self.lines)
        [line] = self.lines
        self.assertEqual(line["request_id"], response.headers["X-Request-Id"])
        self.assertEqual((line["method"], line["target"]), ("PUT", "/x?y=1"))
        self.assertEqual((line["status"], line["complete"]), (200, True))
        self.assertEqual((line["bytes_in"], line["bytes_out"]), (3, 0))
        self.assertEqual(line["user_agent"], "a\\tb\\udcff")
        self.assertEqual(line["remote"], "127.0.0.1")
        self.assertNotIn("sesame", json.dumps(self.lines))

    async def test_token_is_hidden(self) -> None:
        """What follows /temp/ never reaches the log."""
        client = await self.start()
        for target, shown in (
            (b"/temp/token?x", "/temp/..."),
            (b"http://a:1/temp/token?x", "http://a:1/temp/..."),
            (b"HTTPS://u@a/temp/token", "HTTPS://u@a/temp/..."),
            (b"x:///temp/token", "x:///temp/..."),
            (b"http://a", "http://a"),
            (b"/x/temp/no-token", "/x/temp/no-token"),
        ):
            await self.ask(client, target=target)
            self.assertEqual(self.lines[-1]["target"], shown)

    async def test_long_target_is_cut(self) -> None:
        """A target fills at most its limit."""
        client = await self.start()
        await self.ask(client, target=b"/" + b"x" * 5000)
        self.assertEqual(len(self.lines[0]["target"]), LONGEST_TARGET + 3)

    async def test_client_that_vanished(self) -> None:
        """A request whose client left before the answer has a line without status."""
        client = await self.start()
        self.thing.go = Deferred()
        client.send(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: self.site.in_flight)
        client.transport.abortConnection()
        await until(lambda: not self.site.connections)
        self.thing.go.callback(None)
        self.assertEqual(self.lines[0]["complete"], False)
        self.assertIsNone(self.lines[0]["status"])


class TableTests(SynchronousTestCase):
    """The error table."""

    def test_statuses(self) -> None:
        """Each error of the family has its status and slug."""
        for error, status, slug in (
            (errors.Malformed("x"), 400, "malformed"),
            (errors.DigestMismatch("x"), 400, "digest-mismatch"),
            (errors.NotFound("x"), 404, "not-found"),
            (errors.Deleted("x", 7), 404, "deleted"),
            (errors.AlreadyExists("x"), 409, "already-exists"),
            (errors.ConditionFailed("x"), 412, "condition-failed"),
            (errors.Unavailable("x"), 503, "unavailable"),
            (errors.TooFewNodes("x"), 503, "unavailable"),
            (errors.TooFewShards("x"), 503, "unavailable"),
            (errors.MetadataUnavailable("x"), 503, "unavailable"),
            (errors.BusUnavailable("x"), 503, "unavailable"),
            (errors.OutcomeUnknown("x"), 503, "outcome-unknown"),
            (errors.NoSpace("x"), 507, "no-space"),
            (errors.NodeUnreachable("x"), 503, "unavailable"),
            (errors.ShardRotten("x"), 503, "unavailable"),
        ):
            problem = as_problem(error)
            assert problem is not None
            self.assertEqual((problem.status, problem.slug), (status, slug))
            self.assertEqual("Retry-After" in problem.headers, status == 503)

    def test_retry_after(self) -> None:
        """Unavailable errors say when to come back."""
        problem = as_problem(errors.TooFewNodes("x"))
        self.assertEqual(problem and problem.headers, {"Retry-After": "5"})

    def test_delete_marker(self) -> None:
        """A delete marker shows its version."""
        problem = as_problem(errors.Deleted("x", 7))
        expected = {"X-Ostore-Delete-Marker": "true", "X-Ostore-Version": "7"}
        self.assertEqual(problem and problem.headers, expected)

    def test_shard_errors_tell_nothing(self) -> None:
        """What happens between engine and nodes stays there."""
        problem = as_problem(errors.NodeUnreachable("node 17 at 10.0.0.3"))
        self.assertNotIn("17", str(problem))

    def test_strangers(self) -> None:
        """ClientGone and foreign errors have no answer here; a Problem is its own."""
        self.assertIsNone(as_problem(errors.ClientGone("x")))
        self.assertIsNone(as_problem(KeyError("x")))
        problem = Problem(416, "x")
        self.assertIs(as_problem(problem), problem)

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=40))
    def test_printable(self, text: str) -> None:
        """A log line never holds anything but visible ASCII."""
        shown = printable(text, 30)
        self.assertTrue(shown.isascii() and shown.isprintable())
