"""A limit on the bytes that all requests together hold in flight."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Budget:
    """Lends bytes out of one pool, first come first served.

    Whoever takes must give back, whatever happens in between. A wish larger than
    the whole pool is granted when the pool is untouched.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lent = 0
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    async def take(self, amount: int) -> None:
        """Wait until `amount` bytes are there, then hold them."""
        if not self._waiting and self._fits(amount):
            self.lent += amount
            return
        turn: Deferred[None] = Deferred(self._gone)
        self._waiting.append((amount, turn))
        await turn

    def give(self, amount: int) -> None:
        """Hand `amount` bytes back."""
        self.lent -= amount
        self._next()

    def _fits(self, amount: int) -> bool:
        return self.lent == 0 or self.lent + amount <= self.limit

    def _gone(self, turn: Deferred[None]) -> None:
        self._waiting = deque(w for w in self._waiting if w[1] is not turn)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, turn = self._waiting.popleft()
            self.lent += amount
            turn.callback(None)
