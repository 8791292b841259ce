"""Nodes that die, hang, come back, join, or are not what they say."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.live.cases import AT_ONCE, LiveCase
from tests.live.client import Answer, Asking, Cut
from tests.support.child import Child
from tests.support.livecluster import Service
from tests.support.standalone import sha256

SMALL = 4096
LARGE = (5 << 20) + 3
STREAM = 24 << 20
DEEP = 96 << 20
"""More than sockets and services hold between a client and six nodes."""
STALL = 60.0
"""Seconds that a write takes at most which a hanging node keeps from its quorum."""
PIECE = 1 << 20

Harm = Callable[[Service], None]
HARMS: dict[str, Harm] = {"kill": Service.kill, "freeze": Service.freeze}


class NodeCase(LiveCase):
    """Harm and its end."""

    def harmed(self, harm: Harm, count: int, first: int = 0) -> Sequence[Service]:
        """Do that to so many nodes."""
        services = self.cluster.data[first : first + count]
        for service in services:
            harm(service)
        return services

    def recover(self) -> None:
        """Everything is back and ready."""
        self.cluster.revive()
        self.until_up()

    def until_state(self, services: Sequence[Service], state: str) -> None:
        """Wait until every api sees them so."""
        self.until(
            lambda: all(
                self.state(service, api) == state
                for service in services
                for api in range(len(self.cluster.apis))
            ),
            f"{state} everywhere",
        )

    def both(self) -> Iterator[tuple[str, bytes]]:
        """A small and a large object, stored while all is well."""
        for label, size in (("small", SMALL), ("large", LARGE)):
            name, content = self.name(f"{label}{self._made}"), self.new(size)
            self.put(name, content)
            yield name, content


class BeforeTests(NodeCase):
    """Nodes that are gone before the request."""

    def test_one(self) -> None:
        """One dead or hanging: reads and writes go on at once, and are mended later."""
        for label, harm in HARMS.items():
            stored = list(self.both())
            [gone] = self.harmed(harm, 1)
            written = []
            for size in (SMALL, LARGE):
                for api in (0, 1):
                    name, content = self.name(f"{label}{size}{api}"), self.new(size)
                    with self.at_once():
                        self.put(name, content, api=api)
                    written.append((name, content))
            for name, content in stored + written:
                with self.at_once():
                    self.assert_reads(name, content)
            self.until_state([gone], "down")
            name, content = self.name(f"{label} down"), self.new(LARGE)
            with self.at_once():
                self.put(name, content)
            written.append((name, content))
            for name, content in stored + written:
                with self.at_once():
                    self.assert_reads(name, content)
            self.recover()
            for _, content in written:
                self.until_whole(content)
            for name, content in written:
                self.assert_reads(name, content)

    def test_two(self) -> None:
        """Two: reads are right, a write is a 503 that names the numbers, no version."""
        for label, harm in HARMS.items():
            stored = list(self.both())
            gone = self.harmed(harm, 2, first=1)
            for down in (False, True):
                if down:
                    self.until_state(gone, "down")
                for size in (SMALL, LARGE):
                    for api in (0, 1):
                        name = self.name(f"{label}{size}{api}{down}")
                        hanging = label == "freeze" and not down
                        with self.at_once(STALL if hanging else AT_ONCE):
                            answer = self.send(name, self.new(size), api)
                        self.assert_problem(answer, 503)
                        self.assertIn("5", answer.json()["detail"])
                        self.assertEqual(self.versions(name), [])
                for name, content in stored:
                    with self.at_once():
                        self.assert_reads(name, content)
            self.assertIn("4 can take shards, a write needs 5", self.reasons())
            self.recover()
            name, content = self.name(f"{label} after"), self.new(LARGE)
            self.assertEqual(self.put(name, content)["version"], 1)
            self.assertTrue(self.whole(content))
        self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_three(self) -> None:
        """Three: 503 for reads and writes, no byte of any body; all right afterwards."""
        for harm in HARMS.values():
            stored = list(self.both())
            gone = self.harmed(harm, 3, first=3)
            for down in (False, True):
                if down:
                    self.until_state(gone, "down")
                for name, content in stored:
                    if len(self.held(content, gone)) < 3:
                        continue
                    with self.at_once():
                        self.assert_problem(self.get(name), 503)
                    with self.at_once(AT_ONCE if down else STALL):
                        self.assert_problem(self.send(name, self.new(LARGE)), 503)
            self.recover()
            for name, content in stored:
                self.assert_reads(name, content)
                self.assertEqual(len(self.versions(name)), 1)

    def test_known_content(self) -> None:
        """A content that is there is stored again under a new name with a node gone."""
        for label, harm in HARMS.items():
            for _, content in list(self.both()):
                self.harmed(harm, 1, first=2)
                name = self.name(f"{label}{len(content)}")
                with self.at_once():
                    self.put(name, content, api=1)
                self.assert_reads(name, content)
                self.recover()
                self.until_whole(content)

    def send(self, name: str, content: bytes, api: int = 0) -> Answer:
        """PUT, whatever comes of it."""
        return self.ask("PUT", f"/objects/{name}".replace(" ", "%20"), (), content, api)

    def held(self, content: bytes, services: Sequence[Service]) -> list[int]:
        """The shards of a content that lie on those nodes."""
        roots = [service.root for service in services]
        return [
            index
            for index, paths in self.shards(content).items()
            if any(root in path.parents for root in roots for path in paths)
        ]


class DuringTests(NodeCase):
    """Nodes that go in the middle of a large object."""

    def begin_put(self, name: str, content: bytes) -> Asking:
        """Send half of it, and wait until that is with the nodes."""
        asking = self.asking()
        asking.head("PUT", f"/objects/{name}", (), len(content))
        asking.send(content[: len(content) // 2])
        self.until(lambda: len(self.temporaries()) >= 6, "temporaries")
        return asking

    def test_put_one(self) -> None:
        """One node in the middle of a PUT: it is stored, at once, and mended."""
        for label, harm in HARMS.items():
            name, content = self.name(label), self.new(STREAM)
            asking = self.begin_put(name, content)
            self.harmed(harm, 1, first=4)
            with self.at_once():
                asking.send(content[len(content) // 2 :])
                answer = asking.answer()
            self.assertEqual(answer.status, 200, answer.body)
            self.assert_reads(name, content)
            self.recover()
            self.until_whole(content)
            self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_put_more(self) -> None:
        """Two or three nodes: a 503, no version, and no temporary that stays."""
        for count, (label, harm) in zip((3, 2), HARMS.items(), strict=True):
            name, content = self.name(label), self.new(STREAM)
            asking = self.begin_put(name, content)
            self.harmed(harm, count)
            with self.at_once(STALL):
                with contextlib.suppress(Cut):
                    asking.send(content[len(content) // 2 :])
                self.assert_problem(asking.answer(), 503)
            asking.close()
            self.assertEqual(self.versions(name), [])
            self.recover()
            self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_get(self) -> None:
        """Up to two nodes in the middle of a GET: right bytes, and no long pause."""
        name, content = self.name(), self.new(DEEP)
        self.put(name, content)
        for harm in HARMS.values():
            for count in (1, 2):
                asking = self.begin_get(name)
                got = asking.read(2 * PIECE)
                self.harmed(harm, count, first=count)
                with self.at_once():
                    got += asking.read()
                self.assertTrue(got == content)
                asking.close()
                self.recover()

    def test_get_three(self) -> None:
        """Three: right bytes up to where the connection is cut, never a normal end."""
        name, content = self.name(), self.new(DEEP)
        self.put(name, content)
        for harm in HARMS.values():
            asking = self.begin_get(name)
            got = asking.read(PIECE)
            self.harmed(harm, 3, first=1)
            with self.assertRaises(Cut) as caught:
                asking.read()
            got += caught.exception.got
            self.assertLess(len(got), len(content))
            self.assertTrue(content.startswith(got))
            asking.close()
            self.recover()
            self.assert_reads(name, content)

    def begin_get(self, name: str) -> Asking:
        """Ask, and take the head; the socket holds little."""
        asking = self.asking(receive_buffer=1 << 16)
        asking.head("GET", f"/objects/{name}", (), -1)
        self.assertEqual(asking.begin(), 200)
        return asking


class BackTests(NodeCase):
    """Nodes that come back, join, or are taken for another."""

    def test_stopped_for_a_while(self) -> None:
        """What was written without a node, large and small, lies on it later."""
        self.harmed(Service.kill, 1, first=5)
        stored = []
        for number in range(20):
            name, content = self.name(str(number)), self.new(SMALL + number)
            self.put(name, content, api=number % 2)
            stored.append((name, content))
        self.recover()
        for name, content in stored:
            self.until_whole(content)
            self.assert_reads(name, content)

    def test_emptied(self) -> None:
        """A node that comes back without its disk gets its shards again by reads."""
        stored = list(self.both())
        node = self.cluster.data[2]
        self.assertEqual(node.stop(), -15)
        identity = node.node
        shutil.rmtree(node.root / "objects")
        node.start()
        node.wait()
        self.assertEqual(node.node, identity)
        for name, content in stored:
            self.assert_reads(name, content)
        for _, content in stored:
            self.until_whole(content)

    def test_seventh(self) -> None:
        """A seventh node is used soon after its ready line."""
        seventh = self.cluster.add_data()
        self.addCleanup(self.leave, seventh)
        seventh.start()
        seventh.wait()
        self.until(lambda: self.state(seventh, 0) == "up", "it is seen")
        self.until_up()
        hashes: set[str] = set()
        for number in range(30):
            content = self.new(SMALL)
            self.put(self.name(str(number)), content, api=number % 2)
            hashes.add(sha256(content))
        content = self.new(LARGE)
        there = {path.name[:64] for path in (seventh.root / "objects").rglob("*.*")}
        self.assertTrue(there & hashes, "nothing was stored on it")
        # With seven, one that is gone leaves six: nothing is degraded.
        self.cluster.data[0].kill()
        with self.at_once():
            self.put(self.name("large"), content)
        self.assertEqual(len(self.shards(content)), 6)

    def leave(self, node: Service) -> None:
        """The node goes for good; the others are told nothing."""
        self.cluster.remove(node)
        self.cluster.revive()
        self.until_up()

    def test_copied_root(self) -> None:
        """A copy of a live node's root ends at once with one line; nothing changes."""
        stored = list(self.both())
        node = self.cluster.data[0]
        copy = self.cluster.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(node.root, copy)
        child = self.child("ostore-data", "copy", self.cluster.node_words(copy))
        line = self.assert_refuses(child, node.node, "copy", secrets=())
        self.assertIn("ostore-data", line)
        self.assertEqual(self.state(node), "up")
        for name, content in stored:
            self.assert_reads(name, content)

    def test_same_root(self) -> None:
        """A second process on the same root ends at once with one line."""
        node = self.cluster.data[0]
        child = self.child("ostore-data", "same", self.cluster.node_words(node.root))
        self.assert_refuses(child, "storage-root", secrets=())
        self.assertEqual(self.state(node), "up")

    def test_another_cluster(self) -> None:
        """A node of another cluster gets nothing, and readiness tells of it."""
        root = self.cluster.folder / "foreign"
        shutil.rmtree(root, ignore_errors=True)
        words = self.cluster.node_words(root)
        first = self.child("ostore-data", "foreign", words)
        [(_, node)] = first.nodes()
        self.until(lambda: self.state_of(node) == "up", "it is taken in")
        first.terminate()
        first.ended()
        self.rename_cluster(root)
        child: Child = self.child("ostore-data", "foreign", words)
        child.nodes()
        self.until(lambda: self.state_of(node) == "conflict", "it is not ours")
        self.until(lambda: "another cluster" in self.reasons(1), "it is told")
        before = sorted((root / "objects").rglob("*.*"))
        for number in range(10):
            content = self.new(SMALL if number else LARGE)
            self.put(self.name(str(number)), content, api=number % 2)
            self.assertTrue(self.whole(content))
        self.assertEqual(sorted((root / "objects").rglob("*.*")), before)
        child.terminate()
        child.ended()
        self.until(lambda: "another cluster" not in self.reasons(1), "it is forgotten")

    def rename_cluster(self, root: Path) -> None:
        """Let a stopped node's root bear the id of another cluster."""
        path = root / "node.json"
        said = json.loads(path.read_text())
        path.write_text(json.dumps({**said, "cluster": "another-cluster"}))

    def state_of(self, node: str) -> str:
        """The state of any node by its id."""
        return str(self.view().get(node, {}).get("state", ""))
