"""Certificates of a service, on loopback connections."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ostore.service.failing import StartError
from ostore.service.kinds import Address
from ostore.service.settings import Settings
from ostore.service.tls import Certificates

reactor: Any = installed
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@attrs.frozen
class Issued:
    """A key and its certificate, both as PEM."""

    certificate: x509.Certificate
    private: Key

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key(self, passphrase: bytes = b"") -> bytes:
        """The key."""
        return self.private.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(passphrase) if passphrase else NoEncryption(),
        )


def issue(
    name: str, by: Issued | None = None, *, ca: bool = False, private: Key | None = None
) -> Issued:
    """A certificate for localhost, signed by `by` or by itself."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = by.certificate.subject if by else subject
    signer = by.private if by else private
    alternatives = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START.replace(year=2100))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(alternatives, critical=False)
        .sign(
            signer,
            None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256(),
        )
    )
    return Issued(certificate, private)


class Speaking(Protocol):
    """Says a word once it is connected; `heard` and `ended` fire once.

    Nothing is heard (b"") when the connection ends before.
    """

    def __init__(self, word: bytes) -> None:
        self._word = word
        self.heard: Deferred[bytes] = Deferred()
        self.ended: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        """Speak."""
        assert self.transport is not None
        self.transport.write(self._word)

    def dataReceived(self, data: bytes) -> None:
        """Listen."""
        if not self.heard.called:
            self.heard.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell why."""
        if not self.heard.called:
            self.heard.callback(b"")
        self.ended.callback(repr(reason.value))


class FilesCase(SynchronousTestCase):
    """Makes settings of files."""

    def path(self, content: bytes) -> str:
        """A file with that content."""
        path: str = self.mktemp()
        Path(path).write_bytes(content)
        return path

    def settings(
        self,
        certificate: bytes | None = None,
        key: bytes | None = None,
        ca: bytes | None = None,
    ) -> Settings:
        """Settings that name files with these contents."""
        return Settings(
            listen=Address("127.0.0.1", 0),
            heartbeat=5,
            durability="strict",
            cluster_secret_file="/secret",
            tls_certificate=None if certificate is None else self.path(certificate),
            tls_key=None if key is None else self.path(key),
            tls_ca=None if ca is None else self.path(ca),
        )

    def refusal(self, settings: Settings) -> str:
        """The line that refuses them."""
        line = str(self.assertRaises(StartError, Certificates, settings))
        self.assertTrue(line.isprintable(), line)
        return line


class RefusalTests(FilesCase):
    """Files that cannot be used: one line that names key and file."""

    def setUp(self) -> None:
        """A certificate with its key."""
        self.own = issue("own")

    def test_nothing_given(self) -> None:
        """Without a certificate nothing is served with TLS."""
        certificates = Certificates(self.settings())
        self.assertIsNone(certificates.server(mutual=True))
        self.assertIsNone(certificates.server(mutual=False))

    def test_a_key_that_does_not_fit(self) -> None:
        """The key of another certificate is refused, and both files are named."""
        settings = self.settings(self.own.pem, issue("other").key())
        line = self.refusal(settings)
        self.assertIn(f"tls-key {settings.tls_key} is not the key", line)
        self.assertIn(f"tls-certificate {settings.tls_certificate}", line)

    def test_a_file_that_cannot_be_read(self) -> None:
        """Missing files and folders are named with the reason."""
        good = self.settings(self.own.pem, self.own.key(), self.own.pem)
        for path, why in (
            ("/nowhere/x", "No such file or directory"),
            ("/", "Is a directory"),
        ):
            for key, settings in (
                ("tls-certificate", attrs.evolve(good, tls_certificate=path)),
                ("tls-key", attrs.evolve(good, tls_key=path)),
                ("tls-ca", attrs.evolve(good, tls_ca=path)),
            ):
                line = self.refusal(settings)
                self.assertIn(f"{key} {path} cannot be read ({why})", line)

    def test_a_file_of_another_kind(self) -> None:
        """What is no PEM, or the wrong PEM, is refused, with what is allowed."""
        good = self.settings(self.own.pem, self.own.key(), self.own.pem)
        broken = self.own.pem.replace(b"M", b"?")
        for content in (b"", b"\xff\0", b"# nothing\n", self.own.key(), broken):
            path = self.path(content)
            line = self.refusal(attrs.evolve(good, tls_certificate=path))
            self.assertIn(f"tls-certificate {path} is not a PEM certificate", line)
            line = self.refusal(attrs.evolve(good, tls_ca=path))
            self.assertIn(f"tls-ca {path} is not one or more PEM", line)
        for content in (b"", b"\xff\0", self.own.pem, self.own.key(b"passphrase")):
            path = self.path(content)
            line = self.refusal(attrs.evolve(good, tls_key=path))
            self.assertIn(f"tls-key {path} is not a PEM key without", line)

    def test_kinds_of_keys(self) -> None:
        """ECDSA, RSA and Ed25519 keys are all read."""
        for private in (
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
        ):
            own = issue("own", private=private)
            certificates = Certificates(self.settings(own.pem, own.key()))
            server = certificates.server(mutual=False)
            assert server is not None
            self.assertIsInstance(server.getContext(), SSL.Context)


class ConnectionTests(TestCase, FilesCase):
    """A server and a caller with certificates of authorities."""

    def setUp(self) -> None:
        """Two authorities, and a certificate of the first."""
        self.ours = issue("our authority", ca=True)
        self.theirs = issue("their authority", ca=True)
        self.own = issue("a service", self.ours)

    def listen(self, settings: Settings, *, mutual: bool) -> Deferred[Speaking]:
        """Serve; gives the first connection once TLS has begun."""
        came: Deferred[Speaking] = Deferred()

        class Serving(Factory):
            def buildProtocol(self, addr: object) -> Speaking:
                speaking = Speaking(b"welcome")
                came.callback(speaking)
                return speaking

        options = Certificates(settings).server(mutual=mutual)
        port = reactor.listenSSL(0, Serving(), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        return came

    async def call(
        self, certificates: Certificates, host: str = "localhost"
    ) -> Speaking:
        """The caller's end."""
        way = wrapClientTLS(
            certificates.client(host),
            HostnameEndpoint(reactor, "127.0.0.1", self.port),
        )
        speaking = await way.connect(Factory.forProtocol(lambda: Speaking(b"hello")))
        assert isinstance(speaking, Speaking)
        return speaking

    async def welcomed(self, settings: Settings, came: Deferred[Speaking]) -> None:
        """The two ends hear each other."""
        caller = await self.call(Certificates(settings))
        self.assertEqual(await caller.heard, b"welcome")
        server = await came
        self.assertEqual(await server.heard, b"hello")
        await self.hang_up(caller, server)

    async def turned_away(
        self, settings: Settings, came: Deferred[Speaking], host: str = "localhost"
    ) -> tuple[str, str]:
        """Neither end hears a word; gives how each ended, the caller's first."""
        caller = await self.call(Certificates(settings), host)
        self.assertEqual(await caller.heard, b"")
        server = await came
        self.assertEqual(await server.heard, b"")
        return await caller.ended, await server.ended

    async def hang_up(self, *ends: Speaking) -> None:
        """Close, and wait until both know."""
        assert ends[0].transport is not None
        ends[0].transport.loseConnection()
        for end in ends:
            await end.ended

    def serving(self, ca: Issued | None = None) -> Settings:
        """Settings of the server."""
        return self.settings(self.own.pem, self.own.key(), ca.pem if ca else None)

    async def test_the_right_authority(self) -> None:
        """A caller that trusts the server's authority speaks with it."""
        came = self.listen(self.serving(), mutual=False)
        await self.welcomed(self.settings(ca=self.ours.pem), came)

    async def test_one_of_several_authorities(self) -> None:
        """A file may hold several authorities; each is trusted."""
        came = self.listen(self.serving(), mutual=False)
        both = self.theirs.pem + self.ours.pem
        await self.welcomed(self.settings(ca=both), came)

    async def test_a_chain(self) -> None:
        """What stands behind the certificate is sent: its issuer need not be known."""
        between = issue("between", self.ours, ca=True)
        leaf = issue("leaf", between)
        serving = self.settings(leaf.pem + between.pem, leaf.key())
        came = self.listen(serving, mutual=False)
        await self.welcomed(self.settings(ca=self.ours.pem), came)

    async def test_the_wrong_authority(self) -> None:
        """A caller does not speak to a server that its authority does not vouch for."""
        came = self.listen(self.serving(), mutual=False)
        ends = await self.turned_away(self.settings(ca=self.theirs.pem), came)
        self.assertIn("certificate verify failed", ends[0])

    async def test_without_an_authority(self) -> None:
        """The system's authorities do not vouch for a certificate of one's own."""
        came = self.listen(self.serving(), mutual=False)
        ends = await self.turned_away(self.settings(), came)
        self.assertIn("certificate verify failed", ends[0])

    async def test_the_wrong_host(self) -> None:
        """A good certificate of another host is no good."""
        came = self.listen(self.serving(), mutual=False)
        settings = self.settings(ca=self.ours.pem)
        ends = await self.turned_away(settings, came, "elsewhere.example.org")
        self.assertIn("VerificationError", ends[0])

    async def test_mutual(self) -> None:
        """With an authority, a caller of the same is let in."""
        came = self.listen(self.serving(self.ours), mutual=True)
        caller = issue("a caller", self.ours)
        settings = self.settings(caller.pem, caller.key(), self.ours.pem)
        await self.welcomed(settings, came)

    async def test_mutual_without_a_certificate(self) -> None:
        """A caller that shows none is turned away."""
        came = self.listen(self.serving(self.ours), mutual=True)
        ends = await self.turned_away(self.settings(ca=self.ours.pem), came)
        self.assertIn("peer did not return a certificate", ends[1])

    async def test_mutual_with_a_strange_certificate(self) -> None:
        """A certificate of another authority is none."""
        came = self.listen(self.serving(self.ours), mutual=True)
        stranger = issue("a stranger", self.theirs)
        settings = self.settings(stranger.pem, stranger.key(), self.ours.pem)
        ends = await self.turned_away(settings, came)
        self.assertIn("certificate verify failed", ends[1])

    async def test_not_mutual(self) -> None:
        """Users of the api are not asked for a certificate, authority or not."""
        came = self.listen(self.serving(self.ours), mutual=False)
        await self.welcomed(self.settings(ca=self.ours.pem), came)

    async def test_authorities_are_read_once(self) -> None:
        """A file that goes away later takes nothing away."""
        came = self.listen(self.serving(), mutual=False)
        settings = self.settings(ca=self.ours.pem)
        assert settings.tls_ca is not None
        certificates = Certificates(settings)
        Path(settings.tls_ca).unlink()
        caller = await self.call(certificates)
        self.assertEqual(await caller.heard, b"welcome")
        await self.hang_up(caller, await came)
