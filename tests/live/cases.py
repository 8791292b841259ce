"""What all stories over real processes share: one cluster, and how to look at it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.live import servers
from tests.live.client import Answer, Asking, Cut, Headers, ask
from tests.support.child import Child
from tests.support.livecluster import LiveCluster, Service
from tests.support.standalone import files_below, sha256

T = TypeVar("T")

FAST = ("--heartbeat", "1s", "--node-timeout", "3s", "--rebuild-delay", "3s")
"""Settings of the shared cluster."""
PATIENCE = 120.0
"""Seconds after which what does not happen never will."""
PAUSE = 0.05
AT_ONCE = 18.0
"""Seconds that no request takes, whatever hangs: below those after which a service
gives up a step that hangs, and generous otherwise, for a busy machine."""
TROUBLE = ("Traceback", "Unhandled", "Exception ignored")


def until(holds: Callable[[], object], what: str, patience: float = PATIENCE) -> float:
    """Wait until it holds, and give the seconds that it took. Raises AssertionError."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > patience:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(PAUSE)
    return time.monotonic() - began


def problem_of(answer: Answer) -> str:
    """The slug of a problem's type."""
    return str(answer.json().get("type", "")).rpartition(":")[2]


def up(cluster: LiveCluster) -> bool:
    """Whether every api is ready and sees every data service up."""
    wanted = {service.node for service in cluster.data}
    for api in cluster.apis:
        try:
            ready = ask(api.port, "GET", "/health/ready").status == 200
            nodes = ask(api.port, "GET", "/cluster").json()["nodes"]
        except Cut:
            return False
        seen = {node["id"] for node in nodes if node["state"] == "up"}
        if not ready or not wanted <= seen:
            return False
    return True


def leaks(cluster: LiveCluster, *more: str) -> list[str]:
    """Lines of any log that hold a traceback or a secret."""
    password = servers.broker().password
    forbidden = [*TROUBLE, cluster.secret.read_text().strip(), password, *more]
    forbidden.append(quote(password, safe=""))
    return [
        f"{service.folder.name}: {line[:500]}"
        for service in cluster.services
        for line in service.logs().splitlines()
        if any(word in line for word in forbidden)
    ]


class _Shared:
    """The cluster that stands, if there is one."""

    cluster: LiveCluster | None = None

    def get(self) -> LiveCluster:
        """It; started when there is none."""
        if self.cluster is None:
            made = self.cluster = make_cluster()
            atexit.register(self.close)
            try:
                made.start()
                until(lambda: up(made), "the cluster is up")
            except BaseException:
                self.close()
                raise
        return self.cluster

    def close(self) -> None:
        """End it, and forget its files. Idempotent."""
        cluster, self.cluster = self.cluster, None
        atexit.unregister(self.close)
        if cluster is not None:
            cluster.close()
            shutil.rmtree(cluster.folder, ignore_errors=True)


shared = _Shared()


