"""The bounded buffer between a source and a reader."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.geometry import Buffer
from ostore.streaming.gate import JOINED, SMALL, Gate, GateClosed
from ostore.streaming.tasks import start


class Source:
    """Notes what it is told."""

    def __init__(self, high: int = 10, low: int = 4) -> None:
        self.told: list[str] = []
        self.gate = Gate(
            high, low, lambda: self.told.append("pause"), lambda: self.told.append("go")
        )

    def reading(self) -> Deferred[Buffer]:
        """Begin to read."""
        return start(self.gate.read())


class GateTests(SynchronousTestCase):
    """Order, limits, endings."""

    def test_waiting_reader_gets_bytes_at_once(self) -> None:
        """Bytes pushed to a waiting reader are never held."""
        source = Source()
        reading = source.reading()
        self.assertNoResult(reading)
        source.gate.push(b"x" * 50)
        self.assertEqual(self.successResultOf(reading), b"x" * 50)
        self.assertEqual((source.gate.held, source.told), (0, []))

    def test_pause_above_high_resume_at_low(self) -> None:
        """The source is paused once above the limit and resumed once at the low mark."""
        source = Source(high=3 * SMALL, low=SMALL + 1)
        for _ in range(5):
            source.gate.push(b"x" * (SMALL + 1))
        self.assertEqual(source.told, ["pause"])
        for _ in range(3):
            self.successResultOf(source.reading())
        self.assertEqual(source.told, ["pause"])
        self.successResultOf(source.reading())
        self.assertEqual(source.told, ["pause", "go"])
        self.successResultOf(source.reading())
        self.assertEqual(source.told, ["pause", "go"])

    def test_tiny_pieces_are_joined(self) -> None:
        """One-byte pieces become few big ones, so the limit holds for memory too."""
        source = Source(high=10 * JOINED, low=0)
        for _ in range(JOINED + 5):
            source.gate.push(b"x")
        self.assertEqual(len(self.successResultOf(source.reading())), JOINED)
        self.assertEqual(len(self.successResultOf(source.reading())), 5)

    def test_end_comes_behind_the_bytes(self) -> None:
        """After the last bytes readers get b"" for ever."""
        source = Source()
        source.gate.push(b"a")
        source.gate.end()
        source.gate.push(b"dropped")
        got = [self.successResultOf(source.reading()) for _ in range(3)]
        self.assertEqual(got, [b"a", b"", b""])

    def test_end_wakes_a_waiting_reader(self) -> None:
        """A reader that waits learns of the end."""
        source = Source()
        reading = source.reading()
        source.gate.end()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_failure_comes_behind_the_bytes_and_stays(self) -> None:
        """What arrived is read first; then every read raises."""
        source = Source()
        source.gate.push(b"a")
        source.gate.fail(OSError("gone"))
        source.gate.end()
        self.assertEqual(self.successResultOf(source.reading()), b"a")
        for _ in range(2):
            self.failureResultOf(source.reading(), OSError)

    def test_failure_wakes_a_waiting_reader(self) -> None:
        """A reader that waits gets the failure."""
        source = Source()
        reading = source.reading()
        source.gate.fail(OSError("gone"))
        self.failureResultOf(reading, OSError)

    def test_cancelled_read_loses_nothing(self) -> None:
        """The gate works on after a reader gave up."""
        source = Source()
        reading = source.reading()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        source.gate.push(b"a")
        self.assertEqual(self.successResultOf(source.reading()), b"a")

    def test_one_reader_at_a_time(self) -> None:
        """A second reader is refused and the first not disturbed."""
        source = Source()
        reading = source.reading()
        self.failureResultOf(source.reading(), RuntimeError)
        source.gate.push(b"a")
        self.assertEqual(self.successResultOf(reading), b"a")

    def test_close_drops_and_lets_the_source_run(self) -> None:
        """After close nothing is held, the source is not paused, reads are refused."""
        source = Source()
        source.gate.push(b"x" * 11)
        source.gate.close()
        source.gate.close()
        source.gate.push(b"x" * 11)
        self.assertEqual(source.told, ["pause", "go"])
        self.assertEqual(source.gate.held, 0)
        self.failureResultOf(source.reading(), GateClosed)

    def test_close_never_looks_like_an_end(self) -> None:
        """A waiting reader gets an error, not an empty piece."""
        source = Source()
        reading = source.reading()
        source.gate.close()
        self.failureResultOf(reading, GateClosed)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.one_of(st.binary(min_size=1, max_size=30), st.none()), max_size=60),
        st.integers(0, 40),
    )
    def test_any_order_of_pushes_and_reads(
        self, steps: list[bytes | None], high: int
    ) -> None:
        """Bytes come out in order, words alternate, an obedient source stays bounded."""
        source = Source(high, high // 2)
        sent, got = b"", b""
        waiting: list[bytes] = []

        def take(data: Buffer) -> None:
            waiting.append(bytes(data))

        for step in steps:
            if step is not None and not source.gate.paused:
                sent += step
                source.gate.push(step)
            elif step is None and (source.gate.held or not waiting):
                reading = source.reading()
                _ = reading.addCallback(take)
                if not waiting:
                    self.assertEqual(source.gate.held, 0)
                    source.gate.push(b"!")
                    sent += b"!"
            got += b"".join(waiting)
            waiting.clear()
            self.assertLessEqual(source.gate.held, high + 30)
            self.assertEqual(source.gate.held, len(sent) - len(got))
        source.gate.end()
        while piece := self.successResultOf(source.reading()):
            got += piece
        self.assertEqual(got, sent)
        for one, other in zip(source.told, source.told[1:], strict=False):
            self.assertNotEqual(one, other)
