"""sync, cp, restore, find and du against a real service."""

from __future__ import annotations

import json
import os

from tests.cli.support import ServiceTestCase
from tests.support.standalone import some_bytes


class SyncTests(ServiceTestCase):
    """Folder and prefix."""

    def names(self) -> list[str]:
        """What the service has."""
        return [item["name"] for item in self.done("ls", "-r", "--json").items]

    def actions(self, *words: str) -> list[tuple[str, str]]:
        """What a sync did, in the order of names."""
        items = self.done("sync", "--json", *words).items
        return sorted((item["action"], item["name"]) for item in items)

    def tree(self, folder: str) -> dict[str, bytes]:
        """A folder's files."""
        top = self.folder / folder
        return {
            path.relative_to(top).as_posix(): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
        }

    def test_there_and_back(self) -> None:
        """A folder comes back as it was; a second time nothing is done."""
        for name in ("a", "x/b", "x/y/c", "ü ö", "empty"):
            self.file(
                f"d/{name}", some_bytes(len(name) * 999) if name != "empty" else b""
            )
        first = self.ostore("sync", "d", "p")
        self.assertEqual(first.status, 0)
        self.assertIn("5 copied, 0 deleted, 0 the same", first.err)
        self.assertEqual(len(self.names()), 5)
        self.assertEqual(self.actions("d", "p/"), [])
        self.ostore("sync", "--download", "e", "p/")
        self.assertEqual(self.tree("e"), self.tree("d"))
        self.assertEqual(self.actions("--download", "e", "p/"), [])
        self.assertEqual(self.leftovers(), [])

    def test_only_what_differs(self) -> None:
        """Size and SHA-256 decide, not times."""
        for name in ("same", "other", "longer"):
            self.file(f"d/{name}", b"12")
        self.ostore("sync", "d", "p/")
        os.utime(self.folder / "d/same", (1, 1))
        self.file("d/other", b"34")
        self.file("d/longer", b"123")
        done = [("put", "p/longer"), ("put", "p/other")]
        self.assertEqual(self.actions("d", "p/"), done)
        self.assertEqual(self.actions("d", "p/"), [])

    def test_delete_and_dry_run(self) -> None:
        """--delete takes away what the source lacks; --dry-run does nothing."""
        self.file("d/a", b"1")
        self.done("put", "-", "p/gone", stdin=b"1")
        self.done("put", "-", "other", stdin=b"1")
        planned = [("put", "p/a"), ("rm", "p/gone")]
        self.assertEqual(self.actions("--delete", "--dry-run", "d", "p/"), planned)
        self.assertEqual(self.names(), ["other", "p/gone"])
        self.assertEqual(self.actions("--delete", "d", "p/"), planned)
        self.assertEqual(self.names(), ["other", "p/a"])
        self.file("d/x/y/new", b"2")
        planned = [("rm", "p/x/y/new")]
        words = ("--download", "--delete", "d", "p/")
        self.assertEqual(self.actions("-n", *words), planned)
        self.assertEqual(set(self.tree("d")), {"a", "x/y/new"})
        self.assertEqual(self.actions(*words), planned)
        self.assertEqual(
            sorted(path.name for path in (self.folder / "d").iterdir()), ["a"]
        )

    def test_globs(self) -> None:
        """What the globs leave out is touched on neither side."""
        for name in ("a.raw", "b.tmp", "x/c.raw", "x/d.jpg"):
            self.file(f"d/{name}", name.encode())
        self.done("put", "-", "p/old.tmp", stdin=b"1")
        self.done("put", "-", "p/old.raw", stdin=b"1")
        words = ("--include", "*.raw", "--exclude", "/x/", "--delete", "d", "p/")
        self.assertEqual(
            self.actions(*words), [("put", "p/a.raw"), ("rm", "p/old.raw")]
        )
        self.assertEqual(self.names(), ["p/a.raw", "p/old.tmp"])

    def test_folder_and_file_change_places(self) -> None:
        """A file comes where a folder was, and a folder where a file was."""
        for name in ("p/a", "p/b/c"):
            self.done("put", "-", name, stdin=b"1")
        self.file("d/a/deep", b"2")
        self.file("d/b", b"2")
        self.ostore("sync", "--download", "--delete", "d", "p/")
        self.assertEqual(self.tree("d"), {"a": b"1", "b/c": b"1"})

    def test_names_that_no_file_can_have(self) -> None:
        """Names that lead out of the folder are left out, and told."""
        for name in ("p/../out", "p//x", "p/a/../b", "p/ok", "p/ok/below"):
            self.done("put", "-", "--to", name, stdin=b"1")
        result = self.ostore("sync", "--download", "d", "p/")
        self.assertEqual(result.status, 1)
        self.assertEqual(self.tree("d"), {"ok/below": b"1"})
        self.assertEqual([path.name for path in self.folder.iterdir()], ["d"])
        self.assertIn("4 failed", result.err)

    def test_through_a_link(self) -> None:
        """Links are passed over, and nothing is written through one."""
        self.file("real/inside", b"1")
        (self.folder / "d").mkdir()
        (self.folder / "d/link").symlink_to(self.folder / "real")
        (self.folder / "d/one").symlink_to(self.folder / "real/inside")
        result = self.ostore("sync", "d", "p/")
        self.assertEqual(self.names(), [])
        self.assertIn("link: passed over: a symbolic link", result.err)
        self.done("put", "-", "p/link/inside", stdin=b"2")
        self.assertEqual(self.ostore("sync", "--download", "d", "p/").status, 1)
        self.assertEqual(self.tree("real"), {"inside": b"1"})

    def test_compressed(self) -> None:
        """Compressed, the plain size and SHA-256 still decide; equal files do no harm."""
        for name in ("a", "b", "c", "d", "e"):
            self.file(f"d/{name}", b"the same line\n" * 5000)
        self.file("d/large", b"another line\n" * 500_000)
        for name in ("empty", "also"):
            self.file(f"d/{name}", b"")
        self.ostore("sync", "--compress=zstd", "d", "p/")
        self.assertLess(self.done("stat", "--json", "p/large").items[0]["size"], 50_000)
        self.assertEqual(self.actions("--compress=zstd", "d", "p/"), [])
        self.assertEqual(self.actions("d", "p/"), [])
        self.ostore("sync", "--download", "e", "p/")
        self.assertEqual(self.tree("e"), self.tree("d"))
        self.assertEqual(list((self.folder / "home").rglob("*.zst")), [])

    def test_misuse(self) -> None:
        """No folder, and --delete of everything, are refused."""
        self.assertEqual(self.ostore("sync", "nix", "p/").status, 2)
        self.file("d/a", b"1")
        self.assertEqual(self.ostore("sync", "--delete", "d", "").status, 2)
        (self.folder / "d/bad").symlink_to("nowhere")
        self.assertEqual(self.ostore("sync", "d", "p").status, 0)

    def test_one_fails(self) -> None:
        """A file that cannot be sent does not stop the others."""
        self.file("d/a", b"1")
        self.file(f"d/{'x' * 250}", b"2")
        result = self.ostore("sync", "d", "p" * 1000 + "/")
        self.assertEqual(result.status, 2)
        self.assertEqual(self.names(), ["p" * 1000 + "/a"])


