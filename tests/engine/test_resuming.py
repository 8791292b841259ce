"""Resumable uploads: what was acknowledged stays, and every end is the exact object."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from ostore.engine.beginning import Begun
from ostore.engine.referring import PutRequest
from ostore.engine.resuming import Progress, Resuming
from ostore.model.conditions import WriteCondition
from ostore.model.errors import (
    ClientGone,
    ConditionFailed,
    DigestMismatch,
    MetadataUnavailable,
    NodeFull,
    NodeUnreachable,
    NoSpace,
    NotFound,
    OstoreError,
    Refused,
    TooFewNodes,
)
from ostore.model.resuming import Busy, Paused, TooMuch, WrongPart
from ostore.model.tokens import Forged, Tokens
from ostore.model.versions import Version
from tests.support.engine import (
    MIB,
    SECRET,
    UPLOADS,
    EngineCase,
    Pieces,
    Rig,
    fails,
    hangs,
    sha256,
    some_bytes,
)

EXPIRY = 60.0
CONTENT = some_bytes(3 * MIB + 77)


class Stuck(Pieces):
    """A body whose client falls silent after the pieces, until `go_on`."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(pieces)
        self.go_on: Deferred[bytes] = Deferred()

    async def read(self) -> bytes:
        """The next piece, or what the client sends at last."""
        return await super().read() or await self.go_on


class UploadCase(EngineCase):
    """Uploads one content; at the end everything expires, and nothing is left."""

    expiry = EXPIRY

    def rise(self, nodes: int = 6, *, mending: bool = False, **options: Any) -> None:
        """With uploads that expire after a minute."""
        super().rise(
            nodes,
            mending=mending,
            **{"upload_expiry": self.expiry, **options},
        )
        self.addCleanup(self.expire)

    def expire(self) -> None:
        """Let all uploads expire; `fall` sees that nothing is left."""
        for rig in self.rigs:
            rig.come_back()
        self.pass_(self.expiry + 65)

    @property
    def uploads(self) -> Resuming:
        """The one api."""
        return self.store.uploads

    def other(self) -> Resuming:
        """Another api, or the same one after a restart: it remembers nothing."""
        return Resuming(self.engine.putting, Tokens([SECRET]), self.expiry)

    def start(self, size: int = len(CONTENT), name: str = "name", **asked: Any) -> str:
        """Begin an upload; gives its token."""
        begun = self.run_(self.store.begin_upload(PutRequest(name, **asked), size))
        assert isinstance(begun, Begun)
        return begun.token

    def part(
        self,
        token: str,
        first: int,
        content: bytes,
        api: Resuming | None = None,
        end: Exception | None = None,
        piece: int = 300_000,
    ) -> Deferred[Progress]:
        """Set a part going."""
        pieces = (content[at : at + piece] for at in range(0, len(content), piece))
        body = Pieces(pieces, end)
        length = None if end else len(content)
        return self.begin((api or self.uploads).part(token, first, body, length))

    def sent(
        self, token: str, first: int, content: bytes, api: Resuming | None = None
    ) -> Progress:
        """Send a part to its end."""
        return self.finish(self.part(token, first, content, api))

    def held(self, token: str, api: Resuming | None = None) -> int:
        """How much is held."""
        return self.run_((api or self.uploads).held(token)).held

    def outcome(
        self, token: str, api: Resuming | None = None, size: int = len(CONTENT)
    ) -> Version:
        """What became of it."""
        progress = self.sent(token, size, b"", api)
        assert progress.version is not None
        return progress.version

    def calls(self, *names: str) -> int:
        """How often these were called on all nodes together."""
        return sum(rig.calls[f"uploads.{name}"] for rig in self.rigs for name in names)

    def assert_kept(self, content: bytes = CONTENT, name: str = "name") -> None:
        """The newest version of the name is that content, in six shards."""
        self.assertEqual(self.run_(self.get(name)), content)
        self.assert_whole(content)


