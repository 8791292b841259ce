"""Versions of one name through two apis: one order explains what all clients saw."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Coroutine
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import UUID

from tests.live.cases import LiveCase
from tests.live.client import ask
from tests.support.linearizable import Add, Answer, Call, Get, Latest, Purge, Versions
from tests.support.recorder import Nothing, Recorder, told

CLIENTS = 6
STEPS = 40
NAMES = 3


def at_once(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing but what blocks."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


class OrderTests(LiveCase):
    """Wing and Gong's checker over a live run."""

    def test_linearizable(self) -> None:
        """Racing PUT, GET, DELETE, purge and listing of three names."""
        recorder = Recorder(time.monotonic)
        names = [self.name(str(number)) for number in range(NAMES)]
        failed: list[BaseException] = []

        def client(number: int) -> None:
            rng = Random(f"{number} {time.time_ns()}")
            try:
                for step in range(STEPS):
                    self.step(recorder, rng, rng.choice(names), f"{number}/{step}")
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.assertIsNone(recorder.wrong())
        done = sum(len(history) for history in recorder.histories.values())
        self.assertGreater(done, CLIENTS * STEPS * 0.9)

    def test_consecutive(self) -> None:
        """Parallel PUTs of one name through both apis give each number once."""
        name, numbers = self.name(), list[int]()

        def client(number: int) -> None:
            for step in range(10):
                content = f"{number} {step} {time.time_ns()}".encode()
                numbers.append(self.put(name, content, api=number % 2)["version"])

        threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(numbers), list(range(1, 41)))
        for api in (0, 1):
            listed = [each["version"] for each in self.versions(name, api)]
            self.assertEqual(listed, list(range(1, 41)))

    def step(self, recorder: Recorder, rng: Random, name: str, label: str) -> None:
        """One call of one client."""
        target, put_id = f"/objects/{quote(name)}", UUID(int=rng.getrandbits(128)).hex
        key = (("Idempotency-Key", put_id),)
        content = f"{label} {time.time_ns()}".encode()
        number = rng.randrange(1, 12)
        call: Call
        what = rng.randrange(10)
        if what < 4:
            call = Add(put_id, hashlib.sha256(content).hexdigest())
            work = self.told(call, "PUT", target, key, content)
        elif what < 5:
            call = Add(put_id, deleted=True)
            work = self.told(call, "DELETE", target, key)
        elif what < 6:
            call = Purge(number)
            work = self.told(call, "DELETE", f"{target}?version={number}")
        elif what < 8:
            call = Latest()
            work = self.told(call, "GET", target)
        elif what < 9:
            call = Get(number)
            work = self.told(call, "GET", f"{target}?version={number}")
        else:
            call = Versions()
            work = self.told(call, "GET", f"/versions/{quote(name, safe='')}")
        at_once(recorder.run(name, call, work))

    async def told(
        self,
        call: Call,
        method: str,
        target: str,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes | None = None,
    ) -> Answer:
        """Ask one of the apis; what the answer means. Raises Nothing."""
        api = self.cluster.apis[Random().randrange(2)]
        answer = ask(api.port, method, target, headers, body)
        if answer.status >= 500:
            raise AssertionError(f"{method} {target}: {answer.status} {answer.body!r}")
        try:
            return told(call, answer.status, answer.headers, answer.body)
        except Nothing as error:
            raise AssertionError(f"{method} {target}: {error}") from error
