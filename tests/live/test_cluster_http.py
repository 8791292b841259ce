"""The stories of HTTP clients over two apis, six data services and a search server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.contracts.http import RACERS, HttpContract, Request
from tests.live.cases import PATIENCE, LiveCase, ThreadedCase
from tests.live.client import Answer


class SearchTests(HttpContract, ThreadedCase):
    """Each request to another api than the one before."""

    apis = 2

    def name(self, label: str = "x") -> str:
        """A name that no other test uses."""
        return LiveCase.name(self, label)

    def _ask(self, request: Request) -> Answer:
        return self.ask(
            request.method, request.target, request.headers, request.body, request.api
        )

    async def send(self, request: Request) -> Answer:
        """In a thread."""
        return await self.elsewhere(self._ask, request)

    async def race(self, requests: Sequence[Request]) -> list[Answer]:
        """Each in a thread of its own, as many as race."""

        def run() -> list[Answer]:
            with ThreadPoolExecutor(RACERS) as threads:
                return list(threads.map(self._ask, requests))

        return await self.elsewhere(run)

    async def until_there(
        self, holds: Callable[[], Awaitable[bool]], what: str
    ) -> None:
        """Wait until it holds; each look takes a request."""
        began = time.monotonic()
        while not await holds():
            if time.monotonic() - began > PATIENCE:
                self.fail(f"waited in vain: {what}")