class PartTests(UploadCase):
    """When all goes well."""

    def test_one_part(self) -> None:
        """The whole in one part: a version, shards as of a PUT, and the records alone."""
        self.rise()
        token = self.start(digest=sha256(CONTENT), headers={"content-type": "a/b"})
        self.assertEqual(self.held(token), 0)
        progress = self.sent(token, 0, CONTENT)
        version = progress.version
        assert version is not None
        self.assertEqual((version.number, version.hash), (1, sha256(CONTENT)))
        self.assertEqual(version.headers, {"content-type": "a/b"})
        self.assertEqual(version.degraded, ())
        self.assert_kept()
        for rig in self.rigs:
            (record,) = rig.temporaries()
            self.assertTrue(record.endswith(".upload"))
        again = self.run_(self.put(CONTENT, "again"))
        self.assertEqual(again.hash, version.hash)
        self.assert_kept(name="again")

    def test_borders(self) -> None:
        """However it is cut into parts, and whoever gets them: offsets and the end."""
        self.rise()
        sizes = st.sampled_from([1, 2, MIB - 1, MIB, MIB + 1, 2 * MIB, len(CONTENT)])

        @settings(deadline=None, max_examples=25)
        @given(st.lists(sizes, max_size=6), st.integers(0, 63), st.booleans())
        def send(cuts: list[int], others: int, asking: bool) -> None:
            content = some_bytes(len(CONTENT), others + 1000 * len(cuts))
            token, at, progress = self.start(name="cut"), 0, Progress(0, 0)
            for number, size in enumerate([*cuts, len(content)]):
                api = self.other() if others >> number & 1 else None
                progress = self.sent(token, at, content[at : at + size], api)
                at = min(len(content), at + size)
                self.assertEqual(progress.held, at)
                if at == len(content):
                    break
                if asking:
                    self.assertEqual(self.held(token), at)
            assert progress.version is not None
            self.assertEqual(progress.version.hash, sha256(content))
            self.assertEqual(self.run_(self.get("cut")), content)
            self.assert_whole(content)

        send()

    def test_tiny_parts(self) -> None:
        """Parts of a few bytes make progress, also through a stripe's border."""
        self.rise()
        content = some_bytes(MIB + 20)
        token = self.start(len(content))
        progress = self.sent(token, 0, content[: MIB - 20])
        for at in range(MIB - 20, MIB + 20, 4):
            progress = self.sent(token, at, content[at : at + 4], self.other())
        assert progress.version is not None
        self.assert_kept(content)

    def test_nothing_read_back(self) -> None:
        """Finishing on the api that took all parts in reads nothing from the nodes."""
        self.rise()
        token = self.start()
        for at in range(0, len(CONTENT), 500_000):
            self.sent(token, at, CONTENT[at : at + 500_000])
        self.assertEqual(self.calls("frames", "tail"), 0)
        self.assertEqual(self.uploads.figures()["ostore_uploads_read_back_total"], 0)
        self.assert_kept()

    def test_read_back(self) -> None:
        """Another api reads what it did not take in, once, at the end or before."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[: 2 * MIB + 9])
        other = self.other()
        self.sent(token, 2 * MIB + 9, CONTENT[2 * MIB + 9 :], other)
        self.assertEqual(self.calls("frames"), 4)
        self.assert_kept()

    def test_known_content(self) -> None:
        """A content that is there already is referred to; the temporaries go."""
        self.rise()
        self.run_(self.put(CONTENT, "first"))
        token = self.start()
        self.sent(token, 0, CONTENT)
        self.assert_kept()
        self.assertEqual(self.calls("commit"), 0)

    def test_compressible(self) -> None:
        """Stripes that shrink are stored small, with the layout of a plain PUT."""
        self.rise()
        content = b"the same again " * 200_000
        token = self.start(len(content))
        self.sent(token, 0, content[:1_500_000])
        self.sent(token, 1_500_000, content[1_500_000:], self.other())
        self.assert_kept(content)
        self.run_(self.put(content, "plain"))
        self.assert_kept(content, "plain")

    def test_refused_parts(self) -> None:
        """Parts that begin elsewhere are refused and change nothing."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:100])
        for first in (0, 99, 101, len(CONTENT)):
            error = self.refused(
                WrongPart, self.uploads.part(token, first, Pieces([b"x"]), 1)
            )
            self.assertEqual(error.held, 100)
        self.sent(token, 100, CONTENT[100:])
        self.assert_kept()

    def test_empty_part(self) -> None:
        """A part of nothing is a way to ask, and changes nothing."""
        self.rise()
        token = self.start()
        self.assertEqual(self.sent(token, 0, b"").held, 0)
        self.sent(token, 0, CONTENT[:100])
        self.assertEqual(self.sent(token, 100, b"").held, 100)
        self.sent(token, 100, CONTENT[100:])
        self.assert_kept()

    def test_forged(self) -> None:
        """A token of nobody is refused, and no node is asked."""
        self.rise()
        token = self.start()
        before = [dict(rig.calls) for rig in self.rigs]
        forged = ("A" if token[0] != "A" else "B") + token[1:]
        for api in (self.uploads, self.other()):
            self.refused(Forged, api.held(forged))
            self.refused(Forged, api.part(forged, 0, Pieces([b"x"]), 1))
            self.refused(Forged, api.give_up(forged))
        self.assertEqual([dict(rig.calls) for rig in self.rigs], before)

    def test_cut_part(self) -> None:
        """A part that is cut off keeps what arrived."""
        self.rise()
        token = self.start()
        part = self.part(token, 0, CONTENT[: MIB + 5000], end=ClientGone("gone"))
        self.assertRaises(ClientGone, self.finish, part)
        self.assertEqual(self.held(token), MIB + 5000)
        self.assertEqual(self.held(token, self.other()), MIB + 5000)
        self.sent(token, MIB + 5000, CONTENT[MIB + 5000 :])
        self.assertEqual(self.calls("frames"), 0)
        self.assert_kept()

    def test_held_while_sending(self) -> None:
        """What is told while a part comes in is durable on a quorum.

        The nodes sync before they tell; the writer knows what it had synced.
        """
        self.rise()
        token = self.start(80 * MIB)
        body = Stuck(*[bytes(MIB)] * 70)
        running = self.begin(self.uploads.part(token, 0, body, None))
        self.turn()
        self.assertEqual(self.held(token), 64 * MIB)
        self.assertEqual(self.held(token, self.other()), 70 * MIB)
        body.go_on.callback(b"")
        self.assertEqual(self.finish(running).held, 70 * MIB)


