"""Work that runs beside the caller, and never unwatched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")


def start(work: Awaitable[T]) -> Deferred[T]:
    """Set a coroutine (or Deferred) going and give its Deferred."""
    if isinstance(work, Deferred):
        return work
    running = cast("Coroutine[Any, Any, T]", work)
    try:
        waiting = running.send(None)
    except StopIteration as end:
        return succeed(end.value)  # most need not wait: a third of the cost
    except BaseException:  # noqa: BLE001 - handed to who waits
        return fail()
    rest: Any = _rest(running, waiting)
    return Deferred.fromCoroutine(rest)


def succeeded(running: Deferred[Any]) -> bool:
    """Whether it has its result, and that is no failure."""
    if not running.called or running.paused:
        return False
    return not isinstance(running.result, Failure | Deferred)


def _rest(
    running: Coroutine[Any, Any, T], waiting: object
) -> Generator[object, object, T]:
    """What is left of a coroutine that waits for the first time."""
    try:
        while True:
            try:
                got = yield waiting
            except GeneratorExit:
                running.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the coroutine's own
                waiting = running.throw(error)
            else:
                waiting = running.send(got)
    except StopIteration as end:
        result: T = end.value
        return result


async def shielded(work: Awaitable[T]) -> T:
    """What `work` gives; cancelling the caller does not reach it."""
    if isinstance(work, Deferred) and succeeded(work):
        done_already: T = await work
        return done_already
    waiting: Deferred[T] = Deferred()

    def done(result: T) -> T:
        waiting.callback(result)
        return result

    def failed(failure: Failure) -> None:
        waiting.errback(failure)

    _ = start(work).addCallbacks(done, failed)
    return await waiting


async def gather(works: Iterable[Awaitable[T]]) -> list[T | Exception]:
    """Run all at once and wait for all; an error stands in the place of its result.

    Cancelling the caller cancels every one that is still under way, and waits for
    none.
    """
    running = [start(work) for work in works]
    outcomes: list[T | Exception] = []
    try:
        for each in running:
            try:
                outcomes.append(await each)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - handed to the caller as a value
                outcomes.append(error)
    except CancelledError:
        for each in running[len(outcomes) :]:
            _ = each.addErrback(lambda _: None)
            each.cancel()
        raise
    return outcomes


class Tasks:
    """Keeps track of background work: one owner, who waits for it or cancels it.

    `spawn` never raises; a failure is logged and counted in `failed`. After `stop`
    nothing new starts.
    """

    def __init__(self, log: Logger) -> None:
        self.failed = 0
        self._log = log
        self._running: set[Deferred[None]] = set()
        self._stopped = False
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run `work()` in the background; `what` names it in the log."""
        if self._stopped:
            return

        task = start(self._run(what, work))
        if not task.called:
            self._running.add(task)
            _ = task.addBoth(self._ended, task)

    async def _run(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except CancelledError:
            pass
        except Exception:  # noqa: BLE001 - the last stop of a background failure
            self.failed += 1
            self._log.failure("{what} failed", Failure(), what=what)  # type: ignore[no-untyped-call]

    def _ended(self, _: object, task: Deferred[None]) -> None:
        self._running.discard(task)
        if not self._running:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        if self._running:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    async def stop(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        self._stopped = True
        for task in list(self._running):
            task.cancel()
        await self.idle()
