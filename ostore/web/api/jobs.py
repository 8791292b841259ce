"""`/cluster/jobs/…` and `/cluster/nodes/…`: what an administrator asks for."""

from __future__ import annotations

from collections.abc import Callable

from ostore.engine.store import ObjectStore
from ostore.model.errors import Malformed, NotFound
from ostore.model.signing import Guard, Unsigned, WrongTime
from ostore.streaming.problem import Problem
from ostore.streaming.resource import Call, Resource
from ostore.web.api import parameters
from ostore.web.api.answers import send_json

_CHALLENGE = {"WWW-Authenticate": "OSTORE1"}


class Administration:
    """Lets in only requests that are signed with the cluster secret.

    Made once by the wiring. Whatever Host was signed is right: an api service has as
    many names as people give it.
    """

    def __init__(self, guard: Guard, wall: Callable[[], float]) -> None:
        self._guard = guard
        self._wall = wall

    def check(self, call: Call) -> None:
        """Raises Problem 401."""
        target = call.request.uri.decode("utf-8", "surrogateescape")
        try:
            self._guard.check(call.method, target, call.header)
        except WrongTime as error:
            told = {**_CHALLENGE, "X-Ostore-Now": f"{self._wall():.3f}"}
            raise Problem(401, str(error), slug="wrong-time", headers=told) from None
        except Unsigned as error:
            raise Problem(
                401, str(error), slug="unsigned", headers=_CHALLENGE
            ) from None


def check(admin: Administration | None, call: Call) -> None:
    """Raise Problem 401 unless the request is signed."""
    if admin is None:
        raise Problem(401, "nobody is let in here", slug="unsigned")
    admin.check(call)


class JobResource(Resource):
    """POST with a job's name begins a run, GET with a run's id shows it."""

    allowed = ("GET", "HEAD", "POST")

    def __init__(
        self, store: ObjectStore, admin: Administration | None, name: bytes
    ) -> None:
        self._store = store
        self._admin = admin
        self._name = name.decode("latin-1")

    async def get(self, call: Call) -> None:
        """The run. Raises NotFound."""
        run = await self._store.jobs.find(self._name)
        send_json(call.reply, 200, run.shown())

    async def post(self, call: Call) -> None:
        """202 with the new run. Raises Problem 401, NotFound, Refused."""
        check(self._admin, call)
        run = await self._store.jobs.ask(
            self._name,
            dry_run=parameters.switch(call, "dry_run"),
            force=parameters.switch(call, "force"),
        )
        where = {"Location": f"/cluster/jobs/{run.id}"}
        send_json(call.reply, 202, run.shown(), where)


class NodeResource(Resource):
    """`/cluster/nodes/{id}/drain` and `/undrain`."""

    allowed = ("POST",)

    def __init__(
        self, store: ObjectStore, admin: Administration | None, rest: bytes
    ) -> None:
        self._store = store
        self._admin = admin
        self._node, _, self._order = rest.decode("latin-1").partition("/")

    async def post(self, call: Call) -> None:
        """202: the node takes no new shards and is emptied, or is one like any other."""
        if self._order not in ("drain", "undrain"):
            raise NotFound("a node is told /drain or /undrain")
        check(self._admin, call)
        done = await self._store.drain(self._node, on=self._order == "drain")
        send_json(call.reply, 202, done)


class Adopt(Resource):
    """`/cluster/adopt`: the way out when an older copy of the metadata was brought back."""

    allowed = ("POST",)

    def __init__(self, store: ObjectStore, admin: Administration | None) -> None:
        self._store = store
        self._admin = admin

    async def post(self, call: Call) -> None:
        """200 with the new epoch. Raises Problem 401, Malformed, Refused."""
        check(self._admin, call)
        if not parameters.switch(call, "force"):
            raise Malformed(
                "what was written after the copy was made will be garbage; if that is "
                "right, say force=1"
            )
        send_json(call.reply, 200, await self._store.adopt())