class EndTests(UploadCase):
    """How an upload ends."""

    def test_asked_again(self) -> None:
        """The outcome can be asked until the upload expires; all else is not found."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT)
        self.run_(self.put(b"newer"))
        for api in (self.uploads, self.other()):
            self.assertEqual(self.outcome(token, api).number, 1)
            self.refused(NotFound, api.held(token))
            self.refused(NotFound, api.give_up(token))
            for first, length in ((0, 0), (0, 5), (len(CONTENT), 5)):
                body = Pieces([b"x" * length])
                self.refused(NotFound, api.part(token, first, body, length))
        self.pass_(EXPIRY + 65)
        for api in (self.uploads, self.other()):
            self.refused(NotFound, api.part(token, len(CONTENT), Pieces([]), 0))
        self.assertEqual(self.versions(), [1, 2])

    def test_digest(self) -> None:
        """All bytes are there and are others than promised: nothing is left."""
        self.rise()
        token = self.start(digest=sha256(b"other"))
        self.sent(token, 0, CONTENT[:MIB])
        part = self.part(token, MIB, CONTENT[MIB:])
        self.assertRaises(DigestMismatch, self.finish, part)
        self.assert_nothing()
        self.refused(NotFound, self.uploads.held(token))

    def test_too_much(self) -> None:
        """More bytes than promised, told or not: the upload has ended."""
        self.rise()
        for end in (None, ClientGone("never comes so far")):
            token = self.start(MIB + 9)
            self.sent(token, 0, CONTENT[:MIB])
            part = self.part(token, MIB, CONTENT[MIB : MIB + 10], end=end)
            self.assertRaises(TooMuch, self.finish, part)
            self.assert_nothing()
            self.refused(NotFound, self.other().held(token))

    def test_condition(self) -> None:
        """A condition is looked at in the beginning, and decided at the end."""
        self.rise()
        condition = WriteCondition.parse(None, "*")
        token = self.start(condition=condition)
        self.run_(self.put(b"faster"))
        self.assertRaises(ConditionFailed, self.finish, self.part(token, 0, CONTENT))
        self.refused(NotFound, self.uploads.held(token))
        self.assertEqual(self.versions(), [1])
        request = PutRequest("name", condition=condition)
        self.refused(ConditionFailed, self.store.begin_upload(request, 10))

    def test_give_up(self) -> None:
        """Given up, also while a part comes in: nothing is left."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        self.run_(self.uploads.give_up(token))
        self.assert_nothing()
        self.refused(NotFound, self.uploads.held(token))
        self.refused(NotFound, self.uploads.give_up(token))
        self.refused(NotFound, self.uploads.part(token, MIB, Pieces([b"x"]), 1))

        token = self.start()
        running = self.begin(self.uploads.part(token, 0, Stuck(), None))
        self.turn()
        self.run_(self.uploads.give_up(token))
        self.assertRaises(Busy, self.finish, running)
        self.assert_nothing()

    def test_expiry(self) -> None:
        """It expires a minute after the last part, not after the first."""
        self.rise()
        token = self.start()
        for at in range(3):
            self.sent(token, at * 1000, CONTENT[at * 1000 :][:1000])
            self.pass_(EXPIRY - 10)
            self.assertEqual(self.held(token), (at + 1) * 1000)
        self.pass_(75)
        self.refused(NotFound, self.uploads.held(token))
        self.refused(NotFound, self.uploads.part(token, 3000, Pieces([b"x"]), 1))
        self.assert_nothing()

    def test_metadata_away(self) -> None:
        """No version could be written: the upload stands, and asking goes on with it."""
        self.rise()
        token = self.start()
        self.metadata.rules["add_version"] = fails(MetadataUnavailable("away"))
        part = self.part(token, 0, CONTENT)
        self.assertRaises(OstoreError, self.finish, part)
        self.assertEqual(self.held(token), len(CONTENT))
        self.metadata.rules.clear()
        self.assertEqual(self.outcome(token, self.other()).number, 1)
        self.assert_kept()

    def test_answer_lost_before_the_outcome(self) -> None:
        """The version is written, the nodes do not know it: asking makes no second."""
        self.rise()
        token = self.start()

        def first(_: str, epoch: int, __: str) -> None:
            if epoch == 1:
                raise NodeUnreachable("away")

        for rig in self.rigs:
            rig.rules["uploads.finish"] = first
        self.sent(token, 0, CONTENT)
        self.pass_(5)
        self.assertEqual(self.outcome(token, self.other()).number, 1)
        self.assertEqual(self.outcome(token).number, 1)
        self.assertEqual(self.versions(), [1])
        self.assert_kept()

    def test_slow_end(self) -> None:
        """Reading back that takes long is 202; asked again it gives the version."""
        self.rise()
        content = some_bytes(20 * MIB)
        token = self.start(len(content))
        self.sent(token, 0, content[:-5])
        gate: Deferred[None] = Deferred()
        for rig in self.rigs:
            rig.rules["uploads.frames"] = lambda *_: gate
        other = self.other()
        waited = self.begin(
            other.part(token, len(content) - 5, Pieces([content[-5:]]), 5)
        )
        self.pass_(5)
        asked = self.begin(other.part(token, len(content), Pieces([]), 0))
        self.refused(WrongPart, other.part(token, 0, Pieces([b"x"]), 1))
        self.refused(Busy, other.give_up(token))
        self.assertEqual(self.held(token, other), len(content))
        self.pass_(6)
        self.assertTrue(self.finish(waited).finishing)
        for rig in self.rigs:
            rig.rules.clear()
        gate.callback(None)
        self.assertIsNotNone(self.finish(asked).version)
        self.assertEqual(self.outcome(token, size=len(content)).number, 1)
        self.assert_kept(content)

    def test_idempotency_key(self) -> None:
        """The same key gives the same upload again, and its version once it is done."""
        self.rise()
        one = self.start(put_id="ab" * 16)
        self.sent(one, 0, CONTENT[:MIB])
        two = self.start(put_id="ab" * 16)
        self.assertEqual(self.held(two, self.other()), MIB)
        other_size = PutRequest("name", put_id="ab" * 16)
        self.refused(Refused, self.store.begin_upload(other_size, 5))
        self.sent(two, MIB, CONTENT[MIB:])
        request = PutRequest("name", put_id="ab" * 16)
        made = self.run_(self.store.begin_upload(request, len(CONTENT)))
        assert isinstance(made, Version)
        self.assertEqual(made.number, 1)

    def test_rest_of_a_beginning_that_failed(self) -> None:
        """What a few nodes have is no upload: no token before more of them tell."""
        self.rise()
        request = PutRequest("name", put_id="ab" * 16)
        for rig in self.rigs[:3]:
            rig.rules["uploads.begin"] = fails(NodeUnreachable("broken"))
        for rig in self.rigs[3:]:
            rig.rules["uploads.remove"] = fails(NodeUnreachable("gone"))
        self.refused(TooFewNodes, self.store.begin_upload(request, len(CONTENT)))
        for rig in self.rigs[:3]:
            rig.go()
        self.refused(Paused, self.store.begin_upload(request, len(CONTENT)))

    def test_one_key_at_once(self) -> None:
        """Two begin with one key at once: what one of them began is not removed."""
        self.rise()
        request = PutRequest("name", put_id="ab" * 16)
        both = [
            self.begin(self.store.begin_upload(request, len(CONTENT))) for _ in range(2)
        ]
        tokens = []
        for running in both:
            try:
                begun = self.finish(running)
            except (TooFewNodes, Refused):
                continue
            assert isinstance(begun, Begun)
            tokens.append(begun.token)
        self.assertTrue(tokens)
        for token in tokens:
            self.assertEqual(self.held(token), 0)
        self.sent(tokens[0], 0, CONTENT)
        self.assert_kept()


