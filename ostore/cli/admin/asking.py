"""Administration requests: open ones, and those signed with the cluster secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ostore.cli.admin.view import Run, View
from ostore.cli.answer import CHUNK
from ostore.cli.failures import Failure, Missing, Refused, Unreachable
from ostore.cli.session import Session

if TYPE_CHECKING:
    from ostore.model.signing import Caller

CALLER = "ostore-admin"
LOOK = 1.0
"""Seconds between two looks at a run that is waited for."""


class Administration:
    """What an operator may ask of one service; made by the verbs, for one command."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self._signer: Caller | None = None

    def view(self) -> View:
        """What `/cluster` shows."""
        return View.read(self._client.ask("GET", "/cluster").json())

    def reasons(self) -> list[str]:
        """Why the service is not ready; none when it is."""
        answer = self._client.ask("GET", "/health/ready", accept=(200, 503))
        if answer.code == 200:
            answer.read(CHUNK)
            return []
        found = answer.json()
        reasons = found.get("reasons") if isinstance(found, dict) else None
        return [str(each) for each in reasons] if reasons else ["it does not say why"]

    def run(self, id: str) -> Run:
        """A run of a job, by its id. Raises Missing."""
        target = f"/cluster/jobs/{quote(id, safe='')}"
        return Run.read(self._client.ask("GET", target).json())

    def begin(self, job: str, *, dry_run: bool = False, force: bool = False) -> Run:
        """Begin a run. Raises Missing for a job that the service does not have."""
        switches = {"dry_run": dry_run, "force": force}
        query = urlencode({key: "1" for key, on in switches.items() if on})
        target = f"/cluster/jobs/{quote(job, safe='')}"
        return Run.read(self.post(f"{target}?{query}" if query else target))

    def node(self, node: str, order: str) -> Any:
        """`drain` or `undrain` a node."""
        return self.post(f"/cluster/nodes/{quote(node, safe='')}/{order}")

    def adopt(self) -> Any:
        """Take an older copy of the metadata for right. Raises Refused."""
        return self.post("/cluster/adopt?force=1")

    def wait(self, run: Run, timeout: float) -> Run:
        """The run when it has ended. Raises Failure when it takes longer."""
        waited = 0.0
        while run.state == "running":
            if waited >= timeout:
                raise Failure(
                    f"{run.job} {run.id} still runs; `ostore admin jobs {run.id}` shows "
                    "how far it is"
                )
            waited += self._client.rest(LOOK)
            run = self.run(run.id)
        return run

    def admitted(self) -> None:
        """Raise what stands between us and signed requests; nothing is done."""
        try:
            self.post("/cluster/jobs/none-of-that-name")
        except Missing:
            return

    def post(self, target: str) -> Any:
        """A signed request; JSON or None. Raises Misused without a secret."""
        failed = 0
        told = False
        while True:
            try:
                return self._once(target)
            except Refused as error:
                if error.code == 401 and error.slug == "wrong-time" and not told:
                    told = True
                    continue
                if error.code == 401:
                    raise Refused(
                        f"{error}; is --cluster-secret-file that of this cluster?",
                        401,
                        error.slug,
                    ) from error
                failed += 1
                self._client.pause(failed, error)
            except Unreachable as error:
                failed += 1
                self._client.pause(failed, error)

    def _once(self, target: str) -> Any:
        host = self._client.endpoint.authority
        if self._signer is None:
            # 30 ms that only orders cost.
            from ostore.model.signing import Caller  # noqa: PLC0415

            world = self._session.world
            secret = self._session.settings.secret()
            self._signer = Caller(CALLER, secret, world.wall, world.entropy)
        signed = self._signer.headers(host, "POST", host, target)
        accept = (200, 202, 204, 401)
        answer = self._client.once(
            "POST", target, {"Host": host, **signed}, accept=accept
        )
        if answer.code == 204:
            answer.read(0)
            return None
        found = answer.json()
        if answer.code == 401:
            problem: Mapping[str, Any] = found if isinstance(found, dict) else {}
            slug = str(problem.get("type", "")).removeprefix("urn:ostore:problem:")
            self._told(host, answer.header("X-Ostore-Now"))
            raise Refused(f"the server said 401 {problem.get('detail', '')}", 401, slug)
        return found

    def _told(self, host: str, now: str | None) -> None:
        """Go by the service's clock from now on, as far as this request goes."""
        assert self._signer is not None
        try:
            self._signer.told(host, float(now or ""))
        except ValueError:
            return
