"""Several ranges in one answer."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from ostore.model.errors import TooFewShards
from tests.support.http import Answer, Cut
from tests.web.serving import Served

CONTENT = bytes(range(256)) * 40


def parts_of(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Range and bytes of each part, as a mail reader sees them."""
    head = f"Content-Type: {answer.get('content-type')}\r\n\r\n".encode()
    message = message_from_bytes(head + answer.body)
    found = []
    for part in message.get_payload():
        assert isinstance(part, Message)
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        kind, where = part["Content-Type"], part["Content-Range"]
        found.append((kind, where, payload))
    return found


class PartsTests(Served):
    """multipart/byteranges (RFC 9110, 14.6)."""

    def setUp(self) -> None:
        """One object of text, so that a mail reader leaves its bytes alone."""
        super().setUp()
        self.text = (b"0123456789abcdef" * 64)[:1000] * 10
        self.store.fill("a", self.text, headers={"content-type": "text/x-plain"})

    async def ranges(self, asked: str) -> Answer:
        """A GET of these ranges."""
        return await self.ask("GET", "/objects/a", {"Range": f"bytes={asked}"})

    async def test_two(self) -> None:
        """Two ranges come as two parts, in the order asked for."""
        for asked in ("0-9,5000-5009", "5000-5009,0-9", "-10,0-0", "0-1,3-4"):
            answer = await self.ranges(asked)
            self.assertEqual(answer.status, 206)
            self.assertEqual(answer.get("content-length"), str(len(answer.body)))
            self.assertIsNone(answer.get("content-range"))
            self.assertTrue(answer.get("digest"))
            parts = parts_of(answer)
            self.assertEqual(len(parts), 2)
            for (kind, where, payload), each in zip(
                parts, asked.split(","), strict=True
            ):
                first, _, last = each.partition("-")
                start = int(first) if first else len(self.text) - int(last)
                stop = int(last) + 1 if first else len(self.text)
                self.assertEqual(kind, "text/x-plain")
                self.assertEqual(where, f"bytes {start}-{stop - 1}/{len(self.text)}")
                self.assertEqual(payload, self.text[start:stop])

    async def test_near_ones_become_one(self) -> None:
        """What overlaps or touches is sent once, as one."""
        for asked in ("0-9,5-19", "0-9,10-19", "10-19,0-9"):
            answer = await self.ranges(asked)
            self.assertEqual(answer.status, 206)
            self.assertEqual(answer.get("content-type"), "text/x-plain")
            length = int(answer.get("content-length") or "")
            self.assertEqual(
                answer.get("content-range"), f"bytes 0-{length - 1}/{len(self.text)}"
            )
            self.assertEqual(answer.body, self.text[:length])

    async def test_no_amplification(self) -> None:
        """However the ranges overlap, no byte of the object is sent twice."""
        asked = ",".join(f"{n}-{n + 150}" for n in range(0, 9000, 150))
        answer = await self.ranges(asked)
        self.assertEqual(answer.status, 206)
        self.assertEqual(len(answer.body), 9001)
        asked = ",".join(["0-199"] * 40)
        answer = await self.ranges(asked)
        self.assertEqual(len(answer.body), 200)

    async def test_neighbours_are_read_in_one_go(self) -> None:
        """Ascending parts cost one stream, so no stripe is read once for each."""
        asked = [(n, n + 3) for n in range(0, 9000, 400)]
        answer = await self.ranges(",".join(f"{a}-{b}" for a, b in asked))
        shown = [(payload, where) for _, where, payload in parts_of(answer)]
        size = len(self.text)
        self.assertEqual(
            shown,
            [(self.text[a : b + 1], f"bytes {a}-{b}/{size}") for a, b in asked],
        )
        self.assertEqual(len(self.store.streams), 1)
        self.assertTrue(self.store.streams[0].closed)

    async def test_pieces_of_any_size(self) -> None:
        """Wherever the pieces of the content end, each part is exact."""
        spans = [(0, 0), (200, 999), (1200, 1200), (3000, 3999), (9990, 9999)]
        asked = ",".join(f"{first}-{last}" for first, last in spans)
        for self.store.piece in (1, 7, 200, 201, 1000, 4096):
            answer = await self.ranges(asked)
            self.assertEqual(
                [payload for _, _, payload in parts_of(answer)],
                [self.text[first : last + 1] for first, last in spans],
            )

    async def test_some_out_of_reach(self) -> None:
        """Ranges behind the end are left out; all of them there is 416."""
        answer = await self.ranges("0-9,20000-20009,5000-5009")
        self.assertEqual(len(parts_of(answer)), 2)
        self.assert_problem(await self.ranges("20000-20009,30000-"), 416)

    async def test_broken_off(self) -> None:
        """An error behind the first byte cuts the connection; before it, it is one."""
        self.store.read_error = TooFewShards("too few")
        self.assert_problem(await self.ranges("0-9,5000-5009"), 503)
        self.store.read_error = None
        self.store.piece = 4
        self.store.fail_after, self.store.stream_error = 8, TooFewShards("too few")
        with self.assertRaises(Cut):
            await self.ranges("0-9,5000-5009")
        self.assertTrue(all(stream.closed for stream in self.store.streams))
