"""The core verbs against a real service."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json

from tests.cli.support import ServiceTestCase, shared
from tests.support.standalone import some_bytes

ODD = (
    "-dash",
    "a b",
    "ü/ñ",
    "q?x=1&y#z",
    "100%25",
    "..",
    "a//b",
    "x/../y",
    "tab\there",
)


class CoreTests(ServiceTestCase):
    """put, get, cat, ls, stat, versions, rm."""

    def test_round_trip(self) -> None:
        """A file comes back as it went."""
        content = some_bytes(300_000)
        self.file("a.bin", content)
        self.assertEqual(
            self.done("put", "a.bin").out, "put a.bin -> a.bin@1 (293.0 KiB)\n"
        )
        self.done("get", "a.bin", "b.bin")
        self.assertEqual((self.folder / "b.bin").read_bytes(), content)
        self.assertEqual(self.done("cat", "a.bin").raw, content)
        self.assertEqual(self.done("get", "a.bin", "-").raw, content)
        self.assertEqual(self.leftovers(), [])

    def test_sizes(self) -> None:
        """Nothing, one byte, and more than one piece: all come back exact."""
        for size in (0, 1, 70_000, 1 << 20, (1 << 20) + 1, 3_000_000):
            content = some_bytes(size)
            self.file("s", content)
            self.done("put", "s", "s", "--threshold=64KiB", "--piece=1MiB")
            self.done("get", "s", "t", "--piece=1MiB", "--ranges=3")
            self.assertEqual((self.folder / "t").read_bytes(), content)
            self.assertEqual(self.done("cat", "s", "--piece=1MiB").raw, content)
        self.assertEqual(self.leftovers(), [])

    def test_names(self) -> None:
        """Names with any characters are written, listed and read."""
        for name in ODD:
            self.done("put", "-", "--to", name, stdin=name.encode())
        listed = [item["name"] for item in self.done("ls", "-r", "--json").items]
        self.assertEqual(listed, sorted(ODD, key=str.encode))
        for name in ODD:
            self.assertEqual(self.done("cat", "--", name).raw, name.encode())
            self.assertEqual(
                self.done("stat", "--json", "--", name).items[0]["name"], name
            )
        self.assertIn(r"tab\there", self.done("ls", "-r").out)

    def test_where_files_go(self) -> None:
        """The last word is the name when it ends in a slash or is no file."""
        for name in ("a", "b"):
            self.file(name, name.encode())
        self.done("put", "a", "b", "in/")
        self.done("put", "a", "new")
        self.done("put", "a", "b")
        listed = [item["name"] for item in self.done("ls", "-r", "--json").items]
        self.assertEqual(listed, ["a", "b", "in/a", "in/b", "new"])
        self.done("get", "in/a", "in/b", "out/")
        self.assertEqual((self.folder / "out/b").read_bytes(), b"b")
        self.assertEqual(self.ostore("put", "a", "b", "c").status, 2)
        self.assertEqual(self.ostore("get", "a", "b", "c").status, 2)

    def test_listing(self) -> None:
        """A listing shows one level, or all names; JSON has stable keys."""
        for name in ("t/a", "t/u/b", "z"):
            self.done("put", "-", name, stdin=b"1")
        self.assertEqual(self.done("ls").out, "t/\nz\n")
        self.assertEqual(self.done("ls", "t/").out, "t/a\nt/u/\n")
        self.assertEqual(self.done("ls", "-r").out, "t/a\nt/u/b\nz\n")
        self.assertEqual(self.done("ls", "--limit", "1").out, "t/\n")
        prefix, item = self.done("ls", "--json").items
        self.assertEqual(prefix, {"prefix": "t/"})
        self.assertLessEqual(
            {"name", "version", "size", "hash", "created", "deleted"}, item.keys()
        )
        self.assertRegex(self.done("ls", "-l", "z").out, r"^ +1 B  \S{19}Z  v\d+ +z\n$")

    def test_versions(self) -> None:
        """Each put is a version; rm adds a marker, and rm --version removes one."""
        for content in (b"one", b"two"):
            self.done("put", "-", "v", stdin=content)
        first, second = self.done("versions", "--json", "v").items
        self.assertEqual(second["version"], first["version"] + 1)
        number = str(first["version"])
        self.assertEqual(self.done("cat", "--version", number, "v").raw, b"one")
        self.done("rm", "v")
        self.assertEqual(self.ostore("cat", "v").status, 3)
        self.assertEqual(self.done("cat", "--version", number, "v").raw, b"one")
        self.done("rm", "--version", number, "v")
        self.assertEqual(self.ostore("cat", "--version", number, "v").status, 3)
        self.assertIn("deleted", self.done("versions", "v").out)

    def test_rm_recursive(self) -> None:
        """With -r, rm deletes what begins so; --dry-run only says it."""
        for name in ("d/1", "d/2", "e"):
            self.done("put", "-", name, stdin=b"1")
        self.assertEqual(
            self.done("rm", "-r", "-n", "d/").out, "would rm d/1\nwould rm d/2\n"
        )
        self.done("rm", "-r", "d/")
        self.assertEqual(self.done("ls", "-r").out, "e\n")
        self.assertEqual(self.ostore("rm", "-r", "").status, 2)

    def test_headers(self) -> None:
        """Content type and metadata are kept and shown."""
        self.done(
            "put",
            "-",
            "h",
            "--content-type=text/plain",
            "--meta=Author=Zoe",
            stdin=b"1",
        )
        facts = self.done("stat", "--json", "h").items[0]
        self.assertEqual(facts["headers"]["Content-Type"], "text/plain")
        self.assertEqual(facts["metadata"], {"author": "Zoe"})
        self.assertEqual(facts["sha256"], hashlib.sha256(b"1").hexdigest())
        for name, kind in (
            ("a.html", "text/html"),
            ("a.tar.gz", "application/gzip"),
            ("a", "application/octet-stream"),
            ("data:,x.png", "image/png"),
        ):
            self.done("put", "-", "--to", name, stdin=b"1")
            facts = self.done("stat", "--json", name).items[0]
            self.assertEqual(facts["headers"]["Content-Type"], kind)
        self.assertEqual(self.ostore("put", "-", "h", "--meta=x").status, 2)
        self.assertEqual(self.ostore("put", "-", "h", "--meta=x=a\nb").status, 2)

    def test_if_absent(self) -> None:
        """With --if-absent, put leaves what is there."""
        self.done("put", "-", "once", "--if-absent", stdin=b"1")
        result = self.ostore("put", "-", "once", "--if-absent", stdin=b"2")
        self.assertEqual(result.status, 1)
        self.assertEqual(self.done("cat", "once").raw, b"1")

    def test_not_found(self) -> None:
        """What is not there ends with status 3, and no file is left."""
        for words in (("get", "nix"), ("cat", "nix"), ("stat", "nix"), ("rm", "nix")):
            result = self.ostore(*words)
            self.assertEqual(result.status, 3, words)
            self.assertIn("nix", result.err)
        self.assertEqual(self.ostore("versions", "nix").status, 3)
        self.assertEqual([p.name for p in self.folder.iterdir()], [])
        self.assertEqual(self.ostore("put", "nix").status, 1)

    def test_several_failures(self) -> None:
        """One of several that fails does not stop the others."""
        self.done("put", "-", "there", stdin=b"1")
        result = self.ostore("get", "nix", "there", "out/")
        self.assertEqual(result.status, 3)
        self.assertIn("1 of 2 failed", result.err)
        self.assertEqual((self.folder / "out/there").read_bytes(), b"1")

    def test_compressed(self) -> None:
        """What was compressed before it was sent comes back as it was."""
        content = b"the same line\n" * 100_000
        self.file("log", content)
        sent = self.done("put", "--compress=zstd", "--json", "log").items[0]
        self.assertLess(sent["size"], 10_000)
        self.done("get", "log", "back")
        self.assertEqual((self.folder / "back").read_bytes(), content)
        self.assertEqual(self.done("cat", "log").raw, content)
        self.assertEqual(len(self.done("cat", "--raw", "log").raw), sent["size"])
        self.done("put", "--compress=zstd", "-", "piped", stdin=content)
        self.assertEqual(self.done("cat", "piped").raw, content)
        self.assertEqual(self.leftovers(), [])

    def test_long_stream(self) -> None:
        """Standard input of more than a threshold is sent as it comes."""
        content = some_bytes(2_500_000)
        self.done("put", "--threshold=1MiB", "-", "long", stdin=content)
        self.assertEqual(self.done("cat", "long").raw, content)

    def test_foreign_gzip(self) -> None:
        """A content that another client sent in gzip is undone as well."""
        coded = gzip.compress(b"x" * 5000)
        connection = http.client.HTTPConnection("127.0.0.1", shared())
        self.addCleanup(connection.close)
        connection.request("PUT", "/objects/g", coded, {"Content-Encoding": "gzip"})
        self.assertEqual(connection.getresponse().status, 200)
        self.done("get", "g")
        self.assertEqual((self.folder / "g").read_bytes(), b"x" * 5000)
        self.assertEqual(self.done("cat", "g").raw, b"x" * 5000)
        self.assertEqual(self.done("cat", "--raw", "g").raw, coded)

    def test_quiet(self) -> None:
        """--quiet says nothing of what went well."""
        self.assertEqual(self.done("put", "-q", "-", "n", stdin=b"1").raw, b"")
        self.assertEqual(self.done("rm", "--quiet", "n").raw, b"")

    def test_json_is_one_line(self) -> None:
        """With --json every line of output is an object."""
        self.file("j", b"1")
        for words in (("put", "j"), ("get", "j", "k"), ("stat", "j"), ("rm", "j")):
            (line,) = self.done(words[0], "--json", *words[1:]).raw.splitlines()
            self.assertIsInstance(json.loads(line), dict)
