"""The search client: which host, which try, and what a failure may have done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock as Timers
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from ostore.backends.metadata import elastic_exchange
from ostore.backends.metadata.elastic_client import (
    Client,
    Limits,
    MaybeApplied,
    Rejected,
    Reply,
    SearchFailed,
)
from ostore.backends.metadata.elastic_exchange import Answer, Exchange, Failed
from ostore.backends.metadata.elastic_hosts import Host, parse_hosts
from ostore.model.errors import Malformed
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.authority import Authority

T = TypeVar("T")
reactor = cast("Any", installed)

LOST = Failed("the connection was lost", sent=True)
REFUSED = Failed("connection refused", sent=False, blame=True)
FINE = Answer(200, {"ok": True})


def status(code: int, kind: str = "some_exception") -> Answer:
    """An answer that the server gives with an error."""
    return Answer(code, {"error": {"type": kind}, "status": code})


class Script(Exchange):
    """Plays what a test wrote for each host; None for no answer at all."""

    def __init__(self) -> None:
        self.plays: dict[str, list[Answer | Failed | None]] = {}
        self.asked: list[str] = []
        self.under_way = 0

    async def run(
        self, host: Host, method: str, target: str, kind: str, content: bytes | None
    ) -> Answer:
        """The next line for that host; the last one stays."""
        self.asked.append(host.name)
        lines = self.plays[host.name]
        play = lines.pop(0) if len(lines) > 1 else lines[0]
        if play is None:
            self.under_way += 1
            try:
                await cast("Deferred[None]", Deferred())
            finally:
                self.under_way -= 1
        if isinstance(play, Failed):
            raise play
        assert play is not None
        return play


class ClientTests(SynchronousTestCase):
    """Choice of hosts, tries and time, on a clock of the test's own."""

    def setUp(self) -> None:
        """A clock that stands still, and a script."""
        self.timers = Timers()
        self.script = Script()

    def client(self, *names: str, limits: Limits | None = None) -> Client:
        """A client of hosts `a`, `b` … that play nothing yet."""
        clock = Clock(self.timers, self.timers.seconds, self.timers.seconds)
        hosts = parse_hosts([f"http://{name}:1" for name in names])
        return Client(hosts, self.script, clock, lambda: 1.0, limits)

    def play(self, **plays: Sequence[Answer | Failed | None]) -> None:
        """What the hosts will do."""
        self.script.plays = {f"{name}:1": list(those) for name, those in plays.items()}

    def call(self, client: Client, *, idempotent: bool = True) -> Deferred[Reply]:
        """A call under way."""
        return start(client.call("POST", "/x/_mget", body={}, idempotent=idempotent))

    def end(self, call: Deferred[T], seconds: float = 100.0) -> T:
        """What it comes to once that time is over."""
        for _ in range(int(seconds * 10)):
            if call.called:
                break
            self.timers.advance(0.1)
        return self.successResultOf(call)

    def failed(
        self, call: Deferred[Reply], kind: type[SearchFailed], seconds: float = 100.0
    ) -> SearchFailed:
        """The error it ends with."""
        _ = call.addErrback(lambda failure: failure.value)
        error = cast("object", self.end(call, seconds))
        self.assertIs(type(error), kind)
        assert isinstance(error, SearchFailed)
        return error

    def test_hosts_take_turns(self) -> None:
        """Calls go round; all of them answer."""
        client = self.client("a", "b", "c")
        self.play(a=[FINE], b=[FINE], c=[FINE])
        for _ in range(6):
            self.assertEqual(self.end(self.call(client)).body, {"ok": True})
        self.assertEqual({self.script.asked.count(n) for n in ("a:1", "b:1")}, {2})

    def test_a_dead_host_is_passed_over(self) -> None:
        """The next one is asked at once, and the dead one rests 1, 2, 4 … 30 s."""
        client = self.client("a", "b")
        self.play(a=[REFUSED], b=[FINE])
        for rest in (1, 2, 4, 8, 16, 30, 30):
            self.script.asked.clear()
            for _ in range(2):
                self.successResultOf(self.call(client, idempotent=False))
            self.assertEqual(self.script.asked.count("a:1"), 1)
            self.timers.advance(rest - 0.01)
            self.script.asked.clear()
            for _ in range(2):
                self.successResultOf(self.call(client))
            self.assertEqual(self.script.asked, ["b:1"] * 2)
            self.timers.advance(0.01)

    def test_one_that_is_well_again_counts_from_one(self) -> None:
        """An answer ends the rests."""
        client = self.client("a")
        self.play(a=[REFUSED, REFUSED, FINE, REFUSED, FINE])
        self.assertEqual(self.end(self.call(client)).status, 200)
        self.assertEqual(self.end(self.call(client)).status, 200)
        self.assertEqual(len(self.script.asked), 5)

    def test_nobody_there(self) -> None:
        """When all refuse, a call is surely not carried out, after five tries."""
        client = self.client("a", "b")
        self.play(a=[REFUSED], b=[REFUSED])
        error = self.failed(self.call(client, idempotent=False), SearchFailed)
        self.assertEqual(len(self.script.asked), 5)
        self.assertIn("connection refused", error.seen)
        self.assertNotIn("refused", str(error))

    def test_lost_answers(self) -> None:
        """An idempotent call is tried again at once, any other may have been applied."""
        client = self.client("a")
        self.play(a=[LOST, FINE])
        self.assertEqual(self.successResultOf(self.call(client)).status, 200)
        self.play(a=[LOST, FINE])
        self.failed(self.call(client, idempotent=False), MaybeApplied)
        self.play(a=[LOST])
        self.failed(self.call(client), SearchFailed)

    def test_silence(self) -> None:
        """A host that hangs is left after 10 s; all tries take 20 s at most."""
        client = self.client("a", "b")
        self.play(a=[None], b=[FINE])
        calls = [self.call(client) for _ in range(2)]
        self.timers.advance(9.9)
        self.assertEqual(sum(call.called for call in calls), 1)
        self.timers.advance(0.1)
        for call in calls:
            self.assertEqual(self.successResultOf(call).status, 200)
        self.assertEqual(self.script.under_way, 0)

        alone = self.client("a")
        self.failed(self.call(alone, idempotent=False), MaybeApplied, 10.1)
        began = self.timers.seconds()
        self.failed(self.call(alone), SearchFailed)
        self.assertLessEqual(self.timers.seconds() - began, 20.2)
        self.assertEqual(self.script.under_way, 0)

    def test_overload(self) -> None:
        """429 is waited out, since nothing was applied; 503 only for idempotent calls."""
        client = self.client("a")
        self.play(a=[status(429), status(429), FINE])
        self.assertEqual(self.end(self.call(client, idempotent=False)).status, 200)
        for code in (502, 503, 504):
            self.play(a=[status(code), FINE])
            self.assertEqual(self.end(self.call(client)).status, 200)
            self.play(a=[status(code), FINE])
            self.failed(self.call(client, idempotent=False), MaybeApplied)
        self.play(a=[status(429)])
        began = self.timers.seconds()
        error = self.failed(self.call(client, idempotent=False), SearchFailed)
        self.assertIn("429 some_exception", error.seen)
        self.assertGreater(self.timers.seconds(), began)

    def test_a_pause_that_takes_too_long(self) -> None:
        """When the process stood still until the time was over, nothing more is sent."""
        client = self.client("a")
        self.play(a=[status(429), FINE])
        call = self.call(client, idempotent=False)
        self.timers.advance(25.0)
        self.failed(call, SearchFailed, 0)
        self.assertEqual(self.script.asked, ["a:1"])

    def test_garbage(self) -> None:
        """What is no JSON object is no answer; another host is asked."""
        client = self.client("a", "b")
        garbage = Answer(200, None)
        self.play(a=[garbage], b=[garbage, FINE])
        self.assertEqual(self.end(self.call(client)).body, {"ok": True})
        self.play(a=[garbage], b=[garbage])
        self.failed(self.call(client, idempotent=False), MaybeApplied)

    def test_refusals_are_not_tried_again(self) -> None:
        """401, 403 and bad certificates are Rejected, with host and what was seen."""
        client = self.client("a")
        certificate = Failed("its certificate is bad", sent=False, final=True)
        for play, seen in (
            (status(401), "401"),
            (status(403, "security_exception"), "403"),
            (certificate, "certificate"),
        ):
            self.script.asked.clear()
            self.play(a=[play])
            error = self.failed(self.call(client), Rejected)
            self.assertIn(seen, error.seen)
            self.assertIn("a:1", error.seen)
            self.assertEqual(len(self.script.asked), 1)

    def test_a_block_is_no_refusal(self) -> None:
        """403 of an index that is read-only says nothing of the credentials."""
        client = self.client("a")
        self.play(a=[status(403, "cluster_block_exception")])
        self.failed(self.call(client), SearchFailed)

    def test_answers_are_the_callers(self) -> None:
        """Other statuses are given as they came."""
        client = self.client("a")
        for code in (200, 201, 400, 404, 408, 409, 500):
            self.play(a=[status(code)])
            self.assertEqual(self.end(self.call(client)).status, code)

    def test_bounds(self) -> None:
        """So many calls at once, so many that wait, and not for ever."""
        client = self.client("a", limits=Limits(calls=2, waiting=3))
        self.play(a=[None])
        calls = [self.call(client) for _ in range(5)]
        self.assertEqual(self.script.under_way, 2)
        self.failed(self.call(client), SearchFailed, 0)
        for call in calls:
            _ = call.addErrback(lambda failure: failure.type)
        self.timers.advance(10.0)
        self.assertTrue(all(call.called for call in calls[2:4]))
        for _ in range(100):
            self.timers.advance(1.0)
        self.assertTrue(all(call.called for call in calls))

    def test_who_is_cancelled_leaves_nothing(self) -> None:
        """A cancelled call ends its exchange and frees its place."""
        client = self.client("a", limits=Limits(calls=1))
        self.play(a=[None, FINE])
        call = self.call(client)
        call.cancel()
        self.failureResultOf(call)
        self.assertEqual(self.script.under_way, 0)
        self.assertEqual(self.end(self.call(client)).status, 200)


