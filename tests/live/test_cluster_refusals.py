"""What the services refuse: settings that cannot work, and requests that nobody signed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from ostore.model.signing import Caller
from tests.live import servers
from tests.live.cases import LiveCase
from tests.live.client import Answer, ask
from tests.support.authority import Authority
from tests.support.child import Child
from tests.support.livecluster import Service
from tests.support.rabbitmq import free_ports
from tests.support.standalone import files_below, sha256

WRONG = "a-wrong-password"


class _Other(BaseHTTPRequestHandler):
    """A server that is no search server; `kind` says which."""

    def do_GET(self) -> None:
        """Whatever is asked."""
        server = self.server
        assert isinstance(server, OtherServer)
        status, body = server.says
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to standard error."""


class OtherServer(ThreadingHTTPServer):
    """Answers every GET with the same; ended by `shutdown`."""

    daemon_threads = True

    def __init__(self, status: int, said: object) -> None:
        super().__init__(("127.0.0.1", 0), _Other)
        self.says = status, json.dumps(said).encode()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class StartTests(LiveCase):
    """One line that names the setting, no secret in it, and a status that is not 0."""

    def data(self, label: str, *more: str, rabbitmq: str = "") -> Child:
        """A data service over a root of its own."""
        root = self.cluster.folder / f"other-root-{label}"
        words = self.cluster.node_words(root, rabbitmq=rabbitmq)
        return self.child("ostore-data", label, [*words, *more])

    def api(
        self, label: str, *more: str, rabbitmq: str = "", search: str = ""
    ) -> Child:
        """One more api."""
        metadata = ("--es-server", search) if search else ()
        words = self.cluster.api_words(rabbitmq=rabbitmq, metadata=metadata)
        return self.child("ostore-api", label, [*words, *more])

    def test_broker_password(self) -> None:
        """Wrong credentials for the broker end both kinds of service."""
        url = servers.broker().url(password=WRONG)
        for start in (self.data, self.api):
            child = start("password", rabbitmq=url)
            self.assert_refuses(child, "rabbitmq-server", "403", secrets=[WRONG])

    def test_broker_vhost(self) -> None:
        """So does a vhost that is not there."""
        url = servers.broker().url("nowhere")
        for start in (self.data, self.api):
            child = start("vhost", rabbitmq=url)
            secrets = [servers.broker().password, quote(servers.broker().password, "")]
            self.assert_refuses(child, "rabbitmq-server", secrets=secrets)

    def test_broker_url(self) -> None:
        """So does what is no URL of a broker."""
        for url in ("http://u:s3cret@127.0.0.1:1/", "amqp://u:s3cret@:1/", "rubbish"):
            for start in (self.data, self.api):
                child = start("url", rabbitmq=url)
                self.assert_refuses(child, "rabbitmq-server", secrets=["s3cret"])

    def test_broker_certificate(self) -> None:
        """A broker whose CA is not ours is refused; with its own CA all is well."""
        other = self.cluster.folder / "other-ca.pem"
        other.write_bytes(Authority("another CA").pem)
        url = servers.broker().tls_url()
        for start in (self.data, self.api):
            child = start("ca", "--tls-ca", str(other), rabbitmq=url)
            self.assert_refuses(child, "rabbitmq-server", "certificate", secrets=())
        right = self.cluster.folder / "right-ca.pem"
        right.write_bytes(servers.broker().authority.pem)
        self.data("right-ca", "--tls-ca", str(right), rabbitmq=url).nodes()

    def test_search_server_of_another_kind(self) -> None:
        """What is no search server, or one too old, ends an api."""
        node = {"name": "x", "version": "6.8.0", "build_type": "tar"}
        for said in ({"hello": "world"}, {"nodes": {"x": node}}):
            server = OtherServer(200, said)
            self.addCleanup(server.shutdown)
            self.addCleanup(server.server_close)
            child = self.api("kind", search=server.url)
            self.assert_refuses(child, "es-server", secrets=())

    def test_search_server_password(self) -> None:
        """So does one that refuses our credentials."""
        server = OtherServer(401, {"error": {"type": "security_exception"}})
        self.addCleanup(server.shutdown)
        self.addCleanup(server.server_close)
        url = server.url.replace("http://", f"http://user:{WRONG}@")
        child = self.api("es-password", search=url)
        self.assert_refuses(child, "es-server", secrets=[WRONG])

    def test_outage_at_start(self) -> None:
        """A broker or search server that is not there is waited for, and said."""
        [nobody] = free_ports(1)
        away = servers.broker().url(port=nobody)
        [port] = free_ports(1)
        words = self.cluster.api_words(
            rabbitmq=away, metadata=("--es-server", f"127.0.0.1:{nobody}")
        )
        folder = self.cluster.folder / "other-outage"
        child = Child(
            folder,
            *words,
            "--listen",
            f"127.0.0.1:{port}",
            name="log",
            role="ostore-api",
        )
        self.addCleanup(child.close)
        self.until(lambda: "not ready" in child.stdout, "it says so")

        def told() -> bool:
            answer = ask(port, "GET", "/health/ready")
            text = answer.body.decode()
            return answer.status == 503 and "bus" in text and "metadata" in text

        self.until(told, "readiness tells of both")
        self.assertEqual(ask(port, "GET", "/health/live").status, 200)
        self.assert_problem(ask(port, "GET", "/objects/x"), 503)
        self.assertIsNone(child.status)
        self.assertNotIn(servers.broker().password, child.stdout + child.stderr)

    def test_another_secret(self) -> None:
        """Services with another secret are not seen, and see nobody; a count tells."""
        secret = self.cluster.folder / "another-secret"
        secret.write_text("another secret of more than 32 characters\n")
        root = self.cluster.folder / "other-root-secret"
        words = self.cluster.node_words(root, secret=secret)
        before = self.dropped()
        node = self.child("ostore-data", "secret", words)
        [(_, name)] = node.nodes()
        self.until(lambda: self.dropped() > before, "its heartbeats are dropped")
        self.assertNotIn(name, self.view())
        [port] = free_ports(1)
        words = self.cluster.api_words(secret=secret)
        api = Child(
            self.cluster.folder / "other-api-secret",
            *words,
            "--listen",
            f"127.0.0.1:{port}",
            name="log",
            role="ostore-api",
        )
        self.addCleanup(api.close)
        self.until(lambda: "not ready" in api.stdout, "it says so")
        self.until(lambda: self.listed(port) == {name}, "it sees its like alone")
        answer = ask(port, "PUT", "/objects/x", (), b"x")
        self.assert_problem(answer, 503)
        self.assertIn("needs 5", ask(port, "GET", "/health/ready").body.decode())
        self.put(self.name(), self.new())

    def listed(self, port: int) -> set[str]:
        """The nodes that an api knows."""
        nodes = ask(port, "GET", "/cluster").json()["nodes"]
        return {node["id"] for node in nodes}

    def dropped(self) -> float:
        """Messages that the first api did not take."""
        text = self.ask("GET", "/metrics").body.decode()
        found = [line.split() for line in text.splitlines()]
        return float(
            dict(f for f in found if len(f) == 2)["ostore_bus_messages_dropped_total"]
        )


