"""The same site over TLS, where there is no half-close."""

from __future__ import annotations

import datetime
import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import CertificateOptions

from ostore.streaming.clock import Clock
from ostore.streaming.site import Handle, StreamingSite
from tests.streaming.test_early_answer import BLAST, refuse, refuse_late
from tests.streaming.test_idle import IDLE, answer
from tests.streaming.test_reply import GET, Faucet
from tests.streaming.test_request import Echo, put
from tests.streaming.wire import REAL, RawClient, SiteCase, fake_clock, reactor, until


def credentials() -> CertificateOptions:
    """A key and a certificate signed with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2100))
        .sign(key, hashes.SHA256())
    )
    # pyOpenSSL's own kinds are deprecated; Twisted's hints have not followed yet.
    given: dict[str, Any] = {"privateKey": key, "certificate": certificate}
    return CertificateOptions(**given)


class TLSCase(SiteCase):
    """A site behind TLS."""

    async def serve(
        self, handle: Handle, clock: Clock = REAL, **limits: Any
    ) -> StreamingSite:
        """Listen with TLS."""
        self.site = StreamingSite(handle, clock, os.urandom, **limits)
        self.port = reactor.listenSSL(
            0, self.site, credentials(), interface="127.0.0.1"
        )
        self.clients: list[RawClient] = []
        self.addCleanup(self._end)
        return self.site

    async def client(self, from_address: str = "") -> RawClient:
        """A new connection that trusts everybody."""
        made: Deferred[RawClient] = Deferred()

        class Connected(RawClient):
            def connectionMade(self) -> None:
                made.callback(self)

        factory = ClientFactory.forProtocol(Connected)
        factory.noisy = False
        port = self.port.getHost().port
        options = CertificateOptions()
        bind = (from_address, 0)
        reactor.connectSSL("127.0.0.1", port, factory, options, bindAddress=bind)
        client = await made
        self.clients.append(client)
        return client


class TLSTests(TLSCase):
    """Bodies, refusals, back-pressure, idleness."""

    async def test_body_and_keep_alive(self) -> None:
        """Bodies arrive whole on a kept connection."""
        await self.serve(Echo())
        client = await self.client()
        for _ in range(2):
            client.send(put(b"Content-Length: 300000"), b"x" * 300_000)
            self.assertEqual(len((await client.response()).body), 300_000)

    async def blast(self, handle: Handle, status: int) -> None:
        """Send 10 MB and read the refusal."""
        await self.serve(handle)
        client = await self.client()
        client.send(put(b"Content-Length: %d" % BLAST), b"x" * (BLAST // 5))
        self.assertEqual((await client.response()).status, status)
        await client.closed()

    async def test_early_refusal(self) -> None:
        """A refusal is readable while the client still sends, then it closes."""
        await self.blast(refuse, 403)

    async def test_late_refusal(self) -> None:
        """The same after a part of the body was read."""
        await self.blast(refuse_late, 413)

    async def test_slow_reader(self) -> None:
        """A client that does not read holds the writer, and gets all in the end."""
        faucet = Faucet(400)
        site = await self.serve(faucet)
        client = await self.client()
        client.send(GET)
        await until(lambda: client.inbox)
        client.transport.pauseProducing()
        await until(
            lambda: (
                site.connections and next(iter(site.connections))._waitingForTransport
            )
        )
        self.assertLess(faucet.written, 300)
        client.transport.resumeProducing()
        self.assertEqual(len((await client.response()).body), 400 * 65536)

    async def test_idle(self) -> None:
        """A kept connection without a next request is closed."""
        fake, clock = fake_clock()
        await self.serve(answer, clock, idle=IDLE)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).status, 200)
        for _ in range(IDLE * 2):
            fake.advance(1)
        await client.closed()
        await until(lambda: not self.site.connections)
