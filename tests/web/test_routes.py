"""Which target is answered by what, and what is said of every request."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ostore.web.api.root import ROUTES, match
from tests.web.serving import Served

ALLOWED = {
    "/objects/": "GET, HEAD, OPTIONS",
    "/objects/{name}": "GET, HEAD, PUT, POST, DELETE, OPTIONS",
    "/versions/": "GET, HEAD, OPTIONS",
    "/versions/{name}": "GET, HEAD, OPTIONS",
    "/temp/{token}": "HEAD, PUT, DELETE, OPTIONS",
    "/locate/{hash}": "GET, HEAD, OPTIONS",
    "/cluster": "GET, HEAD, OPTIONS",
    "/cluster/adopt": "POST, OPTIONS",
    "/cluster/jobs/{job}": "GET, HEAD, POST, OPTIONS",
    "/cluster/nodes/{node}": "POST, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
}


class RouteTests(Served):
    """Methods and targets."""

    async def test_options(self) -> None:
        """OPTIONS is 204 with Allow on every target."""
        self.assertEqual(set(ROUTES), set(ALLOWED))
        for route, allow in ALLOWED.items():
            answer = await self.ask(
                "OPTIONS",
                route.format(
                    name="a", hash="0" * 64, job="scrub", token="t", node="n/drain"
                ),
            )
            self.assertEqual((answer.status, answer.body), (204, b""), route)
            self.assertEqual(answer.get("allow"), allow)
            self.assertIsNone(answer.get("content-length"))

    async def test_options_of_the_server(self) -> None:
        """`OPTIONS *` is 204 too."""
        answer = await self.ask("OPTIONS", "*")
        self.assertEqual(answer.status, 204)
        self.assertIn("PUT", answer.get("allow") or "")
        self.assert_problem(await self.ask("GET", "*"), 404)

    async def test_other_methods(self) -> None:
        """Every method that is not allowed is 405 with Allow."""
        for route, allow in ALLOWED.items():
            target = route.format(
                name="a", hash="0" * 64, job="scrub", token="t", node="n/drain"
            )
            for method in ("PUT", "POST", "DELETE", "PATCH", "TRACE", "BREW"):
                if method in allow or (route == "/objects/" and method != "PATCH"):
                    continue
                answer = await self.ask(method, target)
                self.assert_problem(answer, 405)
                self.assertEqual(answer.get("allow"), allow)

    async def test_unknown_targets(self) -> None:
        """Whatever is not ours is 404, for every method."""
        for target in (
            "/",
            "/objects",
            "/versions",
            "/locate",
            "/cluster/",
            "/cluster/x",
            "/health",
            "/health/",
            "/metrics/",
            "/Objects/a",
            "//objects/a",
            "/../objects/a",
            "/%6Fbjects/a",
            "/favicon.ico",
        ):
            for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                self.assert_problem(await self.ask(method, target), 404)

    async def test_absolute_form(self) -> None:
        """A target with scheme and host is the same target."""
        self.store.fill("a", b"x")
        answer = await self.ask("GET", "http://example:80/objects/a")
        self.assertEqual(answer.body, b"x")
        self.assert_problem(await self.ask("GET", "http://example"), 404)

    async def test_request_ids(self) -> None:
        """Every answer bears an id of its own."""
        targets = ["/objects/a", "/nowhere", "/metrics", "/health/ready", "/versions/"]
        answers = [await self.ask("GET", target) for target in targets]
        answers.append(await self.ask("OPTIONS", "/objects/a"))
        ids = {answer.get("x-request-id") for answer in answers}
        self.assertEqual(len(ids), len(answers))
        self.assertNotIn(None, ids)

    async def test_connection_goes_on(self) -> None:
        """One connection serves requests of every kind one after the other."""
        connection = await self.connected()
        for method, target, status in (
            ("PUT", "/objects/a", 200),
            ("GET", "/objects/a", 200),
            ("HEAD", "/objects/a", 200),
            ("GET", "/objects/b", 404),
            ("GET", "/versions/a", 200),
            ("POST", "/objects/a", 409),
            ("DELETE", "/objects/a?version=1", 204),
            ("OPTIONS", "/objects/a", 204),
            ("PATCH", "/objects/a", 405),
            ("PUT", "/objects/", 400),
        ):
            sized = [("Content-Length", "5")] if method in ("PUT", "POST") else []
            connection.ask(method, target, sized)
            if sized:
                connection.send(b"hello")
            answer = await connection.answer(method)
            self.assertEqual(answer.status, status, (method, target))


class AccessLogTests(Served):
    """One line a request."""

    async def test_line(self) -> None:
        """A line says who asked what and what came of it."""
        await self.ask("PUT", "/objects/a", {"User-Agent": "test/1"}, b"hello")
        line = self.lines[-1]
        self.assertEqual((line["method"], line["target"]), ("PUT", "/objects/a"))
        self.assertEqual((line["status"], line["bytes_in"]), (200, 5))

    async def test_no_secrets(self) -> None:
        """No header but the user agent gets into the log, and no part of a body."""
        secrets = {
            "Authorization": "OSTORE1 me:very-secret-1",
            "Cookie": "session=very-secret-2",
            "Idempotency-Key": "very-secret-3",
            "X-Ostore-Meta-Note": "very-secret-4",
        }
        await self.ask("PUT", "/objects/a", secrets, b"very-secret-5")
        await self.ask("PUT", "/objects/", secrets, b"very-secret-6")
        await self.ask("GET", "/nowhere", secrets)
        await self.ask("PUT", "/temp/very-secret-7", {"Range": "bytes=0-"}, b"")
        self.assertEqual(len(self.lines), 4)
        self.assertNotIn("very-secret", json.dumps(self.lines))

    async def test_no_raw_names(self) -> None:
        """What a client writes cannot forge a line."""
        await self.ask("GET", "/objects/%0aforged", {"User-Agent": b"a\x1b[31m\xff"})
        for value in self.lines[-1].values():
            if isinstance(value, str):
                self.assertTrue(value.isascii() and value.isprintable(), value)


class MatchTests(SynchronousTestCase):
    """Paths are never normalised."""

    def test_names_stay_as_sent(self) -> None:
        """Everything behind the prefix is the name, still encoded."""
        for rest in (b"a", b"..", b"../x", b"/", b"//a", b"a%2Fb", b"%2e%2e", b"\xff"):
            label = "/objects/{name}"
            self.assertEqual(match(b"/objects/" + rest), (label, rest))

    def test_name_like_a_url(self) -> None:
        """A name that looks like a URL stays a name."""
        found = match(b"/objects/http://x/y")
        self.assertEqual(found, ("/objects/{name}", b"http://x/y"))


class DocumentationTests(SynchronousTestCase):
    """What is served is written down."""

    def test_every_route(self) -> None:
        """docs/http.md names every target."""
        root = Path(__file__).parents[2]
        text = (root / "docs" / "http.md").read_text()
        missing = [route for route in ROUTES if route not in text]
        self.assertEqual(missing, [])
