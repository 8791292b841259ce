"""A RabbitMQ of our own: its ports, its cookie, its data and its end are ours."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.authority import Authority

STRANGE = "127.0.0.2"
"""Where it speaks TLS as well, though its certificate is not for it."""
HOME = Path("/usr/lib/rabbitmq/bin")
"""Its scripts here do not insist on a certain user, as those in sbin do."""
PATIENCE = 120.0
"""Seconds for a start."""
ERLANG = (
    "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
    " -kernel inet_dist_use_interface {127,0,0,1}"
)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class RabbitMQ:
    """One broker in a folder of its own; nothing of it outlives `close`.

    Blocking: a test with a running reactor calls it in a thread. Users, vhosts and
    exchanges outlive `kill` and `start`.
    """

    def __init__(self, user: str = "ostore", password: str = "p@ss/w:rd") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ostore-rabbitmq-"))
        self.port, self.tls_port, self._distribution, self._epmd_port = free_ports(4)
        self.user, self.password = user, password
        self.node = f"ostore-{self.port}@localhost"
        self.authority = Authority("broker's CA")
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._write()
        atexit.register(self.close)

    def url(self, vhost: str = "", *, port: int = 0, password: str = "") -> str:
        """How clients reach it; by `port` through a proxy."""
        secret = _quoted(password or self.password)
        return f"amqp://{self.user}:{secret}@127.0.0.1:{port or self.port}/{vhost}"

    def tls_url(self, host: str = "localhost") -> str:
        """The same over TLS; its certificate is for localhost and 127.0.0.1."""
        return f"amqps://{self.user}:{_quoted(self.password)}@{host}:{self.tls_port}/"

    def start(self) -> None:
        """Return when it answers."""
        if self._epmd is None:  # in the foreground: the broker would leave a daemon
            self._epmd = self._run(["epmd"], "epmd.log")
        self._process = self._run([str(HOME / "rabbitmq-server")], "stdout.log")
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "stdout.log").read_text(errors="replace")
                self.close()
                raise AssertionError(f"RabbitMQ did not start:\n{said[-2000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it speaks AMQP, which is a little later than its port is open."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.settimeout(2)
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def control(self, *words: str) -> list[str]:
        """The lines that `rabbitmqctl -q words` prints."""
        done = subprocess.run(
            [str(HOME / "rabbitmqctl"), "-q", "-n", self.node, *words],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise AssertionError(done.stderr.strip() or done.stdout.strip())
        return done.stdout.splitlines()

    def kill(self) -> None:
        """Kill -9 of the broker and all its children."""
        if self._process is not None:
            _kill_group(self._process)
            self._process = None

    def close(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        self.kill()
        if self._epmd is not None:
            _kill_group(self._epmd)
            self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _run(self, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                words,
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            **os.environ,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the broker
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }

    def _write(self) -> None:
        files = {
            "ca.pem": self.authority.pem,
            **dict(
                zip(
                    ("server.pem", "server.key"),
                    self.authority.issue("localhost", "127.0.0.1"),
                    strict=True,
                )
            ),
            "rabbitmq-env.conf": b"",
            "enabled_plugins": b"[].\n",
            "rabbitmq.conf": "\n".join(
                (
                    f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                    f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                    f"listeners.ssl.2 = {STRANGE}:{self.tls_port}",
                    "num_acceptors.tcp = 2",
                    "num_acceptors.ssl = 2",
                    f"ssl_options.cacertfile = {self.folder}/ca.pem",
                    f"ssl_options.certfile = {self.folder}/server.pem",
                    f"ssl_options.keyfile = {self.folder}/server.key",
                    "ssl_options.verify = verify_none",
                    "ssl_options.fail_if_no_peer_cert = false",
                    "log.console = false",
                    "log.file.level = info",
                    "disk_free_limit.absolute = 50MB",
                    "vm_memory_high_watermark.absolute = 512MB",
                    f"default_user = {self.user}",
                    f"default_pass = {self.password}",
                    "loopback_users = none",
                    "",
                )
            ).encode(),
        }
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


def _quoted(text: str) -> str:
    return "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in text)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    for pid in [*_children(process.pid), process.pid]:
        for end in (os.killpg, os.kill):  # some children lead groups of their own
            try:
                end(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


def _children(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(words[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found
