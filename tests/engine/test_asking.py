"""Many questions in one message: each is answered as if it had been asked alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, cast

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.memory import MemoryBus, MemoryBusMember
from ostore.engine import answering, asking
from ostore.engine.announcing import CAPABILITIES
from ostore.engine.cluster import Cluster
from ostore.model.census import Census
from ostore.model.errors import BusUnavailable, NodeUnreachable
from ostore.model.layouts import Holding, Layout, ShardFacts
from ostore.model.messages import (
    MAX_HASHES,
    MAX_MESSAGE,
    Answer,
    Answers,
    Hello,
    Locate,
    Locates,
    Message,
    Signer,
)
from ostore.model.nodes import Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.voices import LAYOUT, Voice, content, shards

NODES = 4
TIMEOUT = 1.0


@attrs.frozen
class Outcome:
    """How a locate ended, and when."""

    after: float
    answers: Mapping[str, Holding]
    silent: frozenset[str]


class Fleet:
    """A cluster, four nodes and a bus in memory; everything said is noted."""

    def __init__(self) -> None:
        self.time = task.Clock()
        self.clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.bus = MemoryBus(self.clock)
        self.signer = Signer([b"0123456789abcdef0123456789abcdef"])
        self.asker = self.bus.member()
        self.voices = [
            Voice(number, self.bus.member(), self.signer, self.clock)
            for number in range(NODES)
        ]
        self.cluster = Cluster(
            self.asker,
            cast("Any", None),
            self.signer,
            self.clock,
            Random(0).randbytes,
            heartbeat=5.0,
            node_timeout=15.0,
            locate_timeout=TIMEOUT,
            belongs=lambda beat: beat.cluster == "",
        )
        self.questions: list[Locate | Locates] = []
        self.answers: list[Answer | Answers] = []

    def begin(self) -> None:
        """All join and are heard."""
        members = [self.asker, *(voice.member for voice in self.voices)]
        self.now(*(member.start() for member in members))
        self.now(*(voice.announcer.start() for voice in self.voices))
        self.now(self.cluster.start())
        self.turn()
        self._note(self.asker, "publish", self.questions)
        for voice in self.voices:
            self._note(voice.member, "send", self.answers)

    def _note(self, member: MemoryBusMember, name: str, heard: list[Any]) -> None:
        say = getattr(member, name)

        def noted(where: str, body: bytes, ttl: float | None = None) -> Any:
            message: Message = self.signer.open(body)
            if not isinstance(message, Heartbeat | Hello):
                heard.append(message)
            return say(where, body, ttl)

        setattr(member, name, noted)

    def end(self) -> None:
        """All leave."""
        self.now(self.cluster.stop())
        self.now(*(voice.announcer.stop() for voice in self.voices))
        for member in (self.asker, *(voice.member for voice in self.voices)):
            self.now(member.stop())

    def now(self, *works: Any) -> None:
        """Do what takes no time."""
        for work in works:
            done: list[object] = []
            _ = start(work).addBoth(done.append)
            if done != [None]:
                raise AssertionError(f"not done at once: {done}")

    def turn(self) -> None:
        """Let everything happen that needs no time."""
        while any(
            call.getTime() <= self.time.seconds()
            for call in self.time.getDelayedCalls()
        ):
            self.time.advance(0)

    def pass_(self, seconds: float = 2.0) -> None:
        """Let time go by, timer by timer."""
        end = self.time.seconds() + seconds
        self.turn()
        while due := [
            at for c in self.time.getDelayedCalls() if (at := c.getTime()) <= end
        ]:
            self.time.advance(min(due) - self.time.seconds())
            self.turn()
        self.time.advance(end - self.time.seconds())

    def locate(self, *numbers: int, **how: bool) -> list[Deferred[Census]]:
        """Ask for these in one turn."""
        return [start(self.cluster.locate(content(n), **how)) for n in numbers]

    def outcomes(self, asks: Sequence[tuple[int, Mapping[str, bool]]]) -> list[Outcome]:
        """How locates of one turn end."""
        begun = self.time.seconds()
        found: dict[int, Outcome] = {}

        def ended(census: Census, place: int) -> None:
            after = self.time.seconds() - begun
            found[place] = Outcome(after, dict(census.answers), census.silent)

        for place, (number, how) in enumerate(asks):
            (running,) = self.locate(number, **how)
            _ = running.addCallback(ended, place)
        self.pass_()
        return [found[place] for place in range(len(asks))]

    def suspects(self) -> set[str]:
        """Nodes that are suspect."""
        states = self.cluster.states()
        return {node for node, state in states.items() if state == "suspect"}

    def forget(self, *capable: int) -> None:
        """Only these nodes say from now on that they take many questions."""
        for number, voice in enumerate(self.voices):
            voice.capabilities = CAPABILITIES if number in capable else ("else/1",)
            self.now(voice.announcer.announce())
        self.turn()


@contextmanager
def fleet() -> Iterator[Fleet]:
    """One that is up; nothing of it may be left."""
    made = Fleet()
    made.begin()
    yield made
    made.end()
    left = made.cluster._asking
    if left._asks or left._sent or left._waiting or made.time.getDelayedCalls():
        raise AssertionError("something is left")


class AskingCase(SynchronousTestCase):
    """A fleet for each test."""

    def setUp(self) -> None:
        """Have it up."""
        context = fleet()
        self.fleet = context.__enter__()
        self.voices = self.fleet.voices
        self.addCleanup(context.__exit__, None, None, None)

    def kinds(self) -> list[int]:
        """How many contents each question was for; 0: a plain locate."""
        return [
            len(each.hashes) if isinstance(each, Locates) else 0
            for each in self.fleet.questions
        ]

    def ended(self, running: list[Deferred[Census]]) -> list[Census]:
        """What they give."""
        return [self.successResultOf(each) for each in running]

    def held_up(self) -> Deferred[None]:
        """The next message is handed over when this fires."""
        publish, held = self.fleet.asker.publish, Deferred[None]()

        async def slow(*words: Any) -> None:
            self.fleet.asker.publish = publish  # type: ignore[method-assign]  # back
            await held
            await publish(*words)

        self.fleet.asker.publish = slow  # type: ignore[method-assign, assignment]  # once
        return held


class TogetherTests(AskingCase):
    """What travels together."""

    def test_alone(self) -> None:
        """One that is alone goes out in its turn, as a plain locate."""
        (running,) = self.fleet.locate(1)
        self.fleet.turn()
        self.assertTrue(self.successResultOf(running).certain)
        self.assertEqual(self.fleet.time.seconds(), 0)
        self.assertEqual(self.kinds(), [0])
        self.assertEqual([type(a) for a in self.fleet.answers], [Answer] * NODES)

    def test_one_turn(self) -> None:
        """Those of a turn are one message, and one answer from each node."""
        for index, voice in enumerate(self.voices):
            voice.store.says[content(2)] = shards(content(2), index)
        running = self.fleet.locate(1, 2, 3)
        self.fleet.turn()
        one, two, three = self.ended(running)
        self.assertEqual(self.kinds(), [3])
        self.assertEqual([type(a) for a in self.fleet.answers], [Answers] * NODES)
        self.assertTrue(two.whole())
        (standing,) = two.standings()
        self.assertEqual(
            standing.places, {i: (v.id,) for i, v in enumerate(self.voices)}
        )
        for census in (one, three):
            self.assertTrue(census.certain)
            self.assertEqual(census.standings(), [])
        self.assertEqual(self.fleet.cluster.locates, 3)

    def test_next_turn(self) -> None:
        """What comes later does not wait for answers, and nothing waits for it."""
        for voice in self.voices:
            voice.store.after[content(1)] = 0.3
        first = self.fleet.locate(1)
        self.fleet.turn()
        more = self.fleet.locate(2, 3)
        self.fleet.turn()
        self.ended(more)
        self.assertNoResult(first[0])
        self.assertEqual(self.kinds(), [0, 2])
        self.fleet.pass_()
        self.ended(first)

    def test_same_content(self) -> None:
        """Two that ask for one content both have their answer."""
        self.voices[0].store.says[content(1)] = shards(content(1), 0, 1, 2, 3)
        running = self.fleet.locate(1, 1)
        self.fleet.turn()
        for census in self.ended(running):
            self.assertTrue(census.whole())

    def test_while_handed_over(self) -> None:
        """What arises while a message is being handed over goes in the next one."""
        held = self.held_up()
        running = self.fleet.locate(1)
        self.fleet.turn()
        for number in (2, 3, 4):
            running += self.fleet.locate(number)
            self.fleet.turn()
        self.assertEqual(self.kinds(), [])
        held.callback(None)
        self.fleet.turn()
        self.assertEqual(self.kinds(), [0, 3])
        self.assertTrue(all(census.certain for census in self.ended(running)))

    def test_split(self) -> None:
        """A message has a bounded number of contents."""
        running = self.fleet.locate(*range(2 * MAX_HASHES + 1))
        self.fleet.turn()
        self.assertEqual(self.kinds(), [MAX_HASHES, MAX_HASHES, 0])
        self.assertEqual(len(self.fleet.answers), 3 * NODES)
        self.assertTrue(all(census.certain for census in self.ended(running)))

    def test_old_nodes(self) -> None:
        """While one live node of ours does not know the form, each is asked alone."""
        self.fleet.forget(0, 1, 2)
        running = self.fleet.locate(1, 2, 3)
        self.fleet.turn()
        self.assertTrue(all(census.certain for census in self.ended(running)))
        self.assertEqual(self.kinds(), [0, 0, 0])
        self.fleet.forget(0, 1, 2, 3)
        running = self.fleet.locate(1, 2, 3)
        self.fleet.turn()
        self.assertEqual(self.kinds(), [0, 0, 0, 3])
        self.ended(running)

    def test_others_old_nodes(self) -> None:
        """A node that is not ours, or is gone, has no say in it."""
        self.fleet.forget(0, 1, 2)
        known = self.fleet.cluster.members.by_id[self.voices[3].id].beat
        strange = attrs.evolve(known, cluster="other", seq=known.seq + 1)
        self.fleet.cluster._heard(self.fleet.signer.seal(strange), "")
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        self.assertEqual(self.kinds(), [2])
        self.assertTrue(all(census.certain for census in self.ended(running)))


class EachTests(AskingCase):
    """What happens to one of them happens to no other."""

    def test_unsure(self) -> None:
        """A node that fails for one content is unsure of that one."""
        voice = self.voices[1]
        voice.store.says[content(2)] = NodeUnreachable("the disk is broken")
        running = self.fleet.locate(1, 2, 3)
        self.fleet.turn()
        one, two, three = self.ended(running)
        self.assertEqual(two.unsure, {voice.id})
        self.assertTrue(one.certain and three.certain)

    def test_defect(self) -> None:
        """A node with a defect is silent about that one, and says the others."""
        voice = self.voices[1]
        voice.store.says[content(2)] = ZeroDivisionError()
        running = self.fleet.locate(1, 2, 3)
        self.fleet.turn()
        self.assertTrue(all(c.certain for c in self.ended(running[::2])))
        self.fleet.pass_()
        self.assertEqual(self.successResultOf(running[1]).silent, {voice.id})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_slow(self) -> None:
        """What takes a node longer comes in a message of its own."""
        voice = self.voices[1]
        voice.store.after |= {content(2): 0.3, content(4): 0.3}
        running = self.fleet.locate(1, 2, 3, 4)
        self.fleet.turn()
        self.assertTrue(all(c.certain for c in self.ended(running[::2])))
        self.assertNoResult(running[1])
        self.fleet.pass_(0.3)
        self.assertTrue(all(c.certain for c in self.ended(running[1::2])))
        said = [len(a.found) for a in self.fleet.answers if isinstance(a, Answers)]
        self.assertEqual(sorted(said), [2, 2, 4, 4, 4])
        self.assertEqual(self.fleet.suspects(), set())

    def test_late(self) -> None:
        """Who lets the time of one pass is suspect; the others ended before."""
        voice = self.voices[1]
        voice.store.after[content(2)] = 3.0
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        self.assertTrue(self.successResultOf(running[0]).certain)
        self.fleet.pass_(0.9)
        self.assertNoResult(running[1])
        self.fleet.pass_(0.1)
        self.assertEqual(self.successResultOf(running[1]).silent, {voice.id})
        self.assertEqual(self.fleet.suspects(), {voice.id})

    def test_cancelled_before(self) -> None:
        """Whose asker left in the same turn is not asked for."""
        running = self.fleet.locate(1, 2, 3)
        running[1].cancel()
        self.failureResultOf(running[1], CancelledError)
        self.fleet.turn()
        (question,) = self.fleet.questions
        assert isinstance(question, Locates)
        self.assertEqual(question.hashes, (content(1), content(3)))
        self.assertTrue(all(c.certain for c in self.ended(running[::2])))

    def test_all_cancelled(self) -> None:
        """When all have left nobody is asked."""
        for each in self.fleet.locate(1, 2):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.fleet.turn()
        self.assertEqual(self.kinds(), [])

    def test_cancelled_after(self) -> None:
        """One whose asker leaves later is forgotten; the others go on."""
        for voice in self.voices:
            voice.store.after |= {content(n): 0.3 for n in (1, 2)}
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        running[0].cancel()
        self.failureResultOf(running[0], CancelledError)
        self.fleet.pass_(0.3)
        self.assertTrue(self.successResultOf(running[1]).certain)

    def test_cancelled_while_handed_over(self) -> None:
        """The first that asked may leave: its message is not only its own."""
        held = self.held_up()
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        running[0].cancel()
        self.failureResultOf(running[0], CancelledError)
        held.callback(None)
        self.fleet.turn()
        self.assertTrue(self.successResultOf(running[1]).certain)

    def test_stop_at_once(self) -> None:
        """Nobody is asked when it stops in the same turn."""
        running = self.fleet.locate(1, 2)
        self.fleet.now(self.fleet.cluster.stop())
        self.assertEqual([census.answers for census in self.ended(running)], [{}, {}])
        self.fleet.turn()
        self.assertEqual(self.kinds(), [])

    def test_stop(self) -> None:
        """Stopping ends those that are asked, and those that wait, without suspicion."""
        self.voices[0].store.after |= {content(n): 0.3 for n in (1, 2)}
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        _ = self.held_up()
        running += self.fleet.locate(3)
        self.fleet.turn()
        running += self.fleet.locate(4)
        self.fleet.now(self.fleet.cluster.stop())
        counts = [len(census.answers) for census in self.ended(running)]
        self.assertEqual(counts, [NODES - 1, NODES - 1, 0, 0])
        self.assertEqual(self.fleet.suspects(), set())


class BusTests(AskingCase):
    """A bus that does not do its part."""

    def failing(self, error: Exception) -> None:
        """It takes no message."""

        async def publish(*_: object) -> None:
            raise error

        self.patch(self.fleet.asker, "publish", publish)

    def test_away(self) -> None:
        """Without it every census is empty, at once, and nobody is suspect."""
        self.failing(BusUnavailable("away"))
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        for census in self.ended(running):
            self.assertEqual((census.answers, len(census.silent)), ({}, NODES))
        self.assertEqual(self.fleet.suspects(), set())

    def test_defect(self) -> None:
        """Any other error is for each that asks."""
        self.failing(ValueError("too long"))
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        for each in running:
            self.failureResultOf(each, ValueError)

    def test_slow(self) -> None:
        """Nobody is late who was not asked in time."""
        held = self.held_up()
        running = self.fleet.locate(1, 2)
        self.fleet.pass_(TIMEOUT)
        for census in self.ended(running):
            self.assertEqual(len(census.silent), NODES)
        self.assertEqual(self.fleet.suspects(), set())
        held.callback(None)
        self.fleet.turn()

    def test_too_many(self) -> None:
        """Beyond a limit a locate is as if the bus were away, in a crowd too."""
        self.patch(asking, "MAX_ASKS", 2)
        running = self.fleet.locate(1, 2, 3)
        self.assertEqual(self.successResultOf(running[2]).answers, {})
        self.fleet.turn()
        self.assertEqual(self.kinds(), [2])
        self.ended(running)


class AnswerTests(AskingCase):
    """What a node may say, and what it may not."""

    def open(self) -> tuple[str, list[Deferred[Census]]]:
        """The id of a question for two contents that node 0 is slow to answer."""
        self.voices[0].store.after |= {content(n): 0.3 for n in (1, 2)}
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        return self.fleet.questions[-1].id, running

    def hear(self, message: Message) -> None:
        """It comes to the asker."""
        self.fleet.cluster._asking._heard(self.fleet.signer.seal(message))

    def test_its_own(self) -> None:
        """An answer goes to the content it speaks of, and to no other."""
        number, running = self.open()
        have = tuple((index, LAYOUT) for index in range(4))
        self.hear(Answers(number, self.voices[0].id, ((1, "have", have),)))
        two = self.successResultOf(running[1])
        (standing,) = two.standings()
        self.assertEqual(standing.nodes, {self.voices[0].id})
        self.assertNoResult(running[0])
        self.fleet.pass_(0.3)
        one = self.successResultOf(running[0])
        self.assertEqual(one.standings(), [])

    def test_not_its_own(self) -> None:
        """A content that was not asked for, or is over, changes nothing."""
        number, running = self.open()
        have = tuple((index, LAYOUT) for index in range(4))
        node = self.voices[0].id
        self.hear(Answers(number, node, ((2, "have", have), (127, "have", have))))
        self.hear(Answers("0" * 32, node, ((0, "have", have),)))
        self.hear(Answer(number, node, "have", have))
        for each in running:
            self.assertNoResult(each)
        self.assertEqual(self.fleet.cluster.dropped, 0)
        self.fleet.pass_(0.3)
        one, two = self.ended(running)
        before = dict(one.answers)
        self.hear(Answers(number, node, ((0, "have", have),)))
        self.assertEqual((one.answers, two.standings()), (before, []))

    def test_plain_question(self) -> None:
        """A plain locate is answered by a plain answer alone."""
        self.voices[0].store.after[content(1)] = 0.3
        (running,) = self.fleet.locate(1)
        self.fleet.turn()
        number, have = self.fleet.questions[-1].id, ((0, LAYOUT), (1, LAYOUT))
        self.hear(Answers(number, self.voices[0].id, ((0, "have", have),)))
        self.fleet.pass_(0.3)
        self.assertEqual(self.successResultOf(running).standings(), [])

    def test_strangers(self) -> None:
        """A node that was never heard, and what is no answer, count as dropped."""
        number, running = self.open()
        have = tuple((index, LAYOUT) for index in range(4))
        self.hear(Answers(number, "e" * 32, ((0, "have", have),)))
        self.hear(Locates((content(1),), number, 1, "me"))
        self.fleet.cluster._asking._heard(b"rubbish")
        self.assertEqual(self.fleet.cluster.dropped, 3)
        self.fleet.pass_()
        self.assertTrue(all(c.certain for c in self.ended(running)))

    def test_bad_question(self) -> None:
        """What a node cannot read it counts, and it answers the next."""
        voice = self.voices[0]
        question = self.fleet.signer.seal(Locates(("no hash",), "1", 1000, "me"))
        self.fleet.signer._sealed.clear()
        voice.announcer._asked(question, self.fleet.asker.address)
        self.assertEqual((voice.announcer.dropped, voice.store.asked), (1, []))
        running = self.fleet.locate(1, 2)
        self.fleet.turn()
        self.assertTrue(all(c.certain for c in self.ended(running)))

    def test_too_many(self) -> None:
        """A node looks for a bounded number of contents at once, not of messages."""
        self.patch(answering, "MAX_ANSWERS", 3)
        voice = self.voices[0]
        voice.store.after |= {content(n): 0.3 for n in range(5)}
        running = self.fleet.locate(*range(5))
        self.fleet.turn()
        self.assertEqual(voice.store.asked, [content(n) for n in range(3)])
        self.fleet.pass_(0.3)
        self.assertTrue(all(c.certain for c in self.ended(running[:3])))
        self.fleet.pass_()
        for census in self.ended(running[3:]):
            self.assertEqual(census.silent, {voice.id})
        running = self.fleet.locate(*range(10, 20))
        self.fleet.turn()
        self.assertEqual(len(voice.store.asked), 13)
        self.ended(running)

    def test_long_answers(self) -> None:
        """Answers that fit in no one message come in several, none too long."""
        layouts = [Layout(1, 31, 1 << 60, f"{n:032x}") for n in range(2)]
        for number in range(MAX_HASHES):
            hash = content(number)
            facts = [
                fact
                for layout in layouts
                for fact in shards(hash, *range(16), layout=layout).shards
            ]
            self.voices[0].store.says[hash] = Holding("have", tuple(facts))
        running = self.fleet.locate(*range(MAX_HASHES), thorough=True)
        self.fleet.turn()
        for census in self.ended(running):
            self.assertEqual(len(census.answers[self.voices[0].id].shards), 32)
        mine = [a for a in self.fleet.answers if a.node == self.voices[0].id]
        self.assertGreater(len(mine), 1)
        for each in mine:
            self.assertLessEqual(len(self.fleet.signer.seal(each)), MAX_MESSAGE)

    def test_endless_answer(self) -> None:
        """Of what fits in no message at all a node is unsure; the others are said."""
        layouts = [Layout(1, 0, 1, f"{n:032x}") for n in range(2000)]
        facts = tuple(ShardFacts(content(2), 0, each, 0, 0.0) for each in layouts)
        self.voices[0].store.says[content(2)] = Holding("have", facts)
        running = self.fleet.locate(1, 2, 3, thorough=True)
        self.fleet.turn()
        one, two, three = self.ended(running)
        self.assertEqual(two.unsure, {self.voices[0].id})
        self.assertTrue(one.certain and three.certain)


PLANS = st.lists(
    st.tuples(
        st.sampled_from(({}, {"reading": True}, {"thorough": True})),
        st.lists(
            st.tuples(
                st.sampled_from(("have", "none", "unsure", "fails")),
                st.sampled_from(("now", "later", "never")),
            ),
            min_size=NODES,
            max_size=NODES,
        ),
    ),
    min_size=2,
    max_size=6,
)
"""Of each content how it is asked for, and what each node has to say of it, and when."""


class SameTests(SynchronousTestCase):
    """Asked together or alone: nobody can tell."""

    @settings(deadline=None, max_examples=60)
    @given(PLANS, st.sets(st.integers(0, NODES - 1), max_size=NODES - 1))
    def test_together_or_alone(self, plans: Any, suspects: set[int]) -> None:
        """Ends, answers and suspects are those of questions that go one by one."""
        together, _ = self.played(plans, suspects, alone=False)
        alone, kinds = self.played(plans, suspects, alone=True)
        self.assertEqual(together, alone)
        self.assertEqual(kinds, {Locate})

    def played(self, plans: Any, suspects: set[int], *, alone: bool) -> Any:
        """All that is seen of it, and the kinds of questions."""
        with fleet() as made:
            if alone:
                made.forget()
            for number, (_, sayings) in enumerate(plans):
                self.tell(made, number, sayings)
            for number in sorted(suspects):
                made.cluster.suspect(made.voices[number].id)
            asks = [(number, how) for number, (how, _) in enumerate(plans)]
            ended = made.outcomes(asks)
            seen = ended, made.suspects(), made.cluster.dropped
            made.pass_(1.0)
            return seen, {type(each) for each in made.questions}

    def tell(self, made: Fleet, number: int, sayings: Any) -> None:
        """What the nodes say of that content; no two at the same moment."""
        hash = content(number)
        for index, (says, when) in enumerate(sayings):
            store = made.voices[index].store
            if says == "have":
                store.says[hash] = shards(hash, index)
            elif says == "fails":
                store.says[hash] = NodeUnreachable("broken")
            else:
                store.says[hash] = Holding(says)
            if when != "now":
                moment = 0.007 * (1 + number * NODES + index)
                store.after[hash] = moment if when == "later" else 2.5
