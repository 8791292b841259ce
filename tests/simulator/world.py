"""Time, chance and processes: what a simulated cluster stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.streaming.clock import Clock
from tests.support.disk import PowerCut

T = TypeVar("T")
BEGIN = 1_700_000_000.0
"""The wall clock at the beginning, in seconds since 1970."""


class Dead(PowerCut, GeneratorExit):
    """What a dead process is told; a coroutine that is thrown away may end with it."""


@implementer(IDelayedCall)
class Timer:
    """One call in the future."""

    __slots__ = ("args", "call", "due")

    def __init__(self, due: float, call: Any, args: Any) -> None:
        self.due = due
        self.call: Callable[..., object] | None = call
        self.args: tuple[Any, ...] = args

    def getTime(self) -> float:  # noqa: N802  # IDelayedCall's name
        """When it is due."""
        return self.due

    def active(self) -> bool:
        """Whether it is still to come."""
        return self.call is not None

    def cancel(self) -> None:
        """Let it not come."""
        self.call = None
        self.args = ()

    def delay(self, secondsLater: float) -> None:  # noqa: N803  # IDelayedCall's
        """Nobody here does that."""
        raise NotImplementedError

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803  # IDelayedCall's
        """Nobody here does that."""
        raise NotImplementedError


@implementer(IReactorTime)
class Timers:
    """What `task.Clock` does, in a heap: a story sets tens of thousands of timers."""

    def __init__(self) -> None:
        self._now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Timer]] = []
        """When, which of those at one moment, what."""

    def seconds(self) -> float:
        """The time, from 0."""
        return self._now

    def callLater(  # noqa: N802  # IReactorTime's name
        self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Timer:
        """A call after so many seconds."""
        assert delay >= 0 and not kwargs
        self._count += 1
        timer = Timer(self._now + delay, callable, args)
        heappush(self._heap, (timer.due, self._count, timer))
        return timer

    def getDelayedCalls(self) -> Sequence[Timer]:  # noqa: N802  # IReactorTime's name
        """All that are to come."""
        return [timer for _, _, timer in sorted(self._heap) if timer.active()]

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let time go by, timer by timer, up to `until` or as soon as it is enough."""
        while self._heap and self._heap[0][0] <= until and not enough():
            due, _, timer = heappop(self._heap)
            call, args = timer.call, timer.args
            if call is not None:
                self._now = max(self._now, due)
                timer.cancel()
                call(*args)
        if not enough():
            self._now = max(self._now, until)


class Trace:
    """What happened, line by line: a hash of it all, and the lines if they are kept."""

    def __init__(self, *, keep: bool = False) -> None:
        self.lines: list[str] = []
        self.count = 0
        self._keep = keep
        self._hash = hashlib.sha256()

    def note(self, line: str) -> None:
        """One more line."""
        self.count += 1
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """The hash of everything so far, and how many lines that was."""
        return f"{self._hash.hexdigest()[:16]}-{self.count}"


class World:
    """The one time and the one chance of a story.

    Chance is set anew at each step of a story, from the story's seed and the step's
    number: leaving a step out does not change what befalls the others.
    """

    def __init__(self, seed: int, *, keep: bool = False) -> None:
        self.timers = Timers()
        self.trace = Trace(keep=keep)
        self.seed = seed
        self.rng = Random(f"{seed}")
        self.violations: list[str] = []
        self.calm = False
        """Whether every message is quick."""
        self._ticks = 0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.timers.seconds()

    def tick(self) -> float:
        """A number that grows with every call: the order in which things happened."""
        self._ticks += 1
        return float(self._ticks)

    def reseed(self, number: int) -> None:
        """The chance of the step of that number."""
        self.rng = Random(f"{self.seed}/{number}")

    def entropy(self, name: str) -> Callable[[int], bytes]:
        """The entropy of one process."""
        return Random(f"{self.seed} {name}").randbytes

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> Timer:
        """A call of nobody's process."""
        return self.timers.callLater(delay, call, *args)

    def note(self, text: str) -> None:
        """Write it into the trace."""
        self.trace.note(f"{self.now:.4f} {text}")

    def violated(self, what: str) -> None:
        """A guarantee does not hold."""
        self.note(f"VIOLATED {what}")
        self.violations.append(what)

    def delay(self) -> float:
        """How long a message takes: about a millisecond, now and then more."""
        chance = self.rng.random()
        if chance < 0.9 or self.calm:
            return 0.0002 + chance / 1000
        return 0.001 + (chance - 0.9) / 2


