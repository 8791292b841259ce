"""Who may ask a node: everything else is 401, and nothing is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ostore.backends.nodes.protocol import FRAMES
from ostore.model.signing import Caller
from tests.contracts.shards import put, sample
from tests.support.http import Answer
from tests.web.data.serving import (
    SECRET,
    ServedNode,
    digest_of,
    shard_target,
    stream,
)

ONE = sample(1, 2500, stripe=1000)
OTHER = sample(2, 2500, stripe=1000)

Lines = list[tuple[str, str]]


def changed(lines: Lines, name: str, value: str | None) -> Lines:
    """The headers with one of them changed; None takes it away."""
    kept = [each for each in lines if each[0].lower() != name.lower()]
    return kept if value is None else [*kept, (name, value)]


class SignatureTests(ServedNode):
    """Every order that would change something, signed in every wrong way."""

    async def prepared(self) -> str:
        """A node that holds a shard and half a temporary; its uuid."""
        await put(self.node.store, ONE, age=9000)
        uuid = await self.create(size=625)
        await self.patch(uuid, 0, stream(OTHER.frames[:1]))
        return uuid

    def orders(self, uuid: str) -> list[tuple[str, str, dict[str, str], bytes]]:
        """Method, target, headers and body of everything that changes something."""
        target, layout = shard_target(ONE), ONE.key.layout
        content = f"/objects/{ONE.key.hash}"
        described = {
            "X-Ostore-Layout": OTHER.layout.header(),
            "Digest": digest_of(OTHER.frames),
            "Content-Type": FRAMES,
        }
        append = {"Upload-Offset": "250", "Content-Type": FRAMES}
        return [
            ("POST", f"/temp/x?uuid={'7' * 32}", {"Size": "5"}, b""),
            ("PATCH", f"/temp/{uuid}", append, stream(OTHER.frames[1:])),
            ("PUT", f"/temp/{uuid}?as={OTHER.key.hash}.0", described, b""),
            ("DELETE", f"/temp/{uuid}", {}, b""),
            (
                "POST",
                f"{shard_target(OTHER)}?do=put",
                described,
                stream(OTHER.frames),
            ),
            ("POST", f"{target}?do=condemn&layout={layout}", {}, b""),
            ("POST", f"{target}?do=bad&layout={layout}", {}, b""),
            ("POST", f"{content}?do=renew&layout={layout}", {}, b""),
            ("POST", f"{content}?do=restore", {}, b""),
            ("DELETE", target, {}, b""),
            ("DELETE", content, {}, b""),
            ("POST", "/cluster-id?id=ours&epoch=1", {}, b""),
        ]

    async def refused(
        self, spoil: Callable[[Lines], Lines], slug: str = "unsigned"
    ) -> None:
        """Each order, its headers spoilt after signing, is 401 and changes nothing."""
        uuid = await self.prepared()
        before, temporaries = self.files_below(), len(self.node.store.temporaries)
        orders = self.orders(uuid)
        for method, target, headers, body in orders:
            lines = spoil(self.signed(method, target, headers))
            answer = await self.send(method, target, lines, body)
            self.assert_problem(answer, 401, slug)
            self.assertEqual(answer.get("www-authenticate"), "OSTORE1")
        self.assertUntouched(before, temporaries)
        self.assertEqual(self.guard.refused, len(orders))

    def assertUntouched(self, before: dict[str, bytes], temporaries: int) -> None:
        """Nothing happened, on the disk or in memory."""
        self.assertEqual(self.files_below(), before)
        self.assertEqual(len(self.node.store.temporaries), temporaries)
        self.assertEqual(self.node.store.rotten, 0)
        self.assertEqual(self.node.cluster, "")
        (path,) = Path(self.root / "objects").rglob("*.*.*")
        self.assertGreater(time.time() - path.stat().st_mtime, 8000)

    async def test_unsigned(self) -> None:
        """No signature at all."""
        await self.refused(lambda lines: changed(lines, "Authorization", None))

    async def test_another_secret(self) -> None:
        """The right form with a secret of somebody else's."""
        stranger = Caller("test", b"x" * 32, self.clock.wall, os.urandom)
        uuid = await self.prepared()
        before, temporaries = self.files_below(), len(self.node.store.temporaries)
        for method, target, headers, body in self.orders(uuid):
            proof = stranger.headers(self.host, method, self.host, target, headers)
            lines = [("Host", self.host), *headers.items(), *proof.items()]
            self.assert_problem(
                await self.send(method, target, lines, body), 401, "unsigned"
            )
        self.assertUntouched(before, temporaries)

    async def test_parts_left_out(self) -> None:
        """Date and nonce belong to it."""
        await self.refused(lambda lines: changed(lines, "X-Ostore-Date", None))

    async def test_another_nonce(self) -> None:
        """A nonce that was not signed."""
        await self.refused(lambda lines: changed(lines, "X-Ostore-Nonce", "0" * 32))

    async def test_another_host(self) -> None:
        """A request that was signed for another node."""

        def spoil(lines: Lines) -> Lines:
            return changed(lines, "Host", "127.0.0.1:1")

        await self.refused(spoil)

    async def test_signed_for_another_node(self) -> None:
        """A request that another node of the cluster would take."""
        uuid = await self.prepared()
        before, temporaries = self.files_below(), len(self.node.store.temporaries)
        for method, target, headers, body in self.orders(uuid):
            proof = self.caller.headers("x", method, "127.0.0.1:1", target, headers)
            lines = [("Host", "127.0.0.1:1"), *headers.items(), *proof.items()]
            answer = await self.send(method, target, lines, body)
            self.assert_problem(answer, 401, "unsigned")
        self.assertUntouched(before, temporaries)

    async def test_stale(self) -> None:
        """Signed two minutes ago, or for in two minutes: told which clock counts."""
        uuid = await self.prepared()
        before, temporaries = self.files_below(), len(self.node.store.temporaries)
        now = 0.0
        for offset in (-120, 120):
            self.caller.told(self.host, self.clock.wall() + offset)
            for method, target, headers, body in self.orders(uuid):
                answer = await self.ask(method, target, headers, body)
                self.assert_problem(answer, 401, "wrong-time")
                now = float(answer.get("x-ostore-now") or 0)
                self.assertLess(abs(now - time.time()), 60)
                boot = self.node.boot
                shown = f"{boot.counter}-{boot.random}"
                self.assertEqual(answer.get("x-ostore-boot"), shown)
        self.assertUntouched(before, temporaries)
        self.caller.told(self.host, now)
        self.assertEqual((await self.ask("GET", "/node")).status, 200)

    async def test_replayed(self) -> None:
        """The same request a second time, byte for byte."""
        uuid = await self.prepared()
        target = f"/temp/{uuid}"
        headers = {"Upload-Offset": "250", "Content-Type": FRAMES}
        lines = self.signed("PATCH", target, headers)
        body = stream(OTHER.frames[1:2])
        self.assertEqual((await self.send("PATCH", target, lines, body)).status, 204)
        before = self.files_below()
        answer = await self.send("PATCH", target, lines, body)
        self.assert_problem(answer, 401, "unsigned")
        self.assertEqual(self.files_below(), before)

    async def test_swapped(self) -> None:
        """Another method, target, size, offset or digest than was signed."""
        uuid = await self.prepared()
        before, temporaries = self.files_below(), len(self.node.store.temporaries)
        append = {"Upload-Offset": "250", "Content-Type": FRAMES}
        body = stream(OTHER.frames[1:])
        signed = self.signed("PATCH", f"/temp/{uuid}", append)
        answers: list[Answer] = [
            await self.send(
                "PATCH", f"/temp/{uuid}", changed(signed, "Upload-Offset", "0"), body
            ),
            await self.send("PATCH", f"/temp/{'7' * 32}", signed, body),
            await self.send("DELETE", f"/temp/{uuid}", signed),
        ]
        sized = self.signed("POST", "/temp/x", {"Size": "5"})
        for size in ("5000", "05", None):
            lines = changed(sized, "Size", size)
            answers.append(await self.send("POST", "/temp/x", lines))
        described = {
            "X-Ostore-Layout": OTHER.layout.header(),
            "Digest": digest_of(OTHER.frames),
            "Content-Type": FRAMES,
        }
        target = f"{shard_target(OTHER)}?do=put"
        signed = self.signed("POST", target, described)
        for digest in (digest_of(ONE.frames), None):
            lines = changed(signed, "Digest", digest)
            answers.append(await self.send("POST", target, lines, body))
        answers.append(await self.send("POST", f"{target}&age=9", signed, body))
        for answer in answers:
            self.assert_problem(answer, 401, "unsigned")
        self.assertUntouched(before, temporaries)

    async def test_swapped_bodies(self) -> None:
        """A body that somebody exchanged is refused by its digest: nothing is named."""
        before = self.files_below()
        headers = {
            "X-Ostore-Layout": OTHER.layout.header(),
            "Digest": digest_of(OTHER.frames),
            "Content-Type": FRAMES,
        }
        frames = (*OTHER.frames[:2], ONE.frames[2])
        target = f"{shard_target(OTHER)}?do=put"
        answer = await self.ask("POST", target, headers, stream(frames))
        self.assert_problem(answer, 400, "shard-refused")
        self.assertEqual(self.files_below(), before)
        uuid = await self.create()
        await self.patch(uuid, 0, stream(frames))
        answer = await self.commit(
            uuid, OTHER.key, OTHER.layout.header(), digest_of(OTHER.frames)
        )
        self.assert_problem(answer, 400, "shard-refused")
        self.assertEqual(list(self.root.glob("objects/*/*")), [])

    async def test_reads_are_signed_too(self) -> None:
        """Without a signature nothing is told either, known or not."""
        uuid = await self.prepared()
        targets = (
            shard_target(ONE),
            f"/objects/{ONE.key.hash}",
            f"/temp/{uuid}",
            "/shards",
            "/node",
            "/nothing",
            "/objects/../../etc/passwd",
            "*",
        )
        for target in targets:
            answer = await self.send("GET", target, [("Host", self.host)])
            self.assert_problem(answer, 401, "unsigned")

    async def test_a_refused_body_is_drained(self) -> None:
        """The answer comes before the body, and the connection serves another."""
        connection = await self.connected()
        lines = [("Host", self.host), ("Content-Length", "100000")]
        connection.ask("PATCH", f"/temp/{'7' * 32}", lines)
        self.assert_problem(await connection.answer(), 401, "unsigned")
        connection.send(bytes(100_000))
        connection.ask("GET", "/node", self.signed("GET", "/node"))
        self.assertEqual((await connection.answer()).status, 200)

    async def test_no_continue_for_strangers(self) -> None:
        """Who expects 100 Continue gets the refusal instead."""
        connection = await self.connected()
        lines = [
            ("Host", self.host),
            ("Content-Length", "100000"),
            ("Expect", "100-continue"),
        ]
        connection.ask("PATCH", f"/temp/{'7' * 32}", lines)
        self.assert_problem(await connection.answer(), 401, "unsigned")

    async def test_second_secret(self) -> None:
        """Any line of the secret file is good: secrets are changed without a stop."""
        self.guard._secrets = (b"y" * 32, SECRET)
        self.assertEqual((await self.ask("GET", "/node")).status, 200)

    async def test_nothing_secret_in_the_log(self) -> None:
        """The access log has neither macs nor nonces."""
        lines = self.signed("GET", "/node")
        await self.send("GET", "/node", lines)
        await self.send("GET", "/node", lines)
        given = dict(lines)
        mac = given["Authorization"].rpartition(":")[2]
        self.assertEqual([line["status"] for line in self.lines], [200, 401])
        self.assertNotIn(mac, repr(self.lines))
        self.assertNotIn(given["X-Ostore-Nonce"], repr(self.lines))


