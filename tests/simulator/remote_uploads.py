"""Resumable uploads on nodes as an engine reaches them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from zope.interface import implementer

from ostore.erasure.framing import Frame
from ostore.interfaces import IUploads, IUploadSink
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.tasks import start
from tests.simulator.remote import Deadline, RemoteStream, Wire, named


@implementer(IUploads)
class RemoteUploads:
    """The uploads on one node."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def open(self, upload: str, epoch: int, first: int) -> RemoteUploadSink:
        """A sink for further frames."""
        store, sink = await self._made(
            f"upload open {upload[-4:]} {first}",
            lambda store: store.uploads.open(upload, epoch, first),
        )
        return RemoteUploadSink(self._wire, store, sink)

    async def frames(self, upload: str, first: int, stop: int) -> RemoteStream:
        """Frames that are held."""
        store, stream = await self._made(
            f"upload frames {upload[-4:]} {first}-{stop}",
            lambda store: store.uploads.frames(upload, first, stop),
        )
        return RemoteStream(self._wire, store, stream)

    async def commit(
        self,
        upload: str,
        epoch: int,
        key: ShardKey,
        layout: Layout,
        deadline: float | None,
    ) -> None:
        """Name the temporary."""
        watch = Deadline(self._wire, deadline)
        await self._wire.ask(
            f"upload commit {upload[-4:]} {named(key)}",
            lambda store: watch.over(
                store.uploads.commit(upload, epoch, key, layout, watch.theirs)
            ),
        )

    async def _made(
        self, what: str, work: Callable[[Any], Awaitable[Any]]
    ) -> tuple[Any, Any]:
        """What it gives, and the start of the node that gave it."""

        async def make(store: Any) -> tuple[Any, Any]:
            return store, await work(store)

        def dropped(made: tuple[Any, Any]) -> None:
            self._wire.host.process.enter(lambda: start(made[1].close()))

        made: tuple[Any, Any] = await self._wire.ask(what, make, dropped)
        return made

    def __getattr__(self, name: str) -> Any:
        """Everything else: one request, one answer."""

        async def asked(upload: str, *args: Any, **more: Any) -> Any:
            about = " ".join(str(each) for each in args if isinstance(each, int))
            return await self._wire.ask(
                f"upload {name} {upload[-4:]} {about}",
                lambda store: getattr(store.uploads, name)(upload, *args, **more),
            )

        return asked


@implementer(IUploadSink)
class RemoteUploadSink:
    """Frames of a part on one start of a node."""

    def __init__(self, wire: Wire, store: Any, sink: Any) -> None:
        self._wire = wire
        self._store = store
        self._sink = sink

    async def write(self, frame: Frame) -> None:
        """Append one frame."""
        await self._wire.ask(
            f"upload write {frame.number}",
            lambda _: self._sink.write(frame),
            store=self._store,
        )

    async def sync(self) -> int:
        """Make all durable."""
        held: int = await self._wire.ask(
            "upload sync", lambda _: self._sink.sync(), store=self._store
        )
        return held

    async def close(self) -> None:
        """Give up what is held."""
        self._wire.host.process.enter(lambda: start(self._sink.close()))
