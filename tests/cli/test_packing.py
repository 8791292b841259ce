"""Packs as bytes: standard zips, read in part, and read when damaged."""

from __future__ import annotations

import hashlib
import io
import random
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.backoff import Backoff
from ostore.cli.failures import Damaged, Failure, Unreachable
from ostore.cli.packing import records
from ostore.cli.packing.fields import Broken
from ostore.cli.packing.reading import Pack, opened
from ostore.cli.packing.records import STORED, ZSTD, Member
from ostore.cli.packing.writing import Packer
from ostore.cli.remote import Remote
from ostore.cli.target import Landing

NAME = st.text("ab/é", min_size=1, max_size=5).filter(
    lambda name: all(part for part in name.split("/"))
)
CONTENT = st.one_of(st.binary(max_size=200), st.builds(bytes, st.integers(0, 3000)))
FILES = st.dictionaries(NAME, CONTENT, max_size=6).filter(
    lambda files: not any(f"{a}/" == b[: len(a) + 1] for a in files for b in files)
)
WIDE = st.integers(0, 1 << 40)
MEMBER = st.builds(
    Member,
    name=st.text(min_size=1, max_size=50).filter(lambda name: name[-1] != "/"),
    size=WIDE,
    stored=WIDE,
    crc=st.integers(0, (1 << 32) - 1),
    method=st.sampled_from([STORED, ZSTD]),
    offset=WIDE,
    modified=st.integers(315_532_800, (1 << 31) - 1),
    mode=st.integers(0, 0o777),
    hash=st.none() | st.binary(min_size=32, max_size=32),
)