class NodeIdTests(ServedNode):
    """`X-Ostore-Node`."""

    async def test_in_every_answer(self) -> None:
        """Every answer says which node, its time and its boot."""
        told = {"x-ostore-node", "x-ostore-now", "x-ostore-boot"}
        targets = ("/node", "/health/live", "/health/ready", "/metrics", "/nothing")
        for target in (*targets, "/shards?limit=0", "/temp/" + "8" * 32):
            answer = await self.ask("GET", target)
            self.assertLessEqual(told, {name for name, _ in answer.headers}, target)
            self.assertEqual(answer.get("x-ostore-node"), self.node.node_id)

    async def test_meant_for_us(self) -> None:
        """A request that names this node is served."""
        meant = {"X-Ostore-Node": self.node.node_id}
        self.assertEqual((await self.ask("GET", "/node", meant)).status, 200)

    async def test_meant_for_another(self) -> None:
        """One that names another node is 421, and nothing is done."""
        before = self.files_below()
        for meant in ("0" * 32, "", "x"):
            headers = {"X-Ostore-Node": meant, "Size": "5"}
            answer = await self.ask("POST", "/temp/x", headers)
            self.assert_problem(answer, 421, "other-node")
        self.assertEqual(self.files_below(), before)
        self.assertEqual(len(self.node.store.temporaries), 0)
