"""`ostore pack` against a real service."""

from __future__ import annotations

import io
import random
import zipfile

from tests.cli.support import ServiceTestCase
from tests.support.standalone import some_bytes


class PackTests(ServiceTestCase):
    """put, ls, get."""

    def test_many_small(self) -> None:
        """1,000 files of 1 KiB are one object, and each comes back."""
        chance = random.Random(3)
        files = {f"d/{n % 10}/{n}": chance.randbytes(1024) for n in range(1000)}
        for name, content in files.items():
            self.file(f"in/{name}", content)
        result = self.done("pack", "put", "in", "p.zip")
        self.assertIn("packed 1000 files -> p.zip@", result.out)
        self.assertEqual(self.done("ls", "-r").out, "p.zip\n")
        self.assertEqual(len(self.done("pack", "ls", "p.zip").out.splitlines()), 1000)
        self.done("pack", "get", "p.zip", "--to", "out")
        for name, content in files.items():
            self.assertEqual((self.folder / "out" / name).read_bytes(), content)
        self.done("pack", "get", "p.zip", "d/7/997", "--to", "one")
        found = [path for path in (self.folder / "one").rglob("*") if path.is_file()]
        self.assertEqual([path.name for path in found], ["997"])
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(list((self.folder / "home").rglob("*.pack")), [])

    def test_facts(self) -> None:
        """Ls knows sizes, times and SHA-256; get keeps times and what may be run."""
        path = self.file("in/run", b"#!/bin/sh\n" * 100)
        path.chmod(0o755)
        self.done("pack", "put", "--compress", "zstd", "in", "p.zip")
        (item,) = self.done("pack", "ls", "--json", "p.zip").items
        self.assertEqual(
            (item["member"], item["size"], item["how"]), ("run", 1000, "zstd")
        )
        self.assertLess(item["stored"], 100)
        self.assertIn("zstd     run", self.done("pack", "ls", "-l", "p.zip").out)
        self.done("pack", "get", "p.zip", "--to", "out")
        found = (self.folder / "out/run").stat()
        self.assertEqual(found.st_mode & 0o100, 0o100)
        self.assertEqual(int(found.st_mtime), int(path.stat().st_mtime))
        self.assertEqual(
            self.done("pack", "get", "p.zip", "run", "--to", "-").raw,
            b"#!/bin/sh\n" * 100,
        )

    def test_globs_and_misuse(self) -> None:
        """Globs choose on both ways; what is not there is status 3."""
        for name in ("a.txt", "b.tmp", "x/c.txt"):
            self.file(f"in/{name}", name.encode())
        self.done("pack", "put", "--exclude=*.tmp", "in", "p.zip")
        self.assertEqual(self.done("pack", "ls", "p.zip").out, "a.txt\nx/c.txt\n")
        self.done("pack", "get", "p.zip", "--include=/x/", "--to=out")
        self.assertFalse((self.folder / "out/a.txt").exists())
        self.assertTrue((self.folder / "out/x/c.txt").exists())
        self.assertEqual(self.ostore("pack", "get", "p.zip", "nix").status, 3)
        self.assertEqual(self.ostore("pack", "ls", "nix").status, 3)
        self.assertEqual(self.ostore("pack", "get", "p.zip", "--to=-").status, 2)
        self.assertEqual(self.ostore("pack", "put", "nix", "p").status, 2)
        self.done("put", "-", "no", stdin=b"1")
        self.assertEqual(self.ostore("pack", "ls", "no").status, 1)

    def test_large_member(self) -> None:
        """Members above a chunk are streamed; the pack is sent in pieces when large."""
        content = some_bytes(3_000_000)
        self.file("in/large", content)
        self.file("in/small", b"1")
        for how in ("none", "zstd"):
            self.done("pack", "put", "--threshold=1MiB", f"--compress={how}", "in", "p")
            self.done("pack", "get", "p", "--to=out")
            self.assertEqual((self.folder / "out/large").read_bytes(), content)

    def test_damaged(self) -> None:
        """A damaged member is status 4, leaves no file, and keeps no other back."""
        self.file("in/a", b"a" * 1000)
        self.file("in/b", b"b" * 1000)
        self.file("in/c", b"c" * 1000)
        self.done("pack", "put", "in", "p")
        wrong = bytearray(self.done("cat", "p").raw)
        wrong[wrong.index(b"bbb") + 100] ^= 1
        self.done("put", "-", "p", stdin=bytes(wrong))
        result = self.ostore("pack", "get", "p", "--to=out")
        self.assertEqual(result.status, 4)
        self.assertIn("b: damaged in the pack", result.err)
        names = sorted(path.name for path in (self.folder / "out").iterdir())
        self.assertEqual(names, ["a", "c"])
        wrong[-1] ^= 1
        self.done("put", "-", "p", stdin=bytes(wrong))
        result = self.ostore("pack", "ls", "p")
        self.assertEqual((result.status, result.out), (0, "a\nb\nc\n"))
        self.assertIn("its index is damaged", result.err)

    def test_unsafe_names(self) -> None:
        """A zip whose names lead out of the folder writes nothing there."""
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as zip:
            zip.writestr("../out", b"1")
            zip.writestr("/root", b"1")
            zip.writestr("fine", b"1")
        self.done("put", "-", "evil", stdin=raw.getvalue())
        self.assertEqual(self.ostore("pack", "get", "evil", "--to=in").status, 1)
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        self.assertEqual([path.name for path in files], ["fine"])

    def test_empty(self) -> None:
        """A folder without files is a pack without members."""
        (self.folder / "in").mkdir()
        self.done("pack", "put", "in", "p")
        self.assertEqual(self.done("pack", "ls", "p").out, "")
        self.done("pack", "get", "p", "--to=out")
