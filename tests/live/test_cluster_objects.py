"""Storing, reading and deleting, over two apis and six data services."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

from tests.live.cases import LiveCase
from tests.support.standalone import digest, sha256

FIRST, SECOND = b"this is object test3", b"this is object test3 version 2"
FIRST_DIGEST = "GYqqAdFPt+CScnUDc0/Gcu3kwcWmOADKNYpiZtdbgsM="
SECOND_DIGEST = "cAPvsxZe1PR54zIESQy0BaxC1pYJIvaHSF3qEOZYYIo="
LARGE = (5 << 20) + 3


def said(digest: str) -> tuple[tuple[str, str], ...]:
    """The header that promises it."""
    return (("Digest", f"SHA-256={digest}"),)


class StoryTests(LiveCase):
    """What a user does first, each step at another api than the one before."""

    def test_1_nothing(self) -> None:
        """What was never stored is a 404; what was is read with its length."""
        self.assert_problem(self.get("test"), 404)
        self.assertEqual(self.versions("test"), [])
        content = b"this is a test object"
        self.put("test", content, api=1)
        answer = self.get("test")
        self.assertEqual((answer.status, answer.body), (200, content))
        self.assertEqual(answer.headers["content-length"], "21")

    def test_2_another_api(self) -> None:
        """One api stores, the other reads; locate names six nodes by their address."""
        content = b"this is object test2"
        self.put("test2", content, api=1)
        self.assertEqual(self.get("test2", api=0).body, content)
        located = self.ask("GET", f"/locate/{sha256(content)}", api=1)
        self.assertEqual(located.status, 200)
        self.assertEqual(set(located.json()), set("012345"))
        places = {f"127.0.0.1:{each.port}" for each in self.cluster.data}
        self.assertEqual(set(located.json().values()), places)

    def test_3_versions(self) -> None:
        """Two versions and a marker, listed in order, old ones read by number."""
        name = "test3"
        wrong = self.ask("PUT", f"/objects/{name}", said("incorrect"), FIRST, 1)
        self.assert_problem(wrong, 400)
        self.assertEqual(self.versions(name), [])
        self.put(name, FIRST, said(FIRST_DIGEST), api=1)
        self.assertEqual(self.get(name, api=0).body, FIRST)
        self.put(name, SECOND, said(SECOND_DIGEST), api=0)
        for api in (0, 1, 0, 1):
            self.assertEqual(self.get(name, api=api).body, SECOND)
        for hash in (FIRST_DIGEST, SECOND_DIGEST):
            for api in (0, 1):
                located = self.ask("GET", f"/locate/{quote(hash, safe='')}", api=api)
                self.assertEqual((located.status, len(located.json())), (200, 6))
        listed = [(v["version"], v["size"], v["hash"]) for v in self.versions(name, 1)]
        self.assertEqual(listed, [(1, 20, FIRST_DIGEST), (2, 30, SECOND_DIGEST)])
        self.assert_reads(name, FIRST, 1)
        gone = self.ask("DELETE", f"/objects/{name}", api=0)
        self.assertEqual((gone.status, gone.json()["deleted"]), (200, True))
        for api in (0, 1):
            answer = self.get(name, api=api)
            self.assert_problem(answer, 404)
            self.assertEqual(answer.headers["x-ostore-delete-marker"], "true")
            self.assert_problem(self.get(name, 3, api), 404)
            last = self.versions(name, api)[-1]
            self.assertEqual((last["version"], last["size"], last["hash"]), (3, 0, ""))
        self.assert_reads(name, FIRST, 1)
        self.assert_reads(name, SECOND, 2)
        again = self.ask("DELETE", f"/objects/{name}", api=1)
        self.assert_problem(again, 404)

    def test_4_stored_once(self) -> None:
        """A second name for a content adds a version and no shard; a lie adds nothing."""
        content = b"this object will have only 1 instance"
        lie = said(b64encode(b"\0" * 32).decode())
        for headers in (said("incorrecthash"), lie):
            refused = self.ask("PUT", "/objects/test4_1", headers, content)
            self.assert_problem(refused, 400)
            self.assertEqual(self.shards(content), {})
            self.assertEqual(self.temporaries(), [])
            self.assertEqual(self.versions("test4_1"), [])
        self.put("test4_1", content, [digest(content)], api=0)
        before = self.shards(content)
        self.assertTrue(self.whole(content))
        self.put("test4_2", content, [digest(content)], api=1)
        self.assertEqual(self.shards(content), before)
        for name in ("test4_1", "test4_2"):
            self.assert_reads(name, content)
            self.assertEqual(
                [(v["version"], v["size"]) for v in self.versions(name)], [(1, 37)]
            )

    def test_4_large_stored_once(self) -> None:
        """So with a large one, sent to both apis; no temporary stays."""
        content = self.new(LARGE)
        self.put(self.name("a"), content, api=0)
        before = self.shards(content)
        self.put(self.name("b"), content, api=1)
        self.assertEqual(self.shards(content), before)
        self.assertEqual(self.temporaries(), [])
        self.assert_reads(self.name("b"), content)

    def test_5_shards(self) -> None:
        """Six shards on six nodes; one deleted and one overwritten are put back."""
        small = b"this object will be separate to 4+2 shards"
        for label, content in (("small", small), ("large", self.new(LARGE))):
            name = self.name(label)
            self.put(name, content, api=0)
            self.assertTrue(self.whole(content))
            kept = {
                i: paths[0].read_bytes() for i, paths in self.shards(content).items()
            }
            paths = {index: paths[0] for index, paths in self.shards(content).items()}
            paths[0].unlink()
            paths[3].write_bytes(b"some_garbage")
            self.assert_reads(name, content)
            self.until_whole(content)

            def same(content: bytes = content, kept: dict[int, bytes] = kept) -> bool:
                found = self.shards(content)
                return {i: p[0].read_bytes() for i, p in found.items()} == kept

            self.until(same, "the shards as they were")
            self.assert_reads(name, content)

    def test_5_three_lost(self) -> None:
        """Three shards lost: 503 and no byte; one back on a started node: whole again."""
        for label, size in (("small", 42), ("large", LARGE)):
            name, content = self.name(label), self.new(size)
            self.put(name, content)
            paths = {index: paths[0] for index, paths in self.shards(content).items()}
            for index in (0, 1, 4):
                paths[index].rename(paths[index].with_name("aside"))
            for api in (0, 1):
                self.assert_problem(self.get(name, api=api), 503)
            paths[1].with_name("aside").rename(paths[1])
            [home] = [s for s in self.cluster.data if s.root in paths[1].parents]
            home.stop()
            home.start()
            home.wait()
            self.assert_reads(name, content)
            self.until_whole(content)

    def test_listing(self) -> None:
        """Both apis list what either stored, a moment later at most."""
        names = [self.name(f"{number:02}") for number in range(10)]
        for number, name in enumerate(names):
            self.put(name, self.new(), api=number % 2)
        prefix = quote(self.name(""), safe="")

        def listed(api: int) -> list[str]:
            page = self.ask("GET", f"/objects/?prefix={prefix}", api=api).json()
            return [each["name"] for each in page["items"]]

        self.until(lambda: listed(0) == listed(1) == names, "all names")