class RivalTests(UploadCase):
    """Two who write one upload."""

    def stuck(self, token: str, body: Stuck) -> Deferred[Progress]:
        """A part whose client stays silent after these bytes."""
        running = self.begin(self.uploads.part(token, 0, body, None))
        self.turn()
        return running

    def test_one_api(self) -> None:
        """The second of two parts is refused; after 5 silent seconds it takes over."""
        self.rise()
        token = self.start()
        first = self.stuck(token, Stuck(CONTENT[: MIB + 10]))
        self.pass_(4.9)
        error = self.refused(Busy, self.uploads.part(token, 0, Pieces([b"x"]), 1))
        self.assertEqual(error.held, 0)
        self.pass_(0.2)
        error_ = self.refused(WrongPart, self.uploads.part(token, 0, Pieces([b"x"]), 1))
        self.assertEqual(error_.held, MIB + 10)
        self.assertRaises(Busy, self.finish, first)
        self.sent(token, MIB + 10, CONTENT[MIB + 10 :])
        self.assert_kept()
        self.assertEqual(self.uploads.figures()["ostore_uploads_conflicts_total"], 1)

    def test_two_apis(self) -> None:
        """The same between two apis; the old one's next bytes do not get in."""
        self.rise()
        token, other = self.start(), self.other()
        body = Stuck(CONTENT[:MIB])
        first = self.stuck(token, body)
        self.pass_(4.9)
        self.refused(Busy, other.part(token, 0, Pieces([b"x"]), 1))
        self.pass_(0.5)
        # What it took in was never acknowledged, but every node has it.
        self.sent(token, self.held(token, other), CONTENT[MIB : 2 * MIB], other)
        body.go_on.callback(some_bytes(2 * MIB, 99))
        self.assertRaises(Busy, self.finish, first)
        self.assertEqual(self.held(token, other), 2 * MIB)
        self.sent(token, 2 * MIB, CONTENT[2 * MIB :], other)
        self.assert_kept()

    def test_dead_api(self) -> None:
        """An api that died in the middle of a part is replaced after 5 s."""
        self.rise()
        token, other = self.start(), self.other()
        first = self.stuck(token, Stuck(CONTENT[:MIB]))
        self.pass_(1)
        self.refused(Busy, other.part(token, 0, Pieces([b"x"]), 1))
        self.pass_(5)
        held = self.held(token, other)
        self.assertEqual(held, MIB)
        self.sent(token, held, CONTENT[held:], other)
        self.assert_kept()
        first.cancel()
        self.assertRaises(Busy, self.finish, first)

    def test_both_at_once(self) -> None:
        """Two apis that claim at the same time: at most one writes, nothing mixes."""
        self.rise()

        @settings(deadline=None, max_examples=10)
        @given(st.integers(0, 1000), st.lists(st.integers(0, 5), max_size=4))
        def race(seed: int, slow: list[int]) -> None:
            content = some_bytes(2 * MIB, seed)
            token = self.start(len(content), "race")
            for index in slow:
                self.rigs[index].workers.delay = 0.01 * (1 + index)
            apis = [self.other(), self.other()]
            both = [self.part(token, 0, content, api) for api in apis]
            won = 0
            for running in both:
                try:
                    won += self.finish(running).version is not None
                except (Busy, WrongPart, NotFound, Paused):
                    continue
            for rig in self.rigs:
                rig.workers.delay = 0.0
            if not won:
                held = self.held(token)
                self.sent(token, held, content[held:])
            self.assertEqual(self.run_(self.get("race")), content)
            self.assert_whole(content)

        race()