class AddressTests(SynchronousTestCase):
    """How servers are named."""

    def test_forms(self) -> None:
        """host, host:port and URLs, with user and path or without."""
        for text, name, url in (
            ("es", "es:9200", "http://es:9200"),
            ("es:1", "es:1", "http://es:1"),
            ("[::1]:1", "[::1]:1", "http://[::1]:1"),
            ("https://es", "es:9200", "https://es:9200"),
            ("https://u:p@es:443/search/", "es:443", "https://es:443/search"),
        ):
            (host,) = parse_hosts([text])
            self.assertEqual((host.name, host.url), (name, url))

    def test_credentials(self) -> None:
        """User and password are percent-decoded; a key is for who has none."""
        one, two = parse_hosts(["http://us%40er:p%3Aw%25@es", "es"], "a2V5")
        self.assertEqual(one.authorization, "Basic dXNAZXI6cDp3JQ==")
        self.assertEqual(two.authorization, "ApiKey a2V5")
        for host in (one, two):
            self.assertNotIn(str(host.authorization), repr(host))
            self.assertNotIn("p%3A", repr(host))

    def test_what_is_malformed(self) -> None:
        """Nothing else is taken, and no password is repeated."""
        for text in (
            "",
            "ftp://es",
            "es:x",
            "es:99999",
            "http://user:hidden@",
            "http://user:hidden@es:p",
            "es?x=1",
            "e s",
            "é",
        ):
            error = self.assertRaises(Malformed, parse_hosts, [text])
            self.assertNotIn("hidden", str(error))
        self.assertRaises(Malformed, Client, [], Script(), None, None)


