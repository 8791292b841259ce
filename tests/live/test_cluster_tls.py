"""A cluster whose services speak TLS to each other, to the broker and to users."""

from __future__ import annotations

import http.client
import shutil
import ssl
import tempfile
from contextlib import closing
from pathlib import Path

from tests.live import servers
from tests.live.cases import FAST, LiveCase, make_cluster, shared
from tests.support.authority import Authority
from tests.support.livecluster import LiveCluster

LARGE = (5 << 20) + 3


class TLSTests(LiveCase):
    """Mutual TLS between services; users need no certificate."""

    def setUp(self) -> None:
        """One CA for the services, which vouches for the broker as well."""
        self.folder = Path(tempfile.mkdtemp(prefix="ostore-tls-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        ours = Authority("the cluster's CA")
        certificate, key = ours.issue("localhost", "127.0.0.1")
        files = {
            "ca": ours.pem + servers.broker().authority.pem,
            "certificate": certificate,
            "key": key,
        }
        self.words = []
        for name, content in files.items():
            path = self.folder / f"{name}.pem"
            path.write_bytes(content)
            self.words += [f"--tls-{name}", str(path)]
        super().setUp()

    def make(self) -> LiveCluster:
        """A cluster of this test's own."""
        shared.close()
        made = make_cluster(
            FAST,
            rabbitmq=servers.broker().tls_url("127.0.0.1"),
            common=self.words,
        )
        self.addCleanup(made.close)
        return made

    def settle(self) -> None:
        """It ends with the test."""
        self.assertEqual(set(self.cluster.stop()), {-15})

    def test_story(self) -> None:
        """Stored, read by the other api, refused without a certificate at a node."""
        self.cluster.start()
        for service in self.cluster.services:
            self.assertIn("ready on https://127.0.0.1", service.logs())
        content = self.new(LARGE)
        trust = ssl.create_default_context(cafile=self.folder / "ca.pem")
        first, second = (
            http.client.HTTPSConnection(
                "127.0.0.1", api.port, timeout=60, context=trust
            )
            for api in self.cluster.apis
        )
        with closing(first), closing(second):
            first.request("PUT", "/objects/x", content)
            answer = first.getresponse()
            self.assertEqual(answer.status, 200, answer.read())
            second.request("GET", "/objects/x")
            self.assertTrue(second.getresponse().read() == content)
        self.assertTrue(self.whole(content))
        node = http.client.HTTPSConnection(
            "127.0.0.1", self.cluster.data[0].port, timeout=60, context=trust
        )
        with closing(node), self.assertRaises(OSError):
            node.request("GET", "/health/live")
            node.getresponse()