class FakeAnswer:
    """One range of the bytes."""

    def __init__(
        self, code: int, headers: dict[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        self._cut = cut
        self.code = code
        self._headers = headers
        self._body = io.BytesIO(body)

    def header(self, name: str) -> str | None:
        """As Answer has it."""
        return self._headers.get(name)

    def number(self, name: str) -> int | None:
        """As Answer has it."""
        return int(self._headers[name]) if name in self._headers else None

    @property
    def headers(self) -> dict[str, str]:
        """As Answer has it."""
        return self._headers

    def into(self, buffer: memoryview) -> int:
        """As Answer has it."""
        count = self._body.readinto(buffer)
        if self._cut and not count:
            raise Unreachable("cut")
        return count

    def read(self, _: int) -> bytes:
        """As Answer has it."""
        return self._body.read()

    def close(self) -> None:
        """As Answer has it."""


class FakeClient:
    """Serves one object; notes which ranges were asked for, and may not have some."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []
        self.backoff = Backoff(attempts=2)
        self.holes: list[int] = []
        self.cuts = False

    def once(
        self, _: str, __: str, headers: Mapping[str, str], **___: object
    ) -> FakeAnswer:
        """One answer."""
        size, whole = len(self.content), self.content
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers["Range"])
        assert match
        if not whole:
            return FakeAnswer(416, {}, b"")
        if match[1]:
            first, end = int(match[1]), int(match[2]) + 1
        else:
            first, end = max(0, size - int(match[2])), size
        hole = min((h for h in self.holes if first <= h < end), default=None)
        if hole is not None and not self.cuts:
            raise Unreachable("refused")
        self.asked.append((first, end))
        found = {
            "ETag": f'"{hashlib.sha256(whole).hexdigest()}"',
            "X-Ostore-Version": "1",
            "Content-Length": str(end - first),
            "Content-Range": f"bytes {first}-{end - 1}/{size}",
        }
        return FakeAnswer(206, found, whole[first : hole or end], cut=hole is not None)

    ask = once

    def pause(self, failed: int, error: Failure) -> None:
        """As Client has it."""
        if failed >= self.backoff.attempts:
            raise error


def reading(content: bytes) -> tuple[FakeClient, Pack]:
    """The pack that these bytes are."""
    client = FakeClient(content)
    return client, opened(cast("Remote", _Remote(client)), "pack", None)


class _Remote:
    def __init__(self, client: FakeClient) -> None:
        self.client = client


def packed(files: Mapping[str, bytes], *, zstd: bool = False) -> bytes:
    """A pack of these files."""
    folder = Path(tempfile.mkdtemp(prefix="ostore-pack-"))
    try:
        with Landing(folder / "pack") as landing:
            packer = Packer(landing, zstd=zstd)
            for name, content in sorted(files.items()):
                path = folder / "in" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                packer.add(path, name)
            packer.finish()
            return landing.part.read_bytes()
    finally:
        shutil.rmtree(folder)


def contents(pack: Pack) -> dict[str, bytes | None]:
    """Every member's content; None for one that is damaged."""
    found: dict[str, bytes | None] = {}
    for content in pack.contents(pack.members):
        try:
            found[content.member.name] = b"".join(content.chunks())
        except (Damaged, Unreachable):
            found[content.member.name] = None
    return found


def some(count: int, size: int) -> dict[str, bytes]:
    """Files that do not compress."""
    chance = random.Random(count)
    return {f"{n:05}": chance.randbytes(size) for n in range(count)}


class RecordTests(SynchronousTestCase):
    """The records of a zip."""

    @given(MEMBER, st.booleans())
    @settings(deadline=None)
    def test_member(self, member: Member, large: bool) -> None:
        """Headers and index give back what was written, sizes of 64 bits too."""
        head = records.local(member, large=large)
        self.assertEqual(records.local_size(head), len(head))
        self.assertEqual(records.local_name(head), member.name)
        found, size = records.read_local(head + b"more", member.offset)
        self.assertEqual(size, len(head))
        self.assertEqual((found.size, found.stored), (member.size, member.stored))
        self.assertEqual((found.hash, found.crc), (member.hash, member.crc))
        index = records.central(member)
        self.assertEqual(list(records.read_index(index, 1)), [member])

    @given(st.integers(0, 1 << 20), WIDE, st.integers(0, 1 << 33))
    @settings(deadline=None)
    def test_end(self, count: int, offset: int, size: int) -> None:
        """The end gives back where the index is."""
        tail = records.end(count, offset, size, "ab")
        found = records.read_end(tail, offset + size + len(tail))
        self.assertEqual(
            (found.count, found.offset, found.size, found.hash, found.own),
            (count, offset, size, "ab", len(tail)),
        )

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=300)
    def test_noise(self, noise: bytes) -> None:
        """Any bytes are read, or are Broken."""
        end = records.end(1, 0, len(noise), "x")
        for what in (
            lambda: list(records.read_index(records.CENTRAL + noise, 2)),
            lambda: records.read_local(records.LOCAL + noise, 0),
            lambda: records.read_end(noise + records.END + noise, 999),
            lambda: records.read_end(noise + end[: len(end) // 2] + noise, 999),
        ):
            try:
                what()
            except Broken:
                continue

    def test_many(self) -> None:
        """More members than 65535, as zipfile reads them."""
        heads, index, count = bytearray(), bytearray(), 66_000
        for n in range(count):
            member = Member(f"{n}", 0, 0, 0, STORED, len(heads), 1_600_000_000, 0, None)
            heads += records.local(member)
            index += records.central(member)
        whole = bytes(heads + index + records.end(count, len(heads), len(index), "x"))
        with zipfile.ZipFile(io.BytesIO(whole)) as found:
            self.assertEqual(len(found.namelist()), count)


class PackTests(SynchronousTestCase):
    """Whole packs."""

    @given(FILES, st.booleans())
    @settings(deadline=None, max_examples=50)
    def test_round_trip(self, files: dict[str, bytes], zstd: bool) -> None:
        """What was packed comes out; stored members also with zipfile."""
        content = packed(files, zstd=zstd)
        _, pack = reading(content)
        self.assertTrue(pack.whole)
        self.assertEqual(contents(pack), files)
        with zipfile.ZipFile(io.BytesIO(content)) as zip:
            self.assertEqual(zip.namelist(), sorted(files))
            if not zstd:
                self.assertIsNone(zip.testzip())

    def test_same_bytes(self) -> None:
        """The same files in the same order give the same bytes."""
        self.assertEqual(hash_of(), hash_of())

    @given(FILES, st.booleans(), st.data())
    @settings(deadline=None, max_examples=100)
    def test_damage(
        self, files: dict[str, bytes], zstd: bool, data: st.DataObject
    ) -> None:
        """A wrong byte hides at most the member that it is in, and never passes."""
        content = packed({**files, "zz": b"content"}, zstd=zstd)
        files = {**files, "zz": b"content"}
        at = data.draw(st.integers(0, len(content) - 1))
        wrong = bytearray(content)
        wrong[at] ^= data.draw(st.integers(1, 255))
        _, sound = reading(content)
        offsets = sorted(member.offset for member in sound.members.values())
        hit = {
            member.name
            for member in sound.members.values()
            if member.offset == max(o for o in offsets if o <= at)
        }
        ends = records.read_end(content, len(content)).offset
        if at < len(records.LOCAL) or at >= ends:
            hit = hit if at < ends else set()
        _, pack = reading(bytes(wrong))
        found = contents(pack)
        for name, plain in files.items():
            if name in hit:
                self.assertIn(found.get(name), (plain, None))
            else:
                self.assertEqual(found.get(name), plain, (name, at, len(content)))

    @given(st.integers(0, 20_000))
    @settings(deadline=None, max_examples=30)
    def test_cut(self, size: int) -> None:
        """Of a pack that was cut, whole members can still be read."""
        files = some(10, 2000)
        content = packed(files)[:size]
        try:
            _, pack = reading(content)
        except Failure:
            self.assertLess(size, 2000)
            return
        found = contents(pack)
        self.assertEqual(found, {name: files[name] for name in found})
        self.assertGreaterEqual(len(found), size // 2200)

    def test_foreign(self) -> None:
        """Zips of other programs are read: deflate, folders, sizes said behind."""
        raw = io.BytesIO()
        # What cannot seek makes zipfile write sizes behind the bytes.
        out = cast("io.BytesIO", _Forward(raw))
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zip:
            zip.writestr("folder/", b"")
            zip.writestr("folder/a", b"a" * 10_000)
            zip.writestr("b", b"b", zipfile.ZIP_STORED)
            zip.comment = b"of another"
        _, pack = reading(raw.getvalue())
        self.assertTrue(pack.whole)
        self.assertEqual(contents(pack), {"folder/a": b"a" * 10_000, "b": b"b"})

    def test_only_ranges(self) -> None:
        """A member costs its own bytes; neighbours come in one request."""
        files = some(100, 40_000)
        client, pack = reading(packed(files))
        self.assertEqual(len(client.asked), 1)
        del client.asked[:]
        (content,) = pack.contents(["00050"])
        self.assertEqual(b"".join(content.chunks()), files["00050"])
        ((first, end),) = client.asked
        self.assertLess(end - first, 41_000)
        del client.asked[:]
        for content in pack.contents(["00001", "00002", "00090"]):
            self.assertEqual(b"".join(content.chunks()), files[content.member.name])
        self.assertEqual(len(client.asked), 2)

    def test_unreadable_part(self) -> None:
        """What the service cannot give hides only the members in it."""
        files = some(30, 40_000)
        for cuts in (False, True):
            client, pack = reading(packed(files))
            client.holes.append(pack.members["00010"].offset + 100)
            client.cuts = cuts
            found = contents(pack)
            self.assertEqual([n for n in found if found[n] is None], ["00010"])
            self.assertLess(len(client.asked), 40)

    def test_no_pack(self) -> None:
        """Other objects are refused, and read no further."""
        for content in (b"", b"x", b"x" * 1_000_000):
            client = FakeClient(content)
            with self.assertRaisesRegex(Failure, "no pack"):
                opened(cast("Remote", _Remote(client)), "pack", None)
            self.assertLess(sum(b - a for a, b in client.asked), 300_000)

    def test_bomb(self) -> None:
        """A member that becomes longer than it says is given up."""
        content = bytearray(packed({"a": bytes(3_000_000)}, zstd=True))
        at = content.index(records.CENTRAL)
        content[at + 24 : at + 28] = (10).to_bytes(4, "little")
        del content[content.rindex(records.COMMENT) :]
        content[-2:] = b"\0\0"
        _, pack = reading(bytes(content))
        self.assertEqual(pack.members["a"].size, 10)
        self.assertEqual(contents(pack), {"a": None})


class _Forward(io.RawIOBase):
    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # enough for zipfile
        return self._out.write(data)


def hash_of() -> str:
    """The SHA-256 of a pack whose files are always as old."""
    import os  # noqa: PLC0415  # of this function alone

    folder = Path(tempfile.mkdtemp(prefix="ostore-pack-"))
    try:
        (folder / "a").write_bytes(b"a")
        os.utime(folder / "a", (5, 5))
        with Landing(folder / "pack") as landing:
            packer = Packer(landing, zstd=False)
            packer.add(folder / "a", "a")
            packer.finish()
            return hashlib.sha256(landing.part.read_bytes()).hexdigest()
    finally:
        shutil.rmtree(folder)
