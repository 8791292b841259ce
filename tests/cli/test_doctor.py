"""What doctor finds around a service: settings, files, brokers, search servers."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from ostore.cli.admin.broker import broker
from ostore.cli.admin.finding import Finding
from ostore.cli.admin.searching import search_server
from tests.cli.lying import Asked, LyingTestCase, Said
from tests.cli.support import CommandTestCase, Result

SECRET = "s" * 40 + "\n"


def method(kind: tuple[int, int], rest: bytes = b"") -> bytes:
    """A frame of AMQP."""
    payload = struct.pack(">HH", *kind) + rest
    return struct.pack(">BHL", 1, 0, len(payload)) + payload + b"\xce"


def refusal(code: int, text: bytes) -> bytes:
    """Connection.Close."""
    rest = struct.pack(">HB", code, len(text)) + text + bytes(4)
    return method((10, 50), rest)


START = method((10, 10), b"\0\x09" + b"\x07versionS\0\0\0\x054.1.2" + bytes(20))
TUNE, OPEN_OK = method((10, 30), bytes(8)), method((10, 41), b"\0")


class BrokerTests(CommandTestCase):
    """The opening of AMQP."""

    def judged(
        self, *answers: bytes, user: str = "zoe:pass%21"
    ) -> tuple[Finding, bytes]:
        """What is found of a broker that says that, and what it got."""
        listening = socket.create_server(("127.0.0.1", 0))
        got = bytearray()

        def serve() -> None:
            stream, _ = listening.accept()
            with stream:
                stream.settimeout(30)
                for answer in answers:
                    got.extend(stream.recv(65536))
                    if not answer:
                        return
                    stream.sendall(answer)
                got.extend(stream.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        try:
            url = f"amqp://{user}@127.0.0.1:{port}/v%2Fh"
            found = broker(url, ssl.create_default_context)
        finally:
            thread.join()
            listening.close()
        return found, bytes(got)

    def test_well(self) -> None:
        """Logged in and out: its version, and no password."""
        found, got = self.judged(START, TUNE, OPEN_OK)
        self.assertEqual((found.state, found.mend), ("ok", ""))
        self.assertIn("RabbitMQ 4.1.2", found.detail)
        self.assertIn(b"\0zoe\0pass!", got)
        self.assertIn(b"\x03v/h", got)
        self.assertNotIn("pass", f"{found}")

    def test_refused(self) -> None:
        """Wrong credentials, an unknown virtual host, and no broker at all."""
        for answers, said in (
            ((START, refusal(403, b"ACCESS_REFUSED")), "refuses user 'zoe'"),
            ((START, TUNE, refusal(530, b"NOT_ALLOWED - vhost")), "NOT_ALLOWED"),
            ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "something else"),
            ((b"AMQP\0\0\x09\x01",), "something else"),
            ((START[:-1] + b"x",), "something else"),
            ((START, b""), "closed"),
            ((method((20, 10)),), "something else"),
        ):
            found, _ = self.judged(*answers)
            self.assertEqual(found.state, "problem", answers)
            self.assertIn(said, found.detail)
            self.assertTrue(found.mend)

    def test_nobody(self) -> None:
        """Nobody listens."""
        found = broker("amqp://127.0.0.1:1", ssl.create_default_context)
        self.assertEqual(found.state, "problem")
        self.assertIn("refused", found.detail)


class SearchTests(LyingTestCase):
    """Search servers."""

    def judged(
        self, about: object, health: object, *, user: str = "", key: str | None = None
    ) -> Finding:
        """What is found of one that says that."""

        def script(asked: Asked, _: int) -> Said:
            value = about if asked.target == "/" else health
            if isinstance(value, int):
                return Said(value)
            return Said(200, {}, json.dumps(value).encode())

        self.script = script
        url = self.endpoint.replace("://", f"://{user}")
        return search_server(url, key, ssl.create_default_context, lambda: 0.0)

    def test_verdicts(self) -> None:
        """Version, health and rights decide."""
        green = {"status": "green", "number_of_nodes": 3}
        for about, health, state, said in (
            ({"number": "9.1.0"}, green, "ok", "Elasticsearch 9.1.0, green, 3 nodes"),
            (
                {"number": "2.9.0", "distribution": "opensearch"},
                green,
                "ok",
                "OpenSearch",
            ),
            ({"number": "6.8.0"}, green, "problem", "6.8.0"),
            ({"number": "8.0.0"}, {**green, "status": "red"}, "problem", "red"),
            ({"number": "8.0.0"}, {**green, "status": "yellow"}, "warning", "yellow"),
            (
                {"number": "8.0.0"},
                {"status": "yellow", "number_of_nodes": 1},
                "ok",
                "1 node",
            ),
            ({"number": "8.0.0"}, 401, "problem", "401"),
            ({"number": "8.0.0"}, 500, "problem", "500"),
            ({"number": "8.0.0"}, {}, "problem", "no search server"),
        ):
            found = self.judged({"version": about}, health)
            self.assertEqual(found.state, state, (about, health))
            self.assertIn(said, found.detail)
        self.assertEqual(self.judged([], green).state, "problem")

    def test_credentials(self) -> None:
        """User and password, or a key, are sent and not shown."""
        found = self.judged({}, {}, user="zoe:pa%3Ass@")
        self.assertEqual(self.asked[0].headers["Authorization"], "Basic em9lOnBhOnNz")
        self.assertNotIn("zoe", f"{found}")
        self.judged({}, {}, key="abc")
        self.assertEqual(self.asked[-1].headers["Authorization"], "ApiKey abc")


class SettingsTests(CommandTestCase):
    """doctor --role."""

    def doctor(self, *words: str) -> tuple[Result, dict[str, dict[str, str]]]:
        """The result, and its findings by name."""
        result = self.ostore("admin", "doctor", "--retries=0", "--json", *words)
        return result, {item["check"]: item for item in result.items}

    def test_refused(self) -> None:
        """Settings that a service would refuse are told as it would."""
        self.file("api.toml", b"write-quorum = 99\n")
        _, found = self.doctor("--role=api", "--config=api.toml")
        settings = found["settings of ostore-api"]
        self.assertEqual(settings["state"], "problem")
        self.assertIn("write-quorum", settings["detail"])
        _, found = self.doctor("--role=api", "--config=nix.toml")
        self.assertIn("nix.toml", found["settings of ostore-api"]["detail"])
        self.assertEqual(self.doctor("--config=api.toml")[0].status, 2)

    def test_files(self) -> None:
        """Secret files that others can read, and roots that cannot be written, are told."""
        secret = self.file("secret", SECRET.encode())
        secret.chmod(0o644)
        self.file("file", b"")
        config = f'cluster-secret-file = "{secret}"\nstorage-root = ["root"]\n'
        config += 'rabbitmq-server = ["amqp://127.0.0.1:1"]\n'
        self.file("data.toml", config.encode())
        words = ("--role=data", "--config=data.toml")
        _, found = self.doctor(*words)
        self.assertEqual(found["settings of ostore-data"]["state"], "ok", found)
        self.assertEqual(found["cluster-secret-file"]["state"], "warning")
        self.assertIn("chmod 600", found["cluster-secret-file"]["mend"])
        self.assertEqual(found["broker 127.0.0.1:1"]["state"], "problem")
        root = found[f"storage root {Path.cwd() / 'root'}"]
        self.assertIn("not made yet", root["detail"])
        secret.chmod(0o600)
        _, found = self.doctor(*words)
        self.assertEqual(found["cluster-secret-file"]["state"], "ok")
        secret.write_text("short\n", "utf-8")
        _, found = self.doctor(*words)
        self.assertIn("32 characters", found["settings of ostore-data"]["detail"])

    def test_disk(self) -> None:
        """A disk that is nearly full is told, and one that nobody may write to."""
        real: Callable[[str], os.statvfs_result] = os.statvfs
        full = list(real("/"))
        for share, state in ((20, "ok"), (7, "warning"), (3, "problem")):
            full[2], full[4] = 100_000_000, share * 1_000_000
            full[5], full[7] = 1000, 900
            self.patch(os, "statvfs", lambda _, now=tuple(full): os.statvfs_result(now))
            _, found = self.doctor("--role=standalone")
            (root,) = (found[name] for name in found if name.startswith("storage root"))
            self.assertEqual(root["state"], state)
        self.patch(os, "access", lambda *_: False)
        _, found = self.doctor("--role=standalone")
        (root,) = (found[name] for name in found if name.startswith("storage root"))
        self.assertIn("cannot be written", root["detail"])