class SignatureTests(LiveCase):
    """Requests straight to a data node: 401, and nothing is changed."""

    def setUp(self) -> None:
        """A node that holds something."""
        super().setUp()
        self.node: Service = self.cluster.data[0]
        self.content = self.new()
        self.put(self.name(), self.content)
        self.before = self.files()

    def files(self) -> dict[Path, int]:
        """Every file of the node, and its size."""
        return {path: path.stat().st_size for path in files_below(self.node.root)}

    def caller(
        self, secret: bytes = b"", wall: Callable[[], float] = time.time
    ) -> Caller:
        """Somebody who knows a secret, and a time."""
        known = self.cluster.secret.read_text("ascii").strip().encode()
        return Caller("story", secret or known, wall, os.urandom)

    def signed(
        self,
        method: str,
        target: str,
        guarded: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        service: Service | None = None,
    ) -> list[tuple[str, str]]:
        """The headers of a signed request, `guarded` ones among them."""
        host = f"127.0.0.1:{(service or self.node).port}"
        made = (caller or self.caller()).headers("", method, host, target, guarded)
        return [*made.items(), *(guarded or {}).items()]

    def send(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | None = None,
    ) -> Answer:
        """To the node."""
        return ask(self.node.port, method, target, headers, body)

    def assert_refused(self, answer: Answer) -> None:
        """401, and every file of the node as it was."""
        self.assert_problem(answer, 401)
        self.assertEqual(self.files(), self.before)

    def test_signed(self) -> None:
        """With the secret it works: what follows fails for what it says alone."""
        answer = self.send("GET", "/shards", self.signed("GET", "/shards"))
        self.assertEqual(answer.status, 200)
        self.assertIn(sha256(self.content), answer.body.decode())

    def test_unsigned(self) -> None:
        """Without a signature nothing is answered but health and figures."""
        hash = sha256(self.content)
        for method, target in (
            ("GET", "/shards"),
            ("GET", f"/objects/{hash}.0"),
            ("DELETE", f"/objects/{hash}"),
            ("POST", "/temp/x"),
            ("POST", f"/objects/{hash}?do=condemn"),
            ("POST", "/cluster-id"),
            ("GET", "/node"),
        ):
            self.assert_refused(self.send(method, target, []))
        for target in ("/health/live", "/health/ready", "/metrics"):
            self.assertEqual(self.send("GET", target, []).status, 200)

    def test_another_secret(self) -> None:
        """Another secret is none."""
        caller = self.caller(b"another secret of at least 32 characters")
        for method, target in (("GET", "/shards"), ("POST", "/temp/x")):
            headers = self.signed(method, target, caller=caller)
            self.assert_refused(self.send(method, target, headers))

    def test_tampered(self) -> None:
        """Nothing that the signature covers can be changed on the way."""
        hash = sha256(self.content)
        headers = self.signed("GET", f"/objects/{hash}")
        self.assert_refused(self.send("DELETE", f"/objects/{hash}", headers))
        headers = self.signed("DELETE", f"/objects/{'0' * 64}")
        self.assert_refused(self.send("DELETE", f"/objects/{hash}", headers))
        headers = self.signed("POST", "/temp/x", {"Size": "5"})
        changed = [(n, "6" if n == "Size" else v) for n, v in headers]
        self.assert_refused(self.send("POST", "/temp/x", changed))
        headers = self.signed("GET", "/shards")
        for name in ("Authorization", "X-Ostore-Date", "X-Ostore-Nonce"):
            for change in (
                lambda value: value[:-1] + ("0" if value[-1] != "0" else "1"),
                lambda _: "",
                lambda value: f"{value}0",
            ):
                changed = [(n, change(v) if n == name else v) for n, v in headers]
                self.assert_refused(self.send("GET", "/shards", changed))

    def test_stale(self) -> None:
        """A date of another time is refused, and the node's own time told."""
        for shift in (-61.0, 65.0, -1e6, 1e6):
            caller = self.caller(wall=lambda shift=shift: time.time() + shift)  # type: ignore[misc]  # mypy infers no default
            answer = self.send(
                "GET", "/shards", self.signed("GET", "/shards", caller=caller)
            )
            self.assert_refused(answer)
            told = float(answer.headers["x-ostore-now"])
            self.assertLess(abs(told - time.time()), 30)
            self.assertIn("x-ostore-boot", answer.headers)

    def test_replayed(self) -> None:
        """A request that was seen is refused, by the same node after a start too."""
        headers = self.signed("GET", "/shards")
        self.assertEqual(self.send("GET", "/shards", headers).status, 200)
        self.assert_refused(self.send("GET", "/shards", headers))
        headers = self.signed("GET", "/shards")
        self.assertEqual(self.send("GET", "/shards", headers).status, 200)
        time.sleep(1)  # the date has whole seconds
        self.node.kill()
        self.node.start()
        self.node.wait()
        self.before = self.files()
        self.assert_refused(self.send("GET", "/shards", headers))

    def test_of_another_node(self) -> None:
        """What was signed for one node is of no use at another."""
        other = self.cluster.data[1]
        headers = self.signed("GET", "/shards", service=other)
        self.assert_refused(self.send("GET", "/shards", headers))
        host = [*headers, ("Host", f"127.0.0.1:{other.port}")]
        self.assert_refused(self.send("GET", "/shards", host))

    def test_paths(self) -> None:
        """Tricks with paths are a 400, signed as they may be."""
        for target in (
            "/objects/../../../etc/passwd",
            "/objects/..%2F..%2Fetc%2Fpasswd",
            "/objects/%2e%2e/x",
            "/objects/%00",
            "/temp/..",
            "/temp/%2Fetc%2Fpasswd",
            "/temp/a%5C..%5Cb",
            "//etc/passwd",
            "/objects//etc/passwd",
            "/temp/%zz",
        ):
            for method in ("GET", "POST", "DELETE", "PUT"):
                headers = self.signed(method, target)
                answer = self.send(method, target, headers)
                self.assertEqual(answer.status, 400, (method, target, answer.body))
        self.assertEqual(self.files(), self.before)

    def test_put_objects(self) -> None:
        """PUT of an object is a 405 even for who may ask."""
        target = f"/objects/{sha256(self.content)}.0"
        answer = self.send("PUT", target, self.signed("PUT", target), b"x")
        self.assertEqual(answer.status, 405)
        self.assertIn("allow", answer.headers)
        self.assertEqual(self.files(), self.before)
