"""The command over https."""

from __future__ import annotations

from tests.cli.support import CommandTestCase
from tests.support.authority import Authority
from tests.support.child import serve
from tests.support.standalone import some_bytes


class TLSTests(CommandTestCase):
    """A standalone with a certificate."""

    def test_round_trip(self) -> None:
        """Whom --ca-file vouches for is trusted, and nobody else."""
        authority = Authority("command's CA")
        certificate, key = authority.issue("127.0.0.1")
        self.file("ca.pem", authority.pem)
        self.file("cert.pem", certificate)
        self.file("key.pem", key)
        options = ("--tls-certificate", str(self.folder / "cert.pem"))
        key_file = ("--tls-key", str(self.folder / "key.pem"))
        service = serve(self.folder / "data", *options, *key_file)
        self.addCleanup(service.close)
        self.endpoint = f"https://127.0.0.1:{service.ready()}"
        content = some_bytes(20_000_000)
        self.file("big", content)
        self.done("put", "--ca-file=ca.pem", "big")
        self.done("get", "--ca-file=ca.pem", "big", "copy", "--piece=1MiB")
        self.assertEqual((self.folder / "copy").read_bytes(), content)
        result = self.ostore("ls")
        self.assertEqual(result.status, 1)
        self.assertIn("certificate is not trusted", result.err)
        self.assertEqual(self.ostore("ls", "--ca-file=nix.pem").status, 2)
