"""Resumable uploads over two apis and six data services that die meanwhile."""

from __future__ import annotations

import time
from itertools import cycle

from tests.live.cases import PATIENCE, LiveCase
from tests.live.client import Answer
from tests.support.standalone import digest

SIZE = (12 << 20) + 77
PIECE = 1_500_000


class UploadTests(LiveCase):
    """One upload a test."""

    def begin(self, content: bytes, api: int = 0) -> str:
        """Begin one under a name of this test; gives the target of its parts."""
        headers = [("Size", str(len(content))), digest(content)]
        answer = self.ask("POST", f"/objects/{self.name()}", headers, b"", api)
        self.assertEqual(answer.status, 201, answer.body)
        return answer.headers["location"]

    def part(self, target: str, first: int, content: bytes, api: int = 0) -> Answer:
        """Send one part."""
        return self.ask("PUT", target, [("Range", f"bytes={first}-")], content, api)

    def held(self, target: str, api: int = 0) -> int:
        """How much is held."""
        answer = self.ask("HEAD", target, api=api)
        self.assertEqual(answer.status, 200)
        return int(answer.headers["upload-offset"])

    def end(self, target: str, content: bytes, api: int = 0) -> None:
        """Send all that is missing, however often it has to be tried."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self.ask("HEAD", target, api=api)
            if answer.status == 404:
                break
            if answer.status == 200:
                held = int(answer.headers["upload-offset"])
                self.part(target, held, content[held : held + 4 * PIECE], api)
            self.assertLess(time.monotonic(), deadline, answer)
        outcome = self.part(target, len(content), b"", api)
        self.assertEqual((outcome.status, outcome.json()["version"]), (200, 1))
        self.assert_reads(self.name(), content)
        self.assertEqual(len(self.versions(self.name())), 1)

    def test_two_apis_in_turn(self) -> None:
        """Each part by another api, and each says what the other took."""
        content, at = self.new(SIZE), 0
        target, apis = self.begin(content), cycle((0, 1))
        while at < len(content):
            api = next(apis)
            answer = self.part(target, at, content[at : at + PIECE], api)
            self.assertEqual(answer.status, 200, answer.body)
            at = int(answer.headers["upload-offset"])
            if at < len(content):
                self.assertEqual(self.held(target, 1 - api), at)
        self.assert_reads(self.name(), content)
        self.until_whole(content)
        self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_api_dies(self) -> None:
        """An api is killed in the middle of a part: the other goes on, exact."""
        content = self.new(SIZE)
        target = self.begin(content)
        self.part(target, 0, content[:PIECE])
        asking = self.asking()
        asking.head("PUT", target, [("Range", f"bytes={PIECE}-")], SIZE - PIECE)
        asking.send(content[PIECE:-1000])
        self.assert_problem(self.part(target, PIECE, content[PIECE:], 1), 409)
        self.cluster.apis[0].kill()
        self.assertGreaterEqual(self.held(target, 1), PIECE)
        self.cluster.apis[0].start()
        self.cluster.apis[0].wait()
        self.until_up()
        self.end(target, content, 1)

    def test_data_service_dies(self) -> None:
        """One is killed between two parts, and another in the next one: it goes on."""
        content = self.new(SIZE)
        target = self.begin(content)
        self.part(target, 0, content[:PIECE])
        self.cluster.data[2].kill()
        answer = self.part(target, PIECE, content[PIECE : 2 * PIECE])
        self.assertEqual(answer.status, 200, answer.body)
        self.cluster.data[2].start()
        self.cluster.data[2].wait()
        self.until_up()
        self.cluster.data[4].kill()
        self.end(target, content, 1)
        self.cluster.data[4].start()
        self.cluster.data[4].wait()
        self.until_up()
        self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_forged(self) -> None:
        """A token that was changed is 403 at every api."""
        target = self.begin(b"content")
        forged = target[:-3] + ("A" if target[-3] != "A" else "B") + target[-2:]
        for api in (0, 1):
            for method in ("HEAD", "PUT", "DELETE"):
                self.assertEqual(self.ask(method, forged, (), b"", api).status, 403)
        self.assertEqual(self.ask("DELETE", target, api=1).status, 204)
        self.assertEqual(self.ask("HEAD", target).status, 404)
