"""Shards as the services that own contents see them."""

from __future__ import annotations

import json
import os
import time

from ostore.backends.nodes.protocol import (
    FRAMES,
    facts_from_json,
    holding_from_json,
    list_from_json,
)
from ostore.model.layouts import ShardFacts, ShardKey
from tests.contracts.shards import Sample, blocks, put, sample
from tests.web.data.serving import (
    ServedNode,
    digest_of,
    shard_target,
    stream,
)

ONE = sample(1, 50_000, stripe=20_000)
SIBLING = sample(1, 50_000, index=3, stripe=20_000)
RECUT = sample(1, 50_000, stripe=30_000)


def content_target(one: Sample) -> str:
    """Where all shards of a content are found."""
    return f"/objects/{one.key.hash}"


class PutTests(ServedNode):
    """`POST …?do=put`: a small shard in one request."""

    async def test_stored(self) -> None:
        """201, and the shard stands with its age."""
        late = int(self.clock.wall() * 1000) + 60_000
        answer = await self.put(ONE, f"&age=70&deadline={late}")
        self.assertEqual((answer.status, answer.body), (201, b""))
        (facts,) = (await self.node.store.find(ONE.key.hash)).shards
        self.assertEqual(facts.key, ONE.key)
        self.assertLess(abs(facts.age - 70), 20)
        found = await blocks(self.node.store, ONE.key)
        self.assertEqual(found, [bytes(frame.block) for frame in ONE.frames])

    async def test_again(self) -> None:
        """The same shard a second time is renewed, also 201."""
        await put(self.node.store, ONE, age=9000)
        self.assertEqual((await self.put(ONE)).status, 201)
        (facts,) = (await self.node.store.find(ONE.key.hash)).shards
        self.assertLess(facts.age, 60)

    async def test_empty(self) -> None:
        """A shard of an empty content has no frames."""
        empty = sample(4, 0)
        self.assertEqual((await self.put(empty)).status, 201)
        self.assertEqual(await blocks(self.node.store, empty.key), [])

    async def test_refused(self) -> None:
        """What contradicts itself, or comes too late, is 400 and stores nothing."""
        body, target = stream(ONE.frames), f"{shard_target(ONE)}?do=put"
        right = {
            "X-Ostore-Layout": ONE.layout.header(),
            "Content-Type": FRAMES,
            "Digest": digest_of(ONE.frames),
        }
        flipped = bytearray(body)
        flipped[-1] ^= 1
        for change, query, sent, slug in (
            ({"Digest": digest_of(ONE.frames[:2])}, "", body, "shard-refused"),
            ({"X-Ostore-Layout": RECUT.layout.header()}, "", body, "shard-refused"),
            ({}, "&deadline=1", body, "shard-refused"),
            ({}, "", body[:-1], "shard-refused"),
            ({}, "", bytes(flipped), "shard-refused"),
            ({}, "", stream(ONE.frames[1:]), "shard-refused"),
            ({}, "", b"", "shard-refused"),
            ({"Digest": "x"}, "", body, "malformed"),
            ({"X-Ostore-Layout": "x"}, "", body, "malformed"),
            ({"X-Ostore-Layout": "k=4; m=2; size=50000"}, "", body, "malformed"),
            ({"Content-Type": "text/plain"}, "", body, "malformed"),
            ({}, f"&layout={ONE.key.layout}", body, "malformed"),
            ({}, "&age=1000000000", body, "malformed"),
            ({}, "&deadline=soon", body, "malformed"),
        ):
            headers = {**right, **change}
            answer = await self.ask("POST", target + query, headers, sent)
            self.assert_problem(answer, 400, slug)
        del right["Digest"]
        answer = await self.ask("POST", target, right, body)
        self.assert_problem(answer, 400, "malformed")
        self.assertEqual(self.node.shard_count, 0)
        self.assertEqual(list(self.root.glob("objects/*/*")), [])
        self.assertFalse(self.temp.exists() and list(self.temp.iterdir()))

    async def test_needs_a_length(self) -> None:
        """A body without Content-Length is 411."""
        headers = {
            "X-Ostore-Layout": ONE.layout.header(),
            "Content-Type": FRAMES,
            "Digest": digest_of(ONE.frames),
            "Transfer-Encoding": "chunked",
        }
        target = f"{shard_target(ONE)}?do=put"
        connection = await self.connected()
        connection.ask("POST", target, self.signed("POST", target, headers))
        self.assert_problem(await connection.answer(), 411, "length-required")

    async def test_too_large(self) -> None:
        """What is not small belongs into a temporary: 413 before the body comes."""
        large = sample(2, 9 << 20)
        headers = {
            "X-Ostore-Layout": large.layout.header(),
            "Content-Type": FRAMES,
            "Digest": digest_of(large.frames),
            "Content-Length": str(len(stream(large.frames))),
            "Expect": "100-continue",
        }
        target = f"{shard_target(large)}?do=put"
        connection = await self.connected()
        connection.ask("POST", target, self.signed("POST", target, headers))
        self.assert_problem(await connection.answer(), 413, "shard-refused")

    async def test_too_many_frames(self) -> None:
        """Nor may tiny frames weigh more in memory than on the wire."""
        many = sample(3, 300, stripe=1)
        self.assert_problem(await self.put(many), 413, "shard-refused")
        self.assertEqual(self.node.shard_count, 0)

    async def test_cut_body(self) -> None:
        """A body that is cut stores nothing."""
        headers = {
            "X-Ostore-Layout": ONE.layout.header(),
            "Content-Type": FRAMES,
            "Digest": digest_of(ONE.frames),
        }
        body, target = stream(ONE.frames), f"{shard_target(ONE)}?do=put"
        connection = await self.connected()
        lines = self.signed("POST", target, headers)
        connection.ask("POST", target, [*lines, ("Content-Length", str(len(body)))])
        connection.send(body[:-1])
        await self.until(lambda: self.site.in_flight == 1)
        await connection.close()
        await self.until(lambda: self.site.in_flight == 0)
        self.assertEqual(self.node.shard_count, 0)

    async def test_full(self) -> None:
        """A node without room is 507."""
        self.node._root.full = True
        self.assert_problem(await self.put(ONE), 507, "node-full")


