"""The stories of HTTP clients over a standalone and SQLite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ostore.streaming.tasks import gather
from tests.contracts.http import HttpContract, Request
from tests.live.client import Answer
from tests.support.standalone import TURNS, StandaloneCase, clock


class SqliteTests(HttpContract, StandaloneCase):
    """All in one process."""

    async def send(self, request: Request) -> Answer:
        """On a connection of its own."""
        found = await self.ask(
            request.method, request.target, request.headers, request.body
        )
        return Answer(found.status, dict(found.headers), found.body)

    async def race(self, requests: Sequence[Request]) -> list[Answer]:
        """All at once, each on a connection of its own."""
        answers = []
        for each in await gather(self.send(request) for request in requests):
            if isinstance(each, Exception):
                raise each
            answers.append(each)
        return answers

    def name(self, label: str = "x") -> str:
        """Every test has a store of its own."""
        return f"t/{label}"

    async def until_there(
        self, holds: Callable[[], Awaitable[bool]], what: str
    ) -> None:
        """Wait until it holds."""
        for _ in range(TURNS):
            if await holds():
                return
            await clock.sleep(0.005)
        self.fail(f"waited in vain: {what}")
