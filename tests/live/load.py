"""Clients that write and read without pause while something happens to the servers."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import Any
from urllib.parse import quote

import attrs

from tests.live.cases import LiveCase
from tests.live.client import PATIENCE, Answer, Cut, ask

LARGE_EVERY = 25
LARGE = (2 << 20) + 5
REST = 0.02
"""Seconds between two requests of one client: the machine has work beside this."""


@attrs.frozen
class Kept:
    """A version that a PUT was told of."""

    name: str
    number: int
    content: bytes


class Load:
    """A few clients, each with names of its own, from `__enter__` to `__exit__`.

    Every answer is judged at once: a 503 needs Retry-After, what was acknowledged is
    never a 404, and bytes that come are right. `wrong` tells of what was not so;
    `counts` how often which status came. Cut connections are wrong unless `cuts`.
    """

    def __init__(
        self,
        ports: Callable[[], Sequence[int]],
        label: str,
        clients: int = 3,
        *,
        cuts: bool = False,
    ) -> None:
        self.kept: list[Kept] = []
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._sent: dict[str, set[str]] = {}
        self._ports = ports
        self._label = label
        self._cuts = cuts
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and wait for the last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        if any(thread.is_alive() for thread in self._threads):
            self.wrong.append("a client got no answer")

    @property
    def done(self) -> int:
        """PUTs that were acknowledged so far."""
        return len(self.kept)

    def verify(self) -> list[str]:
        """What is wrong in the end, when all is well again; empty when nothing is.

        A 503 is asked again for a while: of several processes behind one port the
        newest may not have heard of all nodes. What is lost stays one.
        """
        wrong = list(self.wrong)
        deadline = time.monotonic() + PATIENCE
        for number, kept in enumerate(self.kept):
            port = self._ports()[number % len(self._ports())]
            target = f"/objects/{quote(kept.name)}?version={kept.number}"
            answer = ask(port, "GET", target)
            while answer.status == 503 and time.monotonic() < deadline:
                time.sleep(REST)
                answer = ask(port, "GET", target)
            if answer.status != 200 or answer.body != kept.content:
                wrong.append(f"lost: {kept.name} {kept.number}: {answer.status}")
        for name, sent in self._sent.items():
            answer = ask(self._ports()[0], "GET", f"/versions/{quote(name, safe='')}")
            listed = [json.loads(line) for line in answer.body.splitlines()]
            hashes = {b64decode(each["hash"]).hex() for each in listed}
            if not hashes <= sent:
                wrong.append(f"{name} has versions that nobody sent")
            if [v["version"] for v in listed] != list(range(1, len(listed) + 1)):
                wrong.append(f"{name} has holes among its versions")
        return wrong

    def _run(self, client: int) -> None:
        rng = Random(f"{self._label} {client} {time.time_ns()}")
        turn = 0
        while not self._over.is_set():
            turn += 1
            size = LARGE if turn % LARGE_EVERY == 0 else rng.randrange(1, 5000)
            self._put(
                f"load/{self._label}/{client}/{turn % 7}", rng.randbytes(size), rng
            )
            mine = [k for k in self.kept[-20:] if f"/{client}/" in k.name]
            if mine:
                self._get(rng.choice(mine), rng)
            self._over.wait(REST)

    def _put(self, name: str, content: bytes, rng: Random) -> None:
        self._sent.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())
        answer = self._ask("PUT", f"/objects/{quote(name)}", rng, content)
        if answer is not None and answer.status == 200:
            self.kept.append(Kept(name, answer.json()["version"], content))

    def _get(self, kept: Kept, rng: Random) -> None:
        target = f"/objects/{quote(kept.name)}?version={kept.number}"
        answer = self._ask("GET", target, rng)
        if answer is not None and answer.status == 200 and answer.body != kept.content:
            self.wrong.append(f"wrong bytes of {target}")

    def _ask(
        self, method: str, target: str, rng: Random, body: bytes | None = None
    ) -> Answer | None:
        began = time.monotonic()
        try:
            answer = ask(rng.choice(list(self._ports())), method, target, (), body)
        except Cut as cut:
            self.counts[f"{method} cut"] += 1
            if not self._cuts:
                took = time.monotonic() - began
                self.wrong.append(f"{method} {target}: {cut} after {took:.1f} s")
            return None
        self.counts[f"{method} {answer.status}"] += 1
        if answer.status == 503:
            if "retry-after" not in answer.headers:
                self.wrong.append(f"{method} {target}: 503 without Retry-After")
        elif answer.status != 200:
            self.wrong.append(
                f"{method} {target}: {answer.status} {answer.body[:300]!r}"
            )
        return answer


class LoadCase(LiveCase):
    """Stories under load."""

    _loads = 0

    def load(self, **how: Any) -> Load:
        """Clients of both apis."""
        self._loads += 1
        return Load(self.ports, self.name(f"load-{self._loads}"), **how)

    def ports(self) -> list[int]:
        """Where the apis are."""
        return [api.port for api in self.cluster.apis]

    def works(self) -> bool:
        """Whether every api is ready, stores and reads."""
        for number, port in enumerate(self.ports()):
            content = self.new()
            target = f"/objects/{self.name(f'works/{number}')}"
            try:
                ready = ask(port, "GET", "/health/ready").status == 200
                put = ready and ask(port, "PUT", target, (), content).status == 200
                if not put or ask(port, "GET", target).body != content:
                    return False
            except Cut:
                return False
        return True

    def more(self, load: Load, count: int) -> None:
        """Wait for so many more acknowledged PUTs."""
        goal = load.done + count
        self.until(lambda: load.done >= goal, f"{count} more PUTs")

    def assert_none_lost(self, load: Load) -> None:
        """Everything acknowledged is there, and no answer was wrong."""
        self.assertEqual(load.verify(), [], load.counts)

    def refused(self, load: Load, count: int) -> None:
        """Wait for so many 503."""

        def counted() -> int:
            return load.counts["PUT 503"] + load.counts["GET 503"]

        goal = counted() + count
        self.until(lambda: counted() >= goal, "refusals")