class LossTests(UploadCase):
    """Nodes that go."""

    def gone(self, *rigs: Rig) -> None:
        """Out of reach."""
        for rig in rigs:
            rig.go()

    def of(self, token: str) -> list[Rig]:
        """The nodes of an upload, by index."""
        names = Tokens([SECRET]).open(token).nodes
        by_id = {rig.id[:16]: rig for rig in self.rigs}
        return [by_id[name] for name in names]

    def test_one_goes(self) -> None:
        """Without one node it goes on; the version says which shard is missing."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[: MIB + 9])
        self.gone(self.of(token)[1])
        for api in (self.uploads, self.other()):
            self.assertEqual(self.held(token, api), MIB + 9)
        progress = self.sent(token, MIB + 9, CONTENT[MIB + 9 :])
        assert progress.version is not None
        self.assertEqual(progress.version.degraded, (1,))
        self.assertEqual(self.run_(self.get()), CONTENT)

    def test_one_goes_and_comes_back(self) -> None:
        """What a node had when it went is removed when it is back, soon, not expired."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[: MIB + 9])
        lost = self.of(token)[1]
        self.gone(lost)
        self.sent(token, MIB + 9, CONTENT[MIB + 9 :])
        self.pass_(15)
        self.assertEqual(len(lost.temporaries()), 3)
        self.assertEqual(self.uploads.figures()["ostore_uploads_uncleared"], 1)
        lost.come_back()
        self.pass_(7)
        self.assertEqual(lost.temporaries(), [])
        self.assertEqual(self.uploads.figures()["ostore_uploads_uncleared"], 0)
        self.assertEqual(self.outcome(token, self.other()).number, 1)

    def test_one_goes_at_the_end(self) -> None:
        """A node that did not hear of the end is told when it is back."""
        self.rise()
        token = self.start()
        lost = self.of(token)[1]
        for name in ("finish", "remove"):
            lost.rules[f"uploads.{name}"] = fails(NodeUnreachable("away"))
        self.sent(token, 0, CONTENT)
        self.pass_(15)
        self.assertEqual(len(lost.temporaries()), 2)
        lost.come_back()
        self.pass_(7)
        self.assertEqual(len(lost.temporaries()), 1)
        self.assertEqual(self.outcome(token, self.other()).number, 1)

    def test_replaced_and_back(self) -> None:
        """A node whose shard was begun anew on another one keeps nothing either."""
        self.rise(8)
        token = self.start()
        self.sent(token, 0, CONTENT[: MIB + 9])
        nodes = self.of(token)
        self.gone(*nodes[:2])
        self.sent(token, MIB + 9, CONTENT[MIB + 9 : 2 * MIB])
        for rig in nodes[:2]:
            rig.come_back()
        self.sent(token, 2 * MIB, CONTENT[2 * MIB :], self.other())
        self.pass_(7)
        self.assertEqual([len(rig.temporaries()) for rig in nodes[:2]], [0, 0])
        self.assertEqual(self.run_(self.get()), CONTENT)

    def test_two_go_and_others_are_there(self) -> None:
        """Of eight nodes two go: their shards are built anew, all six are there."""
        self.rise(8)
        for away in ((0, 1), (4, 5), (2, 5)):
            content = some_bytes(3 * MIB + 77, away[0])
            name = f"without {away}"
            token = self.start(name=name)
            self.sent(token, 0, content[: 2 * MIB + 9])
            nodes = self.of(token)
            lost = [nodes[index] for index in away]
            self.gone(*lost)
            self.assertEqual(self.held(token), 2 * MIB + 9)
            progress = Progress(0, 0)
            for at in range(2 * MIB + 9, len(content), 400_000):
                progress = self.sent(
                    token, at, content[at : at + 400_000], self.other()
                )
            assert progress.version is not None
            self.assertLessEqual(len(progress.version.degraded), 1)
            self.assertEqual(self.run_(self.get(name)), content)
            for rig in lost:
                rig.come_back()
            self.pass_(11)
            self.assertEqual(self.run_(self.get(name)), content)
            self.assertEqual(self.outcome(token, self.other(), len(content)).number, 1)

    def test_two_go_and_no_others_are_there(self) -> None:
        """Of six nodes two go: HEAD answers, parts wait; they come back, it goes on."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[: MIB + 9])
        lost = self.of(token)[2:4]
        self.gone(*lost)
        for api in (self.uploads, self.other()):
            self.assertEqual(self.held(token, api), MIB + 9)
            error = self.refused(Paused, api.part(token, MIB + 9, Pieces([b"x"]), 1))
            self.assertIn(error.held, (None, MIB + 9))
        for rig in lost:
            rig.come_back()
        self.pass_(11)
        self.assertEqual(self.held(token), MIB + 9)
        self.sent(token, MIB + 9, CONTENT[MIB + 9 :])
        self.assertEqual(self.run_(self.get()), CONTENT)

    def test_two_go_in_a_part(self) -> None:
        """Two go while bytes come in: 503, nothing acknowledged is lost."""
        self.rise(8)
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        nodes = self.of(token)
        count = 0

        def stop(*_: object) -> None:
            nonlocal count
            count += 1
            if count == 2:
                self.gone(nodes[0], nodes[3])
                raise NodeUnreachable("gone")

        nodes[0].rules["uploads.sink.write"] = stop
        part = self.part(token, MIB, CONTENT[MIB:])
        error = self.failed(Paused, part)
        self.assertEqual(error.held, MIB)
        held = self.held(token)
        self.assertGreaterEqual(held, MIB)
        self.sent(token, held, CONTENT[held:])
        self.assertEqual(self.run_(self.get()), CONTENT)

    def failed(self, kind: type[Paused], running: Deferred[Any]) -> Paused:
        """The error that it ends in."""
        try:
            self.finish(running)
        except kind as error:
            return error
        raise AssertionError("no error")

    def test_too_many_go(self) -> None:
        """Three of six go: nobody can say; they come back and all is there."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        lost = self.of(token)[:3]
        self.gone(*lost)
        self.refused(Paused, self.other().held(token))
        self.refused(Paused, self.other().part(token, MIB, Pieces([b"x"]), 1))
        self.gone(*self.rigs)
        self.refused(Paused, self.other().held(token))
        for rig in self.rigs:
            rig.come_back()
        self.pass_(11)
        self.assertEqual(self.held(token), MIB)

    def test_back_with_less(self) -> None:
        """A node that missed stripes takes part again when it is needed."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        nodes = self.of(token)
        self.gone(nodes[0])
        self.sent(token, MIB, CONTENT[MIB : 2 * MIB + 5])
        nodes[0].come_back()
        self.gone(nodes[1])
        self.pass_(11)
        self.sent(token, 2 * MIB + 5, CONTENT[2 * MIB + 5 :], self.other())
        self.assertEqual(self.run_(self.get()), CONTENT)

    def test_slow_node(self) -> None:
        """A node that hangs is left out of a part after the laggard's time."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        self.of(token)[5].rules["uploads.sink.sync"] = hangs
        progress = self.sent(token, MIB, CONTENT[MIB:])
        assert progress.version is not None
        self.assertEqual(progress.version.degraded, (5,))
        self.assertEqual(self.run_(self.get()), CONTENT)
        self.pass_(4)
        self.assertEqual(self.of(token)[5].temporaries(), [])

    def test_full_nodes(self) -> None:
        """No room: said so, and the upload stands."""
        self.rise()
        token = self.start()
        self.sent(token, 0, CONTENT[:MIB])
        for rig in self.rigs[:3]:
            rig.rules["uploads.sink.write"] = fails(NodeFull("full"))
        self.assertRaises(NoSpace, self.finish, self.part(token, MIB, CONTENT[MIB:]))
        for rig in self.rigs:
            rig.come_back()
        held = self.held(token)
        self.sent(token, held, CONTENT[held:])
        self.assertEqual(self.run_(self.get()), CONTENT)
        for rig in self.rigs:
            rig.rules["uploads.begin"] = fails(NodeFull("full"))
        self.refused(NoSpace, self.store.begin_upload(PutRequest("b"), 10))


