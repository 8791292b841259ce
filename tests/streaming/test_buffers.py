"""Memory that is lent out again only when nobody can see it any more."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from ostore.streaming.buffers import Buffers

SIZE = 1 << 16


class BuffersTests(SynchronousTestCase):
    """Loans begin with take() and end with their last view."""

    def setUp(self) -> None:
        """Two spare memories at most."""
        self.buffers = Buffers(SIZE, 2)

    def test_nothing_is_lent_twice_at_a_time(self) -> None:
        """What is written into one loan shows in no other."""
        loans = [self.buffers.take(SIZE) for _ in range(10)]
        for number, loan in enumerate(loans):
            loan[:] = bytes([number]) * SIZE
        for number, loan in enumerate(loans):
            self.assertEqual(bytes(loan), bytes([number]) * SIZE)

    def test_any_view_keeps_the_loan(self) -> None:
        """A slice, read-only or cast, keeps the memory from being lent again."""
        loan = self.buffers.take(SIZE)
        loan[100:104] = b"kept"
        views = [loan[100:104].toreadonly()]
        del loan
        self.assertEqual(self.buffers.lent, 1)
        others = [self.buffers.take(SIZE) for _ in range(4)]
        for other in others:
            other[:] = bytes(SIZE)
        self.assertEqual(bytes(views[0]), b"kept")
        del views[0], other
        others.clear()
        self.assertEqual(self.buffers.lent, 0)

    def test_used_again(self) -> None:
        """A loan that ended serves the next one: its bytes are still there."""
        loan = self.buffers.take(SIZE)
        loan[:4] = b"seen"
        del loan
        self.assertEqual(bytes(self.buffers.take(SIZE)[:4]), b"seen")

    def test_few_are_kept(self) -> None:
        """Only so many are kept for later as was said."""
        loans = [self.buffers.take(SIZE) for _ in range(5)]
        for loan in loans:
            loan[:4] = b"seen"
        del loan
        loans.clear()
        again = [bytes(self.buffers.take(SIZE)[:4]) for _ in range(1)]
        more = [self.buffers.take(SIZE) for _ in range(5)]
        self.assertEqual(again, [b"seen"])
        self.assertEqual([bytes(one[:4]) for one in more].count(b"seen"), 2)

    def test_other_lengths(self) -> None:
        """What is much smaller, or larger, has memory of its own."""
        for length in (0, 1, SIZE // 8 - 1, SIZE + 1, 5 * SIZE):
            own = self.buffers.take(length)
            self.assertEqual(len(own), length)
            self.assertEqual(self.buffers.lent, 0)
        lent = self.buffers.take(SIZE // 8)
        self.assertEqual((len(lent), self.buffers.lent), (SIZE // 8, 1))

    def test_threads(self) -> None:
        """Threads that take and drop at once never see each other's bytes."""
        wrong: list[int] = []

        def work(mark: int) -> None:
            for _ in range(300):
                loan = self.buffers.take(SIZE)
                loan[:8] = loan[-8:] = bytes([mark]) * 8
                if bytes(loan[:8]) != bytes(loan[-8:]) or loan[0] != mark:
                    wrong.append(mark)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.buffers.lent, 0)