class AskingTests(ServedNode):
    """What is held of a content."""

    async def test_find(self) -> None:
        """All shards of a content, of every index and layout."""
        answer = await self.ask("GET", content_target(ONE))
        self.assertEqual(
            (answer.status, answer.json()), (200, {"state": "none", "shards": []})
        )
        self.assertEqual(answer.get("content-type"), "application/json")
        for one in (ONE, SIBLING, RECUT):
            await put(self.node.store, one, age=100)
        holding = holding_from_json((await self.ask("GET", content_target(ONE))).json())
        self.assertEqual(holding.state, "have")
        found = {facts.key: facts for facts in holding.shards}
        self.assertEqual(set(found), {ONE.key, SIBLING.key, RECUT.key})
        facts = found[ONE.key]
        self.assertEqual(facts.layout, ONE.layout)
        self.assertEqual(facts.state, "whole")
        self.assertLess(abs(facts.age - 100), 30)
        (path,) = self.root.glob(f"objects/*/{ONE.key.hash}.0.{ONE.key.layout}")
        self.assertEqual(facts.bytes, path.stat().st_size)

    async def test_vanished(self) -> None:
        """What was deleted under the node is not there."""
        await put(self.node.store, ONE)
        (path,) = self.root.glob("objects/*/*")
        path.unlink()
        answer = await self.ask("GET", content_target(ONE))
        self.assertEqual(answer.json(), {"state": "none", "shards": []})

    async def test_list(self) -> None:
        """Pages of everything, in the order of hashes, all of one hash together."""
        samples = [sample(seed, 500) for seed in range(5)]
        for one in (*samples, ONE, SIBLING):
            await put(self.node.store, one)
        keys = {one.key for one in (*samples, ONE, SIBLING)}
        seen: list[ShardFacts] = []
        after, pages = "", 0
        while True:
            answer = await self.ask("GET", f"/shards?after={after}&limit=2")
            page = list_from_json(answer.json())
            seen += page
            pages += 1
            after = answer.json()["next"]
            if after is None:
                break
            self.assertEqual(after, page[-1].hash)
        self.assertEqual({facts.key for facts in seen}, keys)
        self.assertEqual(len(seen), len(keys))
        hashes = [facts.hash for facts in seen]
        self.assertEqual(hashes, sorted(hashes))
        self.assertGreaterEqual(pages, 3)
        whole = await self.ask("GET", "/shards")
        self.assertEqual(len(whole.json()["shards"]), len(keys))
        self.assertIsNone(whole.json()["next"])

    async def test_list_shows_states(self) -> None:
        """What is bad or in garbage is listed as that."""
        await put(self.node.store, ONE)
        await put(self.node.store, SIBLING)
        layout = f"layout={ONE.key.layout}"
        answer = await self.ask("POST", f"{shard_target(ONE)}?do=bad&{layout}")
        self.assertEqual(answer.status, 204)
        await self.ask("DELETE", shard_target(SIBLING))
        shown = list_from_json((await self.ask("GET", "/shards")).json())
        states = {facts.index: facts.state for facts in shown}
        self.assertEqual(states, {0: "bad", 3: "garbage"})


