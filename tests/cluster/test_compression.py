"""Contents that shrink take less of every disk, and come back as they were."""

from __future__ import annotations

import json
import shutil
from random import Random

from tests.support.standalone import NODES, StandaloneCase, files_below, some_bytes


def log_lines(size: int) -> bytes:
    """JSON such as a service writes, one object a line."""
    rng = Random(7)
    lines = []
    total = 0
    while total < size:
        line = json.dumps(
            {
                "time": f"2026-01-02T03:04:{rng.randrange(60):02d}Z",
                "level": rng.choice(("info", "warning")),
                "path": f"/objects/some/name/{rng.randrange(100)}",
                "status": rng.choice((200, 200, 200, 404)),
                "seconds": rng.randrange(1000) / 1000,
            }
        ).encode()
        lines.append(line)
        total += len(line) + 1
    return b"\n".join(lines)[:size]


class CompressionCase(StandaloneCase):
    """Counts the bytes below objects/."""

    def stored(self) -> int:
        """Bytes of all shards."""
        return sum(
            path.stat().st_size
            for n in NODES
            for path in files_below(self.root / "nodes" / str(n) / "objects")
        )


class CompressionTests(CompressionCase):
    """The default: zstd."""

    async def test_logs(self) -> None:
        """All six shards of a log together are smaller than the log."""
        log = log_lines(3_500_000)
        await self.put("log", log)
        self.assertLess(self.stored(), 0.35 * len(log))
        await self.assert_reads("log", log)
        got = await self.ask(
            "GET", "/objects/log", (("Range", "bytes=2097100-2097200"),)
        )
        self.assertEqual(got.body, log[2097100:2097201])

    async def test_two_folders_gone(self) -> None:
        """It comes back from any four of its shards."""
        log = log_lines(2_500_000)
        await self.put("log", log)
        for number in (1, 4):
            shutil.rmtree(self.root / "nodes" / str(number))
        await self.assert_reads("log", log)

    async def test_noise(self) -> None:
        """What does not shrink takes at most 2 % more than without compression."""
        noise = some_bytes(3_500_000)
        await self.put("noise", noise)
        self.assertLess(self.stored(), 1.02 * 1.5 * len(noise))
        await self.assert_reads("noise", noise)

    async def test_mixed(self) -> None:
        """Each stripe is judged by itself."""
        mixed = log_lines(1 << 20) + some_bytes(1 << 20) + log_lines(1 << 20)
        await self.put("mixed", mixed)
        self.assertLess(self.stored(), 0.7 * 1.5 * len(mixed))
        await self.assert_reads("mixed", mixed)

    async def test_known_to_be_compressed(self) -> None:
        """A compressed type is not tried; the same content is stored once all the same."""
        text = log_lines(500_000)
        await self.put("a", text, (("Content-Type", "application/zip"),))
        whole = self.stored()
        self.assertGreater(whole, 1.4 * len(text))
        await self.put("b", text)
        self.assertEqual(self.stored(), whole)
        await self.assert_reads("b", text)


class OffTests(CompressionCase):
    """`compression = none`."""

    options = {"compression": "none"}  # noqa: RUF012 - as the case has it

    async def test_off(self) -> None:
        """All is stored as it is; what was compressed before stays readable."""
        await self.fall()
        log = log_lines(1_500_000)
        await self.rise(compression="zstd")
        await self.put("before", log)
        await self.fall()
        before = self.stored()
        await self.rise()
        await self.put("after", log[1:])
        self.assertGreater(self.stored() - before, 1.4 * len(log))
        await self.assert_reads("before", log)
        await self.assert_reads("after", log[1:])