@implementer(IReactorTime)
class Process:
    """What dies as a whole: timers, and everything that it awaits from elsewhere.

    All that comes from outside goes through `enter`: it is held back while the process
    is frozen and dropped once it is dead. After `kill` everything that the process asks
    of the world raises PowerCut, and what it awaited is unwound that way.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.frozen = False
        self.skew = 0.0
        self.clock = Clock(self, world.timers.seconds, self.wall)
        self._held: dict[Deferred[Any], None] = {}
        self._tasks: dict[Deferred[Any], None] = {}
        self._timers: dict[Timer, None] = {}
        self._queue: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def wall(self) -> float:
        """Its own idea of the time of day."""
        return BEGIN + self.world.now + self.skew

    def seconds(self) -> float:
        """Seconds of its clock that never jumps."""
        return self.world.now

    def callLater(  # noqa: N802  # IReactorTime's name
        self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Timer:
        """A timer that ends with the process."""
        self.check()
        assert not kwargs
        timer = self.world.timers.callLater(delay, self._ring)
        timer.args = (timer, callable, args)
        self._timers[timer] = None
        return timer

    def getDelayedCalls(self) -> Sequence[Timer]:  # noqa: N802  # IReactorTime's name
        """Its timers."""
        return [timer for timer in self._timers if timer.active()]

    def _ring(self, timer: Timer, call: Callable[..., object], args: Any) -> None:
        self._timers.pop(timer, None)
        self.enter(call, *args)

    def check(self) -> None:
        """Raise PowerCut in a process that is dead."""
        if not self.alive:
            raise Dead(f"{self.name} is dead")

    def enter(self, call: Callable[..., object], *args: Any) -> None:
        """Something reaches the process."""
        if not self.alive:
            return
        if self.frozen:
            self._queue.append((call, args))
            return
        with suppress(PowerCut):
            call(*args)

    def awaited(self) -> Deferred[Any]:
        """A Deferred that fails with the process; its owner fires it through `enter`."""
        self.check()
        waiting: Deferred[Any] = Deferred()
        self._held[waiting] = None
        _ = waiting.addBoth(_let_go, waiting, self._held)
        return waiting

    def hold(self, running: Deferred[T]) -> Deferred[T]:
        """Something to be cancelled when the process dies."""
        self._tasks[running] = None
        _ = running.addBoth(_let_go, running, self._tasks)
        return running

    def freeze(self) -> None:
        """Do nothing more until `thaw`."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with all that came meanwhile."""
        self.frozen = False
        while self._queue and self.alive and not self.frozen:
            call, args = self._queue.pop(0)
            self.enter(call, *args)

    def kill(self) -> None:
        """Dead from this moment on; what it left unfinished is unwound in a moment."""
        if self.alive:
            self.alive = False
            self.world.note(f"{self.name} dies")
            self.world.later(0, self._unwind)

    def _unwind(self) -> None:
        self._queue.clear()
        for waiting in list(self._held):
            if not waiting.called:
                with suppress(PowerCut):
                    waiting.errback(Failure(PowerCut(self.name)))
        timers, self._timers = list(self._timers), {}
        for timer in timers:
            call, args = timer.call, timer.args
            if call is not None:
                timer.cancel()
                _, inner, given = args
                with suppress(PowerCut):
                    inner(*given)
        for running in list(self._tasks):
            running.cancel()


def _let_go(result: T, held: Deferred[Any], where: dict[Deferred[Any], None]) -> T:
    where.pop(held, None)
    return result


class SimWorkers:
    """Worker threads: each piece of work takes place at one moment, some time later.

    Cancelling the caller does not stop the work. A negative `slowness` is no wait.
    """

    def __init__(self, process: Process) -> None:
        self.slowness = 0.0
        self._process = process

    def start(self) -> None:
        """Nothing to make ready."""

    def stop(self) -> None:
        """Nothing to end."""

    async def run(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """What `work` returns or raises."""
        process = self._process
        process.check()
        if self.slowness < 0:
            return work(*args, **more)
        done: Deferred[T] = Deferred()

        def go() -> None:
            try:
                outcome: T | Failure = work(*args, **more)
            except Exception:  # noqa: BLE001 - handed to the one who waits
                outcome = Failure()
            except PowerCut:
                outcome = Failure()
            if not done.called:
                done.callback(outcome)

        wait = self.slowness + process.world.rng.random() * 0.002
        process.callLater(wait, go)
        return await done
