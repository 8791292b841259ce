"""What `ostore admin doctor` makes of a real broker and a real search server."""

from __future__ import annotations

import ssl

from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.admin.broker import broker as judged
from ostore.cli.admin.searching import search_server
from tests.live.servers import broker, search


class BrokerTests(SynchronousTestCase):
    """RabbitMQ."""

    def test_well(self) -> None:
        """It lets in whom it knows, with and without TLS."""
        real = broker()

        def trust() -> ssl.SSLContext:
            return ssl.create_default_context(cadata=real.authority.pem.decode())

        for url in (real.url(), real.tls_url()):
            found = judged(url, trust)
            self.assertEqual(found.state, "ok", found)
            self.assertRegex(found.detail, r"^RabbitMQ \d+\.\d+.* lets 'ostore' in$")
        found = judged(real.tls_url(), ssl.create_default_context)
        self.assertIn("certificate", found.detail)

    def test_refused(self) -> None:
        """A wrong password and a virtual host that is not there are told apart."""
        found = judged(broker().url(password="wrong"), ssl.create_default_context)
        self.assertEqual(
            (found.state, found.detail), ("problem", "refuses user 'ostore'")
        )
        found = judged(broker().url("nowhere"), ssl.create_default_context)
        self.assertEqual(found.state, "problem")
        self.assertIn("nowhere", found.mend)


class SearchTests(SynchronousTestCase):
    """The search server."""

    def test_well(self) -> None:
        """Its kind, version and health are told."""
        found = search_server(
            search().url, None, ssl.create_default_context, lambda: 0.0
        )
        self.assertEqual(found.state, "ok", found)
        self.assertRegex(
            found.detail, r"^(OpenSearch|Elasticsearch) \d.*, \w+, 1 node$"
        )