def make_cluster(
    options: Sequence[str] = FAST,
    search_url: str = "",
    rabbitmq: str = "",
    common: Sequence[str] = (),
) -> LiveCluster:
    """A new cluster over empty servers, not yet started; the shared one ends.

    `options` are those of apis, `common` those of every service.
    """
    shared.close()
    servers.forget()
    folder = Path(tempfile.mkdtemp(prefix="ostore-live-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    metadata = ("--es-server", search_url or servers.search().url)
    bus = rabbitmq or servers.broker().url(servers.vhost())
    return LiveCluster(folder, bus, metadata, options=options, common=common)


class LiveCase(SynchronousTestCase):
    """Two apis and six data services; each test finds them all up, and leaves them so.

    What a test stores is new to the cluster. `cluster` is shared by all of them.
    """

    def setUp(self) -> None:
        """Have the cluster."""
        self.cluster = self.make()
        self._made = 0
        self._others: set[Path] = set()
        self._others.update(self.temporaries())
        self.addCleanup(self.settling)

    def settling(self) -> object:
        """Do `settle`, here or elsewhere."""
        self.settle()
        return None

    def make(self) -> LiveCluster:
        """The cluster of this test."""
        return shared.get()

    def settle(self) -> None:
        """Bring everything back, and see that no log tells of a mistake or a secret."""
        try:
            self.cluster.revive()
            until(lambda: up(self.cluster), "the cluster is up again")
        except BaseException:
            shared.close()  # the next test is not to suffer
            raise
        self.assertEqual(leaks(self.cluster), [])

    # Asking

    def new(self, size: int = 100) -> bytes:
        """Bytes that were never stored before."""
        self._made += 1
        return Random(f"{self.id()} {self._made} {time.time_ns()}").randbytes(size)

    def name(self, label: str = "x") -> str:
        """A name that no other test uses."""
        _, case, test = self.id().rsplit(".", 2)
        return f"{case}.{test}/{label}"

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
        api: int = 0,
    ) -> Answer:
        """One request to one of the apis. Raises Cut."""
        return ask(self.cluster.apis[api].port, method, target, headers, body)

    def asking(self, api: int = 0, *, receive_buffer: int = 0) -> Asking:
        """A request in steps; cut at the end of the test."""
        port = self.cluster.apis[api].port
        made = Asking(port, receive_buffer=receive_buffer)
        self.addCleanup(made.close)
        return made

    def put(
        self, name: str, content: bytes, headers: Headers = (), api: int = 0
    ) -> dict[str, Any]:
        """Store it; gives the version's JSON."""
        answer = self.ask("PUT", f"/objects/{quote(name)}", headers, content, api)
        self.assertEqual(answer.status, 200, answer.body)
        return dict(answer.json())

    def get(self, name: str, version: int | None = None, api: int = 0) -> Answer:
        """Ask for an object. Raises Cut."""
        query = "" if version is None else f"?version={version}"
        return self.ask("GET", f"/objects/{quote(name)}{query}", api=api)

    def assert_reads(
        self, name: str, content: bytes, version: int | None = None
    ) -> None:
        """A GET by any api gives exactly that."""
        for api in range(len(self.cluster.apis)):
            answer = self.get(name, version, api)
            self.assertEqual(answer.status, 200, answer.body[:500])
            self.assertTrue(answer.body == content, "the bytes differ")

    def assert_problem(self, answer: Answer, status: int) -> None:
        """The answer is problem+json of that status; a 503 says when to try again."""
        self.assertEqual(answer.status, status, answer.body[:500])
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        if status == 503:
            self.assertIn("retry-after", answer.headers)

    def versions(self, name: str, api: int = 0) -> list[dict[str, Any]]:
        """The versions of a name."""
        answer = self.ask("GET", f"/versions/{quote(name, safe='')}", api=api)
        self.assertEqual(answer.status, 200, answer.body)
        return [Answer(200, {}, line).json() for line in answer.body.splitlines()]

    def view(self, api: int = 0) -> Mapping[str, Mapping[str, Any]]:
        """What /cluster says of each node, by its id."""
        nodes = self.ask("GET", "/cluster", api=api).json()["nodes"]
        return {node["id"]: node for node in nodes}

    def state(self, service: Service, api: int = 0) -> str:
        """The state of a node as an api sees it; empty when it never heard of it."""
        return str(self.view(api).get(service.node, {}).get("state", ""))

    def reasons(self, api: int = 0) -> str:
        """Why an api is not ready."""
        return self.ask("GET", "/health/ready", api=api).body.decode()

    @contextmanager
    def at_once(self, seconds: float = AT_ONCE) -> Iterator[None]:
        """What is done within takes no longer than that."""
        began = time.monotonic()
        yield
        self.assertLess(time.monotonic() - began, seconds)

    def until(self, holds: Callable[[], object], what: str) -> float:
        """Wait until it holds; gives the seconds that it took."""
        return until(holds, what)

    def until_up(self) -> None:
        """Wait until every api is ready and sees every data service up."""
        self.until(lambda: up(self.cluster), "the cluster is up")

    # Looking at the disks

    def shards(self, content: bytes) -> dict[int, list[Path]]:
        """Shard number -> its files on all nodes."""
        hash = sha256(content)
        found: dict[int, list[Path]] = {}
        for service in self.cluster.data:
            for path in files_below(service.root / "objects"):
                if path.name.startswith(f"{hash}."):
                    found.setdefault(int(path.name.split(".")[1]), []).append(path)
        return found

    def whole(self, content: bytes) -> bool:
        """Whether the six shards are there, each once, no two on one node."""
        found = self.shards(content)
        paths = [path for each in found.values() for path in each]
        homes = {path.relative_to(self.cluster.folder).parts[0] for path in paths}
        return sorted(found) == list(range(6)) and len(paths) == len(homes) == 6

    def until_whole(self, content: bytes) -> None:
        """Wait until it is whole."""
        until(lambda: self.whole(content), "six shards on six nodes")

    def temporaries(self) -> list[Path]:
        """Every file in any node's temp/ that came there in this test.

        Records of uploads that ended do not count, nor does what was there before: an
        api that another test killed may have left it, until it expires.
        """
        return [
            path
            for service in self.cluster.data
            for path in files_below(service.root / "temp")
            if path.suffix != ".upload" and path not in self._others
        ]

    # Other processes

    def child(self, role: str, label: str, words: Sequence[str], **env: str) -> Child:
        """One more service on a free port, which is killed at the end of the test."""
        folder = self.cluster.folder / f"other-{label}-{time.monotonic_ns()}"
        listen = ("--listen", "127.0.0.1:0")
        made = Child(folder, *words, *listen, environ=env, name="log", role=role)
        self.addCleanup(made.close)
        return made

    def assert_refuses(self, child: Child, *words: str, secrets: Sequence[str]) -> str:
        """It ends at once with one line that holds the words and no secret."""
        status = child.ended()
        self.assertNotIn(status, (0, None))
        lines = child.stderr.splitlines()
        self.assertEqual(len(lines), 1, child.stderr + child.stdout)
        for word in words:
            self.assertIn(word, lines[0])
        for secret in (*TROUBLE, *secrets):
            self.assertNotIn(secret, child.stderr + child.stdout)
        return lines[0]


class ThreadedCase(LiveCase, TestCase):
    """Stories that need a reactor of their own beside them.

    What blocks is called by `elsewhere`, in a thread.
    """

    timeout = 300

    def elsewhere(self, story: Callable[..., T], *words: object) -> Deferred[T]:
        """Run what blocks, and leave the reactor running meanwhile."""
        return deferToThread(story, *words)

    def settling(self) -> object:
        """As elsewhere."""
        return self.elsewhere(self.settle)