@attrs.frozen
class Request:
    """What the fake was sent."""

    line: str
    headers: dict[str, str]
    body: bytes


class Fake(Protocol):
    """Speaks just enough HTTP; `answer` gives bytes, None for silence."""

    transport: Any

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._buffer = b""

    def connectionMade(self) -> None:
        """Be counted."""
        self._server.open.append(self)

    def connectionLost(self, reason: object = None) -> None:
        """Be gone."""
        self._server.open.remove(self)
        self._server.look()

    def dataReceived(self, data: bytes) -> None:
        """Answer each whole request; close upon what is none."""
        self._buffer += data
        if not b"POST".startswith(self._buffer[:4]) and self._buffer[:4] != b"GET ":
            self.transport.loseConnection()
            return
        head, hit, rest = self._buffer.partition(b"\r\n\r\n")
        if not hit:
            return
        line, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (one.partition(": ") for one in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        request = Request(line, headers, rest[:length])
        self._server.requests.append(request)
        answer = self._server.answer(request)
        if answer is not None:
            self.transport.write(answer)
            if not answer.startswith(b"HTTP") or b"X-Cut" in answer:
                self.transport.loseConnection()


class FakeServer:
    """Listens on loopback; `close` waits until every connection is gone."""

    def __init__(self, credentials: CertificateOptions | None = None) -> None:
        self.requests: list[Request] = []
        self.open: list[Fake] = []
        self.answer: Callable[[Request], bytes | None] = lambda _: reply(b"{}")
        self._gone: list[tuple[int, Deferred[None]]] = []
        factory = Factory.forProtocol(lambda: Fake(self))
        factory.noisy = False
        where = {"interface": "127.0.0.1"}
        self._port: IListeningPort = (
            reactor.listenTCP(0, factory, **where)
            if credentials is None
            else reactor.listenSSL(0, factory, credentials, **where)
        )
        self.port: int = self._port.getHost().port

    async def left(self, number: int = 0) -> None:
        """Wait until at most that many connections are open."""
        gone: Deferred[None] = Deferred()
        self._gone.append((number, gone))
        self.look()
        await gone

    def look(self) -> None:
        """Tell those who wait."""
        for each in list(self._gone):
            if len(self.open) <= each[0]:
                self._gone.remove(each)
                each[1].callback(None)

    async def close(self) -> None:
        """End everything."""
        await cast("Awaitable[None]", self._port.stopListening())
        for each in list(self.open):
            each.transport.abortConnection()
        await self.left()


def reply(body: bytes, code: int = 200, head: str = "") -> bytes:
    """A whole answer."""
    lines = f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    return lines.encode() + body


class ExchangeTests(TestCase):
    """Real connections on loopback."""

    timeout = 30

    def server(self, credentials: CertificateOptions | None = None) -> FakeServer:
        """One that answers {} until it is told otherwise."""
        server = FakeServer(credentials)
        self.addCleanup(start_close(server))
        return server

    def exchange(self, authorities: bytes | None = None) -> Exchange:
        """Connections that end with the test."""
        exchange = Exchange(reactor, authorities)
        self.addCleanup(start_close(exchange))
        return exchange

    async def run_one(
        self, exchange: Exchange, address: str, content: bytes | None = b"{}"
    ) -> Answer | Failed:
        """One exchange, failures as values."""
        (host,) = parse_hosts([address])
        try:
            return await exchange.run(host, "POST", "/x?a=1", "text/x", content)
        except Failed as failed:
            return failed

    async def test_what_is_sent(self) -> None:
        """Method, target, body, kind, credentials; and the connection is kept."""
        server, exchange = self.server(), self.exchange()
        address = f"http://u:p%3Aw@127.0.0.1:{server.port}/base"
        for _ in range(3):
            answer = await self.run_one(exchange, address)
            self.assertEqual(answer, Answer(200, {}))
        one = server.requests[0]
        self.assertEqual(one.line, "POST /base/x?a=1 HTTP/1.1")
        self.assertEqual(one.headers["authorization"], "Basic dTpwOnc=")
        self.assertEqual(one.headers["content-type"], "text/x")
        self.assertEqual(one.body, b"{}")
        self.assertEqual(len(server.open), 1)
        await self.run_one(exchange, address, None)
        self.assertNotIn("content-type", server.requests[-1].headers)

    async def test_bodies(self) -> None:
        """JSON objects come parsed; everything else is None, never an exception."""
        server, exchange = self.server(), self.exchange()
        address = f"127.0.0.1:{server.port}"
        for body, parsed in (
            (b'{"a": "\xc3\xa9"}', {"a": "é"}),
            (b"", None),
            (b"<html>", None),
            (b"[]", None),
            (b"\xff\xfe", None),
            (b'{"a": ', None),
            (b"[" * 100_000, None),
        ):
            server.answer = always(reply(body, 418))
            self.assertEqual(await self.run_one(exchange, address), Answer(418, parsed))

    async def test_cut_answers(self) -> None:
        """What breaks off may have been carried out, wherever it breaks."""
        server, exchange = self.server(), self.exchange()
        address = f"127.0.0.1:{server.port}"
        for said in (
            b"",
            b"no HTTP at all\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Cut: 1\r\n",
            b"HTTP/1.1 200 OK\r\nX-Cut: 1\r\nContent-Length: 9\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nX-Cut: 1\r\n\r\n{}",
        ):
            server.answer = always(said)
            failed = await self.run_one(exchange, address)
            assert isinstance(failed, Failed), said
            self.assertTrue(failed.sent and not failed.final, said)

    async def test_an_endless_answer(self) -> None:
        """More than the limit is not taken in, and the connection is cut."""
        server, exchange = self.server(), self.exchange()
        self.patch(elastic_exchange, "LONGEST", 100_000)
        server.answer = lambda _: reply(b"x" * 200_000)
        failed = await self.run_one(exchange, f"127.0.0.1:{server.port}")
        assert isinstance(failed, Failed)
        self.assertTrue(failed.sent and failed.blame)
        await server.left()

    async def test_giving_up(self) -> None:
        """A cancelled exchange closes its connection, in the head and in the body."""
        server, exchange = self.server(), self.exchange()
        for said in (None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"):
            asked: Deferred[None] = Deferred()

            def answer(
                _: Request,
                asked: Deferred[None] = asked,
                said: bytes | None = said,
            ) -> bytes | None:
                reactor.callLater(0, asked.callback, None)
                return said

            server.answer = answer
            [host] = parse_hosts([f"127.0.0.1:{server.port}"])
            run = start(exchange.run(host, "GET", "/", "application/json", None))
            await asked
            run.cancel()
            with self.assertRaises(CancelledError):
                await run
            await server.left()

    async def test_giving_up_at_once(self) -> None:
        """So is one that is not even connected."""
        server, exchange = self.server(), self.exchange()
        [host] = parse_hosts([f"127.0.0.1:{server.port}"])
        run = start(exchange.run(host, "GET", "/", "application/json", None))
        run.cancel()
        with self.assertRaises(CancelledError):
            await run

    async def test_nobody_there(self) -> None:
        """A port that nobody listens on was sent nothing."""
        server, exchange = FakeServer(), self.exchange()
        await server.close()
        failed = await self.run_one(exchange, f"127.0.0.1:{server.port}")
        assert isinstance(failed, Failed)
        self.assertEqual(
            (failed.sent, failed.blame, failed.final), (False, True, False)
        )

    async def test_tls(self) -> None:
        """The right CA is believed; another, or another name, is a final refusal."""
        ours = Authority("ours")
        server = self.server(credentials(ours, "127.0.0.1"))
        elsewhere = self.server(credentials(ours, "example.org"))
        right, wrong = self.exchange(ours.pem), self.exchange(Authority("no").pem)
        address = f"https://127.0.0.1:{server.port}"
        self.assertEqual(await self.run_one(right, address), Answer(200, {}))
        for exchange, where in (
            (wrong, address),
            (self.exchange(), address),
            (right, f"https://127.0.0.1:{elsewhere.port}"),
        ):
            failed = await self.run_one(exchange, where)
            assert isinstance(failed, Failed)
            self.assertTrue(failed.final and not failed.sent, failed.seen)
            self.assertIn("certificate", failed.seen)
        self.assertEqual(len(server.requests), 1)

    async def test_https_to_a_plain_port(self) -> None:
        """It says TLS, was not carried out, and may be mended: not final."""
        server, exchange = self.server(), self.exchange()
        failed = await self.run_one(exchange, f"https://127.0.0.1:{server.port}")
        assert isinstance(failed, Failed)
        self.assertFalse(failed.final)
        self.assertEqual(server.requests, [])

    def test_a_ca_file_without_certificates(self) -> None:
        """It is refused, in one line."""
        for text in (b"", b"nonsense", b"-----END CERTIFICATE-----"):
            self.assertRaises(Malformed, Exchange, reactor, text)

    async def test_secrets_stay_secret(self) -> None:
        """No log line, error or repr bears a password or a key."""
        server, said = self.server(), list[str]()

        @implementer(ILogObserver)
        def observe(event: Any) -> None:
            said.append(str(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        hosts = parse_hosts([f"http://u:hidden@127.0.0.1:{server.port}"])
        timers = Clock(reactor, reactor.seconds, reactor.seconds)
        limits = Limits(tries=2, pause=0.001)
        client = Client(hosts, self.exchange(), timers, lambda: 0.0, limits)
        for code, kind in ((401, Rejected), (503, SearchFailed), (200, SearchFailed)):
            body = json.dumps({"error": {"type": "x"}}).encode()
            server.answer = always(reply(b"no" if code == 200 else body, code))
            try:
                await client.call("GET", "/", idempotent=True)
            except SearchFailed as error:
                self.assertIsInstance(error, kind)
                said += [str(error), repr(error), error.seen]
            else:
                self.fail("it was taken for an answer")
        said += [repr(hosts), str(client), repr(client)]
        self.assertNotIn("hidden", "".join(said))
        self.assertNotIn("dTpoaWRkZW4=", "".join(said))


def credentials(authority: Authority, host: str) -> CertificateOptions:
    """A server's certificate and key."""
    certificate, key = authority.issue(host)
    # pyOpenSSL's own kinds are deprecated; Twisted's hints have not followed yet.
    given: dict[str, Any] = {
        "privateKey": load_pem_private_key(key, None),
        "certificate": x509.load_pem_x509_certificate(certificate),
    }
    return CertificateOptions(**given)


def always(answer: bytes | None) -> Callable[[Request], bytes | None]:
    """The same for every request."""
    return lambda _: answer


def start_close(what: Exchange | FakeServer) -> Callable[[], Deferred[None]]:
    """Its end, as a clean-up waits for it."""
    return lambda: start(what.close())
