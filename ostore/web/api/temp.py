"""`/temp/{token}`: a resumable upload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ostore.engine.resuming import Progress
from ostore.engine.store import ObjectStore
from ostore.model.errors import Unavailable
from ostore.model.resuming import Busy, Paused, TooMuch, WrongPart
from ostore.model.tokens import Forged
from ostore.streaming.resource import Call, Problem, Resource
from ostore.web.api import parameters
from ostore.web.api.answers import send_json, written

OFFSET = "Upload-Offset"
LENGTH = "Upload-Length"


class UploadResource(Resource):
    """The verbs of one upload; made by the router for one request."""

    allowed = ("HEAD", "PUT", "DELETE")

    def __init__(self, store: ObjectStore, token: bytes) -> None:
        self._uploads = store.uploads
        self._token = token.decode("latin-1")

    async def head(self, call: Call) -> None:
        """How many bytes are held."""
        with _translated():
            progress = await self._uploads.held(self._token)
        call.reply.headers.update(_told(progress))
        call.reply.headers["Content-Length"] = str(progress.held)
        await call.reply.finish()

    async def put(self, call: Call) -> None:
        """Append a part; the last one makes the version."""
        first = parameters.first(call)
        with _translated():
            progress = await self._uploads.part(
                self._token, first, call.body, call.body.length
            )
        headers = _told(progress)
        version = progress.version
        if version is not None:
            headers.update(written(version))
            send_json(call.reply, 200, version.to_json(), headers)
        elif progress.finishing:
            call.reply.send(202, {**headers, "Retry-After": "1"})
        else:
            call.reply.send(200, headers)

    async def delete(self, call: Call) -> None:
        """Give it up."""
        with _translated():
            await self._uploads.give_up(self._token)
        call.reply.send(204)


def _told(progress: Progress) -> dict[str, str]:
    return {
        OFFSET: str(progress.held),
        LENGTH: str(progress.size),
        "Cache-Control": "no-store",
    }


@contextmanager
def _translated() -> Iterator[None]:
    """Errors that only an upload has, as answers."""
    try:
        yield
    except Forged as error:
        raise Problem(403, str(error), slug="forged-token") from None
    except WrongPart as error:
        raise Problem(
            416, str(error), slug="wrong-offset", headers=_held(error.held)
        ) from None
    except Busy as error:
        raise Problem(
            409, str(error), slug="upload-busy", headers=_held(error.held)
        ) from None
    except TooMuch as error:
        raise Problem(413, str(error), slug="upload-too-long") from None
    except Paused as error:
        headers = {**_held(error.held), "Retry-After": str(Unavailable.retry_after)}
        raise Problem(503, str(error), slug="unavailable", headers=headers) from None


def _held(held: int | None) -> dict[str, str]:
    return {} if held is None else {OFFSET: str(held)}