class CrashTests(UploadCase):
    """An api that dies at any call to a node."""

    def test_dies_at_every_call(self) -> None:
        """Wherever an api dies, another goes on: at once or after 5 s, and exact."""
        self.rise()
        content = some_bytes(2 * MIB + 500, 5)
        parts = (0, 700_000, 1_500_000, len(content))
        calls = self.upload(content, parts, "whole", None)
        self.assertGreater(calls, 100)
        step = max(1, calls // 60)
        for last in range(0, calls, step):
            self.upload(content + last.to_bytes(2, "big"), parts, f"dies {last}", last)

    def upload(
        self, content: bytes, parts: tuple[int, ...], name: str, last: int | None
    ) -> int:
        """Send it all; the first api's calls hang from the `last` on. Gives its calls."""
        count = 0

        def counted(*_: object) -> Deferred[None] | None:
            nonlocal count
            count += 1
            return Deferred() if last is not None and count > last else None

        token = self.start(len(content), name)
        for rig in self.rigs:
            for call in UPLOADS:
                rig.rules[f"uploads.{call}"] = counted
        api, at = self.other(), 0
        try:
            for begin, end in zip(parts, (*parts[1:-1], len(content)), strict=False):
                running = self.part(token, begin, content[begin:end], api)
                self.pass_(0)
                if not running.called:
                    _ = running.addErrback(lambda _: None)
                    running.cancel()
                    break
                at = self.finish(running).held
        finally:
            for rig in self.rigs:
                rig.rules.clear()
        self.pass_(40)
        other = self.other()
        try:
            held = self.held(token, other)
        except NotFound:
            held = len(content)
        self.assertGreaterEqual(held, at)
        self.assertEqual(
            held if last is None else 0, len(content) if last is None else 0
        )
        self.sent(token, held, content[held:], other)
        self.assertEqual(self.run_(self.get(name)), content)
        self.assertEqual(self.outcome(token, self.other(), len(content)).number, 1)
        return count
