"""URLs of brokers, trust in their certificates, and the sentences about both."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.amqp.brokers import Broker, endpoint, parse, trust
from ostore.backends.bus.amqp.reasons import BrokerLost, BrokerRefused, lost, printable
from ostore.model.errors import Malformed
from ostore.streaming.clock import TimedOut
from tests.support.authority import Authority
from tests.support.fakenet import FakeNet


class URLTests(SynchronousTestCase):
    """What a URL says."""

    def test_parts(self) -> None:
        """Everything has its place, its coding and its default."""
        for url, wanted in {
            "amqp://h": Broker(False, "h", 5672, "/", "guest", "guest"),
            "amqps://h/": Broker(True, "h", 5671, "/", "guest", "guest"),
            "amqp://u:p@h:1/v": Broker(False, "h", 1, "v", "u", "p"),
            "AMQP://u:@H:1/%2F": Broker(False, "h", 1, "/", "u", ""),
            "amqp://%C3%A9:p%40%3A%2F@[::1]/a%2Fb": Broker(
                False, "::1", 5672, "a/b", "é", "p@:/"
            ),
        }.items():
            self.assertEqual(parse(url), wanted)

    def test_refused(self) -> None:
        """A wrong one is refused with what is allowed, and without its password."""
        for url in (
            "",
            "h:5672",
            "http://u:s3cret@h",
            "amqp://",
            "amqp://u:s3cret@",
            "amqp://u:s3cret@h:0",
            "amqp://u:s3cret@h:65536",
            "amqp://u:s3cret@h:port",
            "amqp://u:s3cret@[::1",
            "amqp://u:s3cret@" + "h" * 64,
            "amqp://u:s3cret@h/a/b",
            "amqp://u:s3cret@h/?heartbeat=1",
            "amqp://u:s3cret@h/#x",
            "amqp://u:s3cret%FF@h",
            "amqp://u%00:s3cret@h",
            "amqp://u:s3cret@h/" + "v" * 256,
        ):
            with self.assertRaisesRegex(Malformed, "amqp://user|percent-encoded") as c:
                parse(url)
            self.assertNotIn("s3cret", str(c.exception))

    def test_named_without_secrets(self) -> None:
        """In text a broker has neither user nor password."""
        broker = parse("amqps://user:s3cret@[::1]/a%2Fb")
        self.assertEqual(str(broker), "amqps://[::1]:5671/a%2Fb")
        self.assertEqual(str(parse("amqp://h")), "amqp://h:5672/")
        self.assertNotIn("s3cret", repr(broker))


class EndpointTests(SynchronousTestCase):
    """The way to a broker."""

    def test_plain_and_tls(self) -> None:
        """Amqp goes straight, amqps through TLS with the system's trust or ours."""
        net = FakeNet()
        plain = endpoint(net, parse("amqp://h"), None)
        self.assertIsInstance(plain, HostnameEndpoint)
        ours = trust(Authority("one").pem + Authority("two").pem)
        self.assertEqual(len(ours._caCerts), 2)
        for root in (trust(None), ours):
            made = endpoint(net, parse("amqps://h"), root)
            self.assertNotIsInstance(made, HostnameEndpoint)
        self.assertIsNone(trust(None))

    def test_no_certificate(self) -> None:
        """A CA file without a certificate is refused."""
        for data in (b"", b"text", b"-----BEGIN CERTIFICATE-----\nAA\n"):
            with self.assertRaises(Malformed):
                trust(data)


class ReasonTests(SynchronousTestCase):
    """Sentences for the one who runs it."""

    def test_kinds(self) -> None:
        """What only a person can cure is told apart from what passes."""
        untrusted = SSL.Error([("SSL routines", "", "certificate verify failed")])
        no_tls = SSL.Error([("SSL routines", "", "wrong version number")])
        cases: list[tuple[Any, type[BrokerLost], str]] = [
            (VerificationError(errors=[]), BrokerRefused, "another host"),
            (untrusted, BrokerRefused, "trusted CA"),
            (no_tls, BrokerLost, "no TLS with X: wrong version number"),
            (SSL.Error(), BrokerLost, "no TLS"),
            (TimedOut("no answer"), BrokerLost, "in time"),
            (DNSLookupError("no such host"), BrokerLost, "cannot reach X"),
            (ConnectionLost("gone"), BrokerLost, "cannot reach X"),
            (ZeroDivisionError(), BrokerLost, "ZeroDivisionError"),
            (None, BrokerLost, "cannot reach X"),
        ]
        for error, kind, words in cases:
            reason = lost("X", error)
            self.assertIs(type(reason), kind)
            self.assertIn(words, str(reason))
        self.assertIn("was lost: ", str(lost("X", ConnectionLost(), reached=True)))
        known = BrokerLost("known")
        self.assertIs(lost("X", known), known)

    def test_printable(self) -> None:
        """What a broker says is short and cannot write into a log on its own."""
        self.assertEqual(printable("a\nb\x1b\udcff"), "a?b??")
        self.assertEqual(printable("é€"), "é€")
        self.assertEqual(len(printable("x" * 999)), 200)