class AgeingTests(ServedNode):
    """Renewal, garbage, condemnation."""

    def age_of(self, one: Sample) -> float:
        """Seconds since the shard's file was renewed."""
        name = f"{one.key.hash}.{one.key.index}.{one.key.layout}"
        (path,) = self.root.glob(f"objects/*/{name}")
        return time.time() - path.stat().st_mtime

    async def test_renew(self) -> None:
        """A new age for every shard of one layout, and for no other."""
        for one in (ONE, SIBLING, RECUT):
            await put(self.node.store, one, age=9000)
        target = f"{content_target(ONE)}?do=renew&layout={ONE.key.layout}"
        holding = holding_from_json((await self.ask("POST", target)).json())
        self.assertEqual({f.key for f in holding.shards}, {ONE.key, SIBLING.key})
        self.assertLess(max(self.age_of(ONE), self.age_of(SIBLING)), 60)
        self.assertGreater(self.age_of(RECUT), 8000)

    async def test_restore(self) -> None:
        """What garbage has comes back."""
        await put(self.node.store, ONE)
        self.assertEqual((await self.ask("DELETE", shard_target(ONE))).status, 204)
        gone = await self.ask("GET", shard_target(ONE))
        self.assert_problem(gone, 404, "shard-missing")
        answer = await self.ask("POST", f"{content_target(ONE)}?do=restore")
        self.assertEqual(holding_from_json(answer.json()).shards[0].key, ONE.key)
        self.assertEqual((await self.ask("GET", shard_target(ONE))).status, 200)

    async def test_delete(self) -> None:
        """Of a content, of an index, of a layout: into garbage; 404 when there is none."""
        everything = (ONE, SIBLING, RECUT)
        for target, gone in (
            (content_target(ONE), everything),
            (shard_target(ONE), (ONE, RECUT)),
            (f"{content_target(ONE)}?layout={ONE.key.layout}", (ONE, SIBLING)),
            (f"{shard_target(ONE)}?layout={RECUT.key.layout}", (RECUT,)),
        ):
            for one in everything:
                await put(self.node.store, one)
            answer = await self.ask("DELETE", target)
            self.assertEqual((answer.status, answer.body), (204, b""))
            left = {f.key for f in (await self.node.store.find(ONE.key.hash)).shards}
            kept = {one.key for one in everything} - {one.key for one in gone}
            self.assertEqual(left, kept)
            again = await self.ask("DELETE", target)
            self.assert_problem(again, 404, "shard-missing")
            await self.node.store.restore(ONE.key.hash)

    async def test_delete_of_bad_ones(self) -> None:
        """A shard that was found rotten can be moved to garbage too."""
        await put(self.node.store, ONE)
        await self.node.store.mark_bad(ONE.key)
        self.assertEqual((await self.ask("DELETE", shard_target(ONE))).status, 204)
        self.assertEqual(self.node.shard_count, 0)

    async def test_check(self) -> None:
        """A shard is read where it lies; a rotten one is 410, and known from then on."""
        await put(self.node.store, ONE)
        target = f"{shard_target(ONE)}?do=check&layout={ONE.key.layout}"
        size = sum(len(frame.block) for frame in ONE.frames)
        answer = await self.ask("POST", target)
        self.assertEqual(
            (answer.status, answer.json()), (200, {"bytes": size, "next": 0})
        )
        (path,) = self.root.glob(f"objects/*/{ONE.key.hash}.0.*")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        self.assert_problem(await self.ask("POST", target), 410, "shard-rotten")
        self.assertEqual((await self.node.store.find(ONE.key.hash)).state, "none")
        wrong = f"{shard_target(ONE)}?do=bad&layout={ONE.key.layout}&first=1"
        self.assert_problem(await self.ask("POST", wrong), 400, "malformed")
        none = f"{shard_target(SIBLING)}?do=check&layout={SIBLING.key.layout}"
        self.assert_problem(await self.ask("POST", none), 404, "shard-missing")

    async def test_delete_of_vanished_ones(self) -> None:
        """What was deleted under the node is not there; the others go."""
        await put(self.node.store, ONE)
        await put(self.node.store, SIBLING)
        (path,) = self.root.glob(f"objects/*/{ONE.key.hash}.0.*")
        path.unlink()
        answer = await self.ask("DELETE", shard_target(ONE))
        self.assert_problem(answer, 404, "shard-missing")
        await put(self.node.store, ONE)
        path.unlink()
        self.assertEqual((await self.ask("DELETE", content_target(ONE))).status, 204)
        self.assertEqual(self.node.shard_count, 0)
        self.assertEqual(len(list(self.root.glob("garbage/*"))), 1)

    async def test_delete_races_a_renewal(self) -> None:
        """A shard that is renewed while it is being deleted stays: 409."""
        await put(self.node.store, ONE)
        condemn = self.node.store.condemn

        async def and_renewed(
            key: ShardKey, age: float = 0.0, epoch: int | None = None
        ) -> str:
            token = await condemn(key)
            await self.node.store.renew(key.hash, key.layout)
            return token

        self.node.store.condemn = and_renewed  # type: ignore[method-assign]  # a race
        answer = await self.ask("DELETE", shard_target(ONE))
        self.assert_problem(answer, 409, "node-refused")
        self.assertEqual(self.node.shard_count, 1)

    async def test_token(self) -> None:
        """With a token it goes only while that condemnation stands."""
        await put(self.node.store, ONE)
        layout = f"layout={ONE.key.layout}"
        condemn = f"{shard_target(ONE)}?do=condemn&{layout}"
        order = f"{shard_target(ONE)}?{layout}&token="
        first = (await self.ask("POST", condemn)).json()["token"]
        second = (await self.ask("POST", condemn)).json()["token"]
        for token in (first, "", "0" * 32):
            answer = await self.ask("DELETE", order + token)
            self.assert_problem(answer, 409, "node-refused")
        renew = f"{content_target(ONE)}?do=renew&{layout}"
        self.assertEqual((await self.ask("POST", renew)).status, 200)
        answer = await self.ask("DELETE", order + second)
        self.assert_problem(answer, 409, "node-refused")
        self.assertEqual(self.node.shard_count, 1)
        third = (await self.ask("POST", condemn)).json()["token"]
        self.assertEqual((await self.ask("DELETE", order + third)).status, 204)
        self.assertEqual(self.node.shard_count, 0)
        answer = await self.ask("POST", condemn)
        self.assert_problem(answer, 404, "shard-missing")

    async def test_token_names_one_shard(self) -> None:
        """A token without index or layout says too little."""
        await put(self.node.store, ONE)
        layout = f"layout={ONE.key.layout}"
        for target in (
            f"{content_target(ONE)}?{layout}&token={'0' * 32}",
            f"{shard_target(ONE)}?token={'0' * 32}",
        ):
            self.assert_problem(await self.ask("DELETE", target), 400, "malformed")
        self.assertEqual(self.node.shard_count, 1)

    async def test_orders_of_the_other_target(self) -> None:
        """A content is not condemned, a shard is not renewed."""
        await put(self.node.store, ONE)
        layout = f"layout={ONE.key.layout}"
        for target in (
            f"{content_target(ONE)}?do=condemn&{layout}",
            f"{content_target(ONE)}?do=bad&{layout}",
            f"{content_target(ONE)}?do=put",
            f"{content_target(ONE)}?do=restore&{layout}",
            content_target(ONE),
            f"{shard_target(ONE)}?do=renew&{layout}",
            f"{shard_target(ONE)}?do=restore",
            f"{shard_target(ONE)}?do=bad",
            f"{shard_target(ONE)}?do=condemn",
            shard_target(ONE),
        ):
            self.assert_problem(await self.ask("POST", target), 400, "malformed")
        self.assertEqual(self.node.store.rotten, 0)

    async def test_disk_failed(self) -> None:
        """A root that cannot be used is 503 for every order."""
        await put(self.node.store, ONE)
        self.node._root.readonly = "the storage root's device is gone"
        layout = f"layout={ONE.key.layout}"
        for method, target in (
            ("POST", "/temp/x"),
            ("POST", f"{content_target(ONE)}?do=renew&{layout}"),
            ("DELETE", shard_target(ONE)),
        ):
            answer = await self.ask(method, target)
            detail = self.assert_problem(answer, 503, "node-unreachable")
            self.assertIn("device is gone", detail)
            self.assertEqual(answer.get("retry-after"), "1")
        self.assert_problem(await self.put(ONE), 503, "node-unreachable")

    async def test_nothing_internal_leaks(self) -> None:
        """No answer shows a path of the machine."""
        await put(self.node.store, ONE)
        (path,) = self.root.glob("objects/*/*")
        path.write_bytes(os.urandom(100))
        for method, target in (
            ("GET", shard_target(ONE)),
            ("GET", content_target(ONE)),
            ("DELETE", shard_target(ONE)),
        ):
            answer = await self.ask(method, target)
            self.assertNotIn(str(self.root).encode(), answer.body)


class FactsTests(ServedNode):
    """The JSON of a shard."""

    async def test_index(self) -> None:
        """`part=index` gives the stripe table, and the facts in a header."""
        await put(self.node.store, ONE)
        answer = await self.ask("GET", f"{shard_target(ONE)}?part=index")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("content-type"), "application/x-ostore-table")
        reader = await self.node.store.open(ONE.key)
        self.assertEqual(answer.body, reader.table.to_bytes())
        await reader.close()
        shown = json.loads(answer.get("x-ostore-facts") or "")
        self.assertEqual(facts_from_json(shown).key, ONE.key)
        self.assertEqual(answer.get("x-ostore-layout"), ONE.layout.header())
        head = await self.ask("HEAD", f"{shard_target(ONE)}?part=index")
        self.assertEqual(head.get("content-length"), str(len(answer.body)))
