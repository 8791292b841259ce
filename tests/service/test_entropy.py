"""Random bytes are given once, whatever the pieces they come in."""

from __future__ import annotations

from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from ostore.service.entropy import PIECE, Entropy


class EntropyTests(SynchronousTestCase):
    """What is drawn, and how often the system is asked."""

    def test_each_byte_once(self) -> None:
        """No byte of a piece is given twice, and none is made up."""
        pieces = [bytes([n]) * PIECE for n in range(3)]
        with patch("ostore.service.entropy.os.urandom", side_effect=pieces) as drawn:
            entropy = Entropy()
            taken = b"".join(entropy(16) for _ in range(2 * PIECE // 16))
        self.assertEqual(taken, pieces[0] + pieces[1])
        self.assertEqual(drawn.call_count, 2)

    def test_never_short(self) -> None:
        """A wish that the piece cannot fill is filled from a new one; a large one too."""
        entropy = Entropy()
        for count in (0, 1, PIECE - 1, 2, PIECE, PIECE + 1, 3 * PIECE):
            self.assertEqual(len(entropy(count)), count)