class CopyTests(ServiceTestCase):
    """cp and restore."""

    def test_copy(self) -> None:
        """Content and headers are those of the version that was named."""
        for content in (b"one", b"two"):
            self.done("put", "-", "a", "--meta=k=v", stdin=content)
        *_, old, _ = self.done("versions", "--json", "a").items
        self.done("cp", "a", "x/")
        self.done("cp", "--version", f"{old['version']}", "a", "ü?&%41#")
        self.assertEqual(self.done("cat", "x/a").raw, b"two")
        self.assertEqual(self.done("cat", "ü?&%41#").raw, b"one")
        self.assertEqual(
            self.done("stat", "--json", "x/a").items[0]["metadata"], {"k": "v"}
        )
        self.assertEqual(self.ostore("cp", "nix", "y").status, 3)
        self.assertEqual(self.ostore("cp", "--if-absent", "a", "x/a").status, 1)
        self.assertEqual(self.ostore("cp", "a/", "y/").status, 1)

    def test_restore(self) -> None:
        """An old version becomes the newest, also after rm."""
        for content in (b"one", b"two"):
            self.done("put", "-", "r@1", stdin=content)
        number = self.done("versions", "--json", "r@1").items[0]["version"]
        self.done("rm", "r@1")
        self.done("restore", f"r@1@{number}")
        self.assertEqual(self.done("cat", "r@1").raw, b"one")
        self.assertEqual(self.ostore("restore", "r@1@999").status, 3)
        self.assertEqual(self.ostore("restore", "r").status, 2)
        self.assertEqual(self.ostore("restore", "r@0").status, 2)


class FindTests(ServiceTestCase):
    """find and du."""

    def setUp(self) -> None:
        """Some names."""
        super().setUp()
        for name, size in (("t/a.raw", 2000), ("t/u/b.raw", 10), ("t/u/c.txt", 10)):
            self.done("put", "-", name, stdin=b"x" * size)

    def test_find(self) -> None:
        """All that is asked must fit."""
        self.assertEqual(self.done("find", "--name=*.raw").out, "t/a.raw\nt/u/b.raw\n")
        self.assertEqual(self.done("find", "t/u/", "--name=*.raw").out, "t/u/b.raw\n")
        self.assertEqual(self.done("find", "--larger=1KiB").out, "t/a.raw\n")
        self.assertEqual(
            self.done("find", "--smaller=11", "-0").raw, b"t/u/b.raw\0t/u/c.txt\0"
        )
        self.assertEqual(self.done("find", "--name=nix").out, "")
        self.assertEqual(self.ostore("find", "--larger=much").status, 2)
        (item,) = self.done("find", "--json", "--larger=1KiB").items
        self.assertEqual((item["name"], item["size"]), ("t/a.raw", 2000))

    def test_age(self) -> None:
        """Ages are those of the newest versions."""
        # The command's clock stands far ahead of the service's.
        self.assertEqual(self.done("find", "--newer=1s").out, "")
        self.assertEqual(len(self.done("find", "--older=1s").out.splitlines()), 3)

    def test_du(self) -> None:
        """Sums a folder; equal contents are stored once."""
        items = self.done("du", "--json").items
        folder, whole = items
        self.assertEqual(folder, {"prefix": "t/", "names": 3, "size": 2020})
        self.assertEqual(
            whole, {"prefix": "", "names": 3, "size": 2020, "stored_once": 2010}
        )
        deep = self.done("du", "-d2", "t/", "--json").items
        self.assertEqual([item["prefix"] for item in deep], ["t/u/", "t/"])
        self.done("put", "-", "t/a.raw", stdin=b"y")
        everything = json.loads(self.done("du", "-a", "-d0", "t/a", "--json").out)
        self.assertGreaterEqual(everything["names"], 2)
        self.assertIn("stored once", self.done("du").out)
